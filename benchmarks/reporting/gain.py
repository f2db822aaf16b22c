"""The gain of synthesis in several experiments, against the angle of source and axis."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..methods.methods import METHODS
from . import convergence, finished_runs, tables
from .finished_runs import FinishedRuns

_AGAINST = ("base loss", "hardest originals")
_MARKERS = "osD^vP*Xhp<>"
_ANGLE = "angle between source and axis, degrees"


class Gain(NamedTuple):
    """The gain of a Symm variant of an experiment.

    Attributes:
        experiment: the name of its folder.
        variant: the name of the variant.
        angle: mean degrees between source and axis in the validation classes at the end:
            of its control, which trains without synthetic points, or else of its base.
        runs: "base loss" and "hardest originals", if they exist -> its own runs and
            theirs, paired.
    """

    experiment: str
    variant: str
    angle: float
    runs: Mapping[str, tuple[tables.Runs, tables.Runs]]

    def is_rising(self, against: str) -> bool:
        """Whether its own runs or the others had not converged."""
        return any(map(convergence.is_rising, self.runs[against]))

    def points(self, against: str, metric: str) -> tuple[list[float], list[float]] | None:
        """Percentages of its own runs and of the others; None if there are no others."""
        if against not in self.runs:
            return None
        own, others = self.runs[against]
        return tables.percentages(own, metric), tables.percentages(others, metric)


def gain(out: Path, folders: Sequence[Path]) -> str:
    """Write gain.md, gain.csv and gain.png.

    Args:
        out: the folder to write to.
        folders: output folders of the other commands.

    Returns:
        The contents of gain.md.

    Raises:
        ValueError: there are no folders, or in one of them no Symm method has a base or
            control that recorded the angle.
    """
    if not folders:
        raise ValueError("name at least one output folder of another command")
    gains: list[Gain] = []
    for folder in finished_runs.different(folders):
        own = gains_of(finished_runs.read(folder))
        if not own:
            raise ValueError(
                f"{folder} holds no finished runs of a Symm method and of its base with "
                f"the same seed that recorded the angle{finished_runs.is_missing(folder)}"
            )
        gains += own
    gains.sort(key=_over_base, reverse=True)
    out.mkdir(parents=True, exist_ok=True)
    rows = _rows(gains)
    parts = [tables.markdown(rows), tables.note(rows)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (out / "gain.md").write_text(text, encoding="utf-8")
    _write_csv(gains, out / "gain.csv")
    _draw(gains, out / "gain.png")
    return text


def gains_of(runs: FinishedRuns) -> list[Gain]:
    """A gain for each Symm variant with a base or a control to compare it with."""
    gains = []
    for label, bases in runs.bases.items():
        own = runs.variants[label]
        method = METHODS[own[0]["settings"]["method"]]
        names = dict(zip((method.base, method.control), _AGAINST, strict=True))
        pairs = {
            names[runs.variants[base][0]["settings"]["method"]]: tables.paired(
                own, runs.variants[base]
            )
            for base in bases
        }
        pairs = {against: x for against, x in pairs.items() if x[0]}
        if method.is_symm and pairs:
            *_, (_, others) = pairs.values()  # the control, if there is one
            angles = [run["angle"]["degrees"][-1] for run in others if "angle" in run]
            if angles:
                gains.append(Gain(runs.name, label, statistics.mean(angles), pairs))
    return gains


def _over_base(gain: Gain) -> float:
    """The gain in MAP@R over the first comparison, by which the table is sorted."""
    own, others = next(iter(gain.runs.values()))
    metric = "mean_average_precision_at_r"
    return tables.difference(
        tables.percentages(own, metric), tables.percentages(others, metric)
    ).mean


def _rows(gains: Sequence[Gain]) -> list[list[str]]:
    header = ["experiment", "", "angle, degrees"]
    header += [
        f"{title} above the {against}, points [95 %]"
        for against in _AGAINST
        for title in tables.COMPARED.values()
    ]
    rows = [header]
    for gain in gains:
        cells = [
            tables.paired_difference(*points)
            + f" {convergence.MARK}" * gain.is_rising(against)
            if points
            else ""
            for against in _AGAINST
            for metric in tables.COMPARED
            for points in [gain.points(against, metric)]
        ]
        rows.append([gain.experiment, gain.variant, f"{gain.angle:.1f}", *cells])
    return rows


def _write_csv(gains: Sequence[Gain], path: Path) -> None:
    """One line for each comparison and metric, unrounded."""
    header = ["experiment", "variant", "angle", "against", "metric", "seeds", "rising"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *tables.Difference._fields])
        for gain, against, metric in itertools.product(gains, _AGAINST, tables.COMPARED):
            points = gain.points(against, metric)
            if points:
                seeds = len(points[0])
                line = [gain.experiment, gain.variant, gain.angle, against, metric, seeds]
                rising = gain.is_rising(against)
                writer.writerow([*line, rising, *tables.difference(*points)])


def _draw(gains: Sequence[Gain], path: Path) -> None:
    """A panel for each comparison and metric; hollow points had not converged."""
    experiments = list(dict.fromkeys(gain.experiment for gain in gains))
    variants = list(dict.fromkeys(gain.variant for gain in gains))
    colours = {name: f"C{i}" for i, name in enumerate(experiments)}
    markers = dict(zip(variants, itertools.cycle(_MARKERS), strict=False))
    figure = Figure(figsize=(10, 6.4), layout="constrained", dpi=150)
    panels = figure.subplots(
        len(tables.COMPARED), len(_AGAINST), sharex=True, sharey="row", squeeze=False
    )
    for row, (metric, title) in zip(panels, tables.COMPARED.items(), strict=True):
        row[0].set_ylabel(f"{title}, points")
        for axes, against in zip(row, _AGAINST, strict=True):
            for gain in gains:
                points = gain.points(against, metric)
                if points:
                    _point(
                        axes,
                        gain.angle,
                        tables.difference(*points),
                        colours[gain.experiment],
                        markers[gain.variant],
                        is_rising=gain.is_rising(against),
                    )
            axes.axhline(0, color="gray", linestyle=":", linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3)
    for axes, against in zip(panels[0], _AGAINST, strict=True):
        axes.set_title(f"above the {against}", fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel(_ANGLE)
    handles = [Line2D([], [], color=colours[x], label=x, linewidth=4) for x in experiments]
    handles += [
        Line2D([], [], color="gray", marker=markers[x], linestyle="", label=x)
        for x in variants
    ]
    figure.legend(
        handles=handles, loc="outside right upper", frameon=False, fontsize="small"
    )
    figure.savefig(path)


def _point(
    axes: Axes,
    angle: float,
    difference: tables.Difference,
    colour: str,
    marker: str,
    is_rising: bool,
) -> None:
    mean, low, high = difference
    axes.errorbar(
        [angle],
        [mean],
        yerr=[[mean - low], [high - mean]],
        color=colour,
        marker=marker,
        markersize=6,
        markerfacecolor="none" if is_rising else colour,
        linewidth=1,
        alpha=0.85,
    )
