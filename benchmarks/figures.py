"""Figures of results, as PNG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .tables import Results


def curves(
    results: Results,
    bases: Mapping[str, str | None],
    series: tuple[str, str, str],
    axis_label: str,
    path: Path,
) -> None:
    """Draw mean and standard deviation over the seeds, a line for each variant.

    Args:
        results: what was run.
        bases: variant -> the one that it is compared with, or None; both have one colour.
        series: where in a run's result the curve is: its name, and the keys of its
            steps and of its values, shares of 1. Variants without it have no line.
        axis_label: of the vertical axis, which is in percent.
        path: the PNG to write.
    """
    name, steps_key, values_key = series
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    of_base = {label: bases.get(label) or label for label in results}
    colours = {base: f"C{i}" for i, base in enumerate(sorted(set(of_base.values())))}
    styles = itertools.cycle(("-", "-.", ":"))
    for label, runs in results.items():
        steps = runs[0][name][steps_key]
        if not steps:
            continue
        values = 100 * np.array([_numbers(run[name][values_key]) for run in runs])
        colour = colours[of_base[label]]
        style = "--" if of_base[label] == label else next(styles)
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.plot(steps, mean, style, color=colour, label=label)
        axes.fill_between(
            steps, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xlabel("training step")
    axes.set_ylabel(axis_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path)


def _numbers(values: Sequence[float | None]) -> list[float]:
    # record-keeper writes None where a statistic was not recorded at a step.
    return [float("nan") if value is None else value for value in values]
