"""Figures of results, as PNG."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from .convergence import Result, Results
from .tables import Bases

_INSIDE = 6  # the most lines whose legend leaves room for them inside the axes


class Curve(NamedTuple):
    """A quantity that a run records over its steps.

    Attributes:
        series: its key in a run's result; there its steps are under "step".
        values: the key of its values there: fractions of 1, degrees, or numbers.
        title: what it shows.
        unit: of the figure: "%", "degrees", or "" for numbers, whose scale is logarithmic,
            as that of the steps: the start of training is where they differ.
        file: name of the figure, without its ending.
    """

    series: str
    values: str
    title: str
    unit: str
    file: str

    def steps(self, runs: Sequence[Result]) -> Sequence[int]:
        """The steps with values, the same for all runs.

        Empty if a run lacks it, or some of it, as those of earlier versions.
        """
        first, *others = (run.get(self.series, {}).get("step", ()) for run in runs)
        return first if all(steps == first for steps in others) else ()

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def of(self, runs: Sequence[Result]) -> np.ndarray:
        """Its values in the figure's unit, of shape (runs, steps)."""
        # float turns None, record-keeper's value for a step without a record, into NaN.
        values = np.array([run[self.series][self.values] for run in runs], dtype=float)
        return 100 * values if self.unit == "%" else values


CURVES = (
    Curve("val", "recall_at_1", "recall@1 on validation classes", "%", "accuracy"),
    Curve(
        "synthetic_ratio", "ratio", "negatives with a synthetic end", "%", "synthetic_ratio"
    ),
    Curve(
        *("synthetic_queries", "recall_at_1", "recall@1 of synthetic queries", "%"),
        "synthetic_queries",
    ),
    Curve("angle", "degrees", "mean angle between source and axis", "degrees", "angle"),
    Curve("loss", "loss", "loss", "", "loss"),
    Curve("gradient_norm", "gradient_norm", "length of the gradient", "", "gradient"),
)


def draw_curve(results: Results, bases: Bases, curve: Curve, path: Path) -> None:
    """Draw a curve of each variant that has it, as draw_lines does."""
    lines = {
        label: (steps, curve.of(runs))
        for label, runs in results.items()
        if (steps := curve.steps(runs))
    }
    scales = ("linear", "linear") if curve.unit else ("symlog", "log")
    draw_lines(lines, bases, ("training step", curve.label), scales, path)


def draw_lines(
    lines: Mapping[str, tuple[Sequence[float], np.ndarray]],
    bases: Bases,
    labels: tuple[str, str],
    scales: tuple[str, str],
    path: Path,
) -> None:
    """Draw mean and standard deviation, a line for each variant, in its base's colour.

    A variant has n horizontal positions, and values of shape (runs, n). Labels and scales,
    which have matplotlib's names, are those of x and y.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    of_base = {
        label: next((base for base in bases.get(label, ()) if base in lines), label)
        for label in lines
    }
    found = sorted(set(of_base.values()))
    shades = colormaps["tab10" if len(found) <= 10 else "tab20"]
    colours = {base: shades(i % shades.N) for i, base in enumerate(found)}
    styles = itertools.cycle(("-", "-.", ":"))
    for label, (places, values) in lines.items():
        colour = colours[of_base[label]]
        style = "--" if of_base[label] == label else next(styles)
        mean = values.mean(axis=0)
        spread = values.std(axis=0, ddof=min(1, len(values) - 1))
        axes.plot(places, mean, style, color=colour, label=label)
        axes.fill_between(
            places, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xscale=scales[0], yscale=scales[1], xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > _INSIDE:
        figure.set_figwidth(10)
        figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    elif lines:
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path)
