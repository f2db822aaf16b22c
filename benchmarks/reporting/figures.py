"""Figures of results, as PNG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .tables import Bases, Results

CURVES = {
    ("val", "recall_at_1"): "recall@1 on validation classes (%)",
    ("synthetic_ratio", "ratio"): "negatives with a synthetic end (%)",
    ("synthetic_queries", "recall_at_1"): "recall@1 of synthetic queries (%)",
}
"""Series of a result, and its values -> what the axis of its figure says."""


def curves(
    results: Results,
    bases: Bases,
    series: tuple[str, str, str],
    axis_label: str,
    path: Path,
) -> None:
    """Draw mean and standard deviation over the seeds, a line for each variant.

    Args:
        results: what was run.
        bases: what is compared; a variant has the colour of its base loss.
        series: where in a run's result the curve is: its name, and the keys of its
            steps and of its values, shares of 1. Variants without it have no line.
        axis_label: of the vertical axis, which is in percent.
        path: the PNG to write.
    """
    name, steps_key, values_key = series
    lines = {
        label: (
            runs[0][name][steps_key],
            # As numbers: record-keeper has None where nothing was recorded at a step.
            np.array([run[name][values_key] for run in runs], dtype=float),
        )
        for label, runs in results.items()
        if runs[0][name][steps_key]
    }
    _draw(lines, bases, "training step", axis_label, path)


def by_learning_rate(
    values: Mapping[str, Mapping[float, Sequence[float]]],
    bases: Bases,
    axis_label: str,
    path: Path,
) -> None:
    """Draw mean and standard deviation over the folds, a line for each method.

    Args:
        values: method -> learning rate -> shares of 1, one for each fold.
        bases: as curves has it.
        axis_label: of the vertical axis, which is in percent.
        path: the PNG to write.
    """
    lines = {
        method: (sorted(folds), np.array([folds[rate] for rate in sorted(folds)]).T)
        for method, folds in values.items()
    }
    _draw(lines, bases, "learning rate", axis_label, path, logarithmic=True)


def _draw(
    lines: Mapping[str, tuple[Sequence[float], np.ndarray]],
    bases: Bases,
    x_label: str,
    y_label: str,
    path: Path,
    logarithmic: bool = False,
) -> None:
    """Lines: label -> n places on the horizontal axis, and shares of shape (runs, n)."""
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    of_base = {label: next(iter(bases.get(label, ())), label) for label in lines}
    colours = {base: f"C{i}" for i, base in enumerate(sorted(set(of_base.values())))}
    styles = itertools.cycle(("-", "-.", ":"))
    for label, (places, shares) in lines.items():
        colour = colours[of_base[label]]
        style = "--" if of_base[label] == label else next(styles)
        mean, spread = 100 * shares.mean(axis=0), 100 * shares.std(axis=0)
        axes.plot(places, mean, style, color=colour, label=label)
        axes.fill_between(
            places, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
        )
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path)
