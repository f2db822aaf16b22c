"""Figures of results, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .methods import SYMM
from .tables import Results


def curves(
    results: Results, series: tuple[str, str, str], axis_label: str, path: Path
) -> None:
    """Draw mean and standard deviation over the seeds, a line for each method.

    Args:
        results: what was run.
        series: where in a run's result the curve is: its name, and the keys of its
            steps and of its values, shares of 1. Methods without it have no line.
        axis_label: of the vertical axis, which is in percent.
        path: the PNG to write.
    """
    name, steps_key, values_key = series
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    bases = sorted({method.removeprefix(SYMM) for method in results})
    colours = {base: f"C{number}" for number, base in enumerate(bases)}
    for method, runs in results.items():
        steps = runs[0][name][steps_key]
        if not steps:
            continue
        values = 100 * np.array([_numbers(run[name][values_key]) for run in runs])
        colour = colours[method.removeprefix(SYMM)]
        style = "-" if method.startswith(SYMM) else "--"
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.plot(steps, mean, style, color=colour, label=method)
        axes.fill_between(
            steps, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
        )
    axes.set_xlabel("training step")
    axes.set_ylabel(axis_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def _numbers(values: Sequence[float | None]) -> list[float]:
    # record-keeper writes None where a statistic was not recorded at a step.
    return [float("nan") if value is None else value for value in values]
