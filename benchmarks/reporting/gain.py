"""The gain of synthesis in several experiments, against the angle of source and axis."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import convergence, finished_runs, tables
from .finished_runs import FinishedRuns

_AGAINST = ("base loss", "hardest originals")
_COLUMNS = list(itertools.product(_AGAINST, tables.COMPARED))
_MARKERS = "osD^vP*Xhp<>dH8"  # all that can be hollow


class GainOver(NamedTuple):
    """The gain of a Symm variant of an experiment over another variant, by one metric.

    Attributes:
        experiment: the name of its folder.
        variant: the name of the variant.
        angle: mean degrees between source and axis in the validation classes at the end:
            of its control, which trains without synthetic points, or else of its base.
        against: "base loss", the normalized one if it was trained, or "hardest originals".
        metric: a key of tables.COMPARED.
        seeds: how many runs of both were paired.
        rising: whether one of the two had not converged.
        difference: in points.
    """

    experiment: str
    variant: str
    angle: float
    against: str
    metric: str
    seeds: int
    rising: bool
    difference: tables.Difference


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Compare the gain of synthesis over experiments, and whether the angle predicts it.

    A row and a point for every Symm method of every experiment: its gain over its base
    loss (angular: normalized, if that was trained) and over the hardest originals, paired
    by seed, against the angle between source and axis at the end of training.

    Attributes:
        out: output folder.
        runs: output folders of the other commands.
    """

    out: Path = Path("runs/gain")
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")
    ] = ()

    def run(self) -> tuple[str, Path]:
        """Write gain.md, gain.csv and gain.png.

        Raises:
            ValueError: there are no runs, or in one of the folders no Symm method has a
                base or control that recorded the angle.
        """
        if not self.runs:
            raise ValueError("name at least one output folder of another command")
        of_variants: list[list[GainOver]] = []
        unknown = []
        folders = finished_runs.different(self.runs)
        names = Counter(folder.resolve().name for folder in folders)
        for folder in folders:
            runs = finished_runs.read(folder)
            if names[runs.name] > 1:
                name = f"{folder.resolve().parent.name}/{runs.name}"
                runs = runs._replace(name=name)
            if not all(map(convergence.rises, runs.variants.values())):
                unknown.append(runs.name)
            own = gains_of(runs)
            if not own:
                raise ValueError(
                    f"{folder} holds no finished runs of a Symm method and of its base "
                    "with the same seed that recorded the angle"
                    f"{finished_runs.is_missing(folder)}"
                )
            of_variants += own
        of_variants.sort(key=_map_over_base, reverse=True)
        gains = list(itertools.chain(*of_variants))
        rows = _rows(of_variants)
        text = tables.write(
            self.out / "gain.md",
            tables.markdown(rows),
            tables.note(rows),
            f"Converged or not: unknown for {', '.join(unknown)}." if unknown else "",
        )
        header = [*GainOver._fields[:-1], *tables.Difference._fields]
        lines = ([*x[:-1], *x.difference] for x in gains)
        tables.write_csv(self.out / "gain.csv", [header, *lines])
        _draw(gains, self.out / "gain.png")
        return text, self.out


def gains_of(runs: FinishedRuns) -> list[list[GainOver]]:
    """The gains of each Symm variant with a base or a control to compare it with."""
    found = []
    of_base, of_control = _AGAINST
    for label, bases in runs.bases.items():
        if not runs.method(label).is_symm:
            continue
        pairs = {}
        for base in bases:
            own, others = tables.paired(runs.variants[label], runs.variants[base])
            if own:
                # Of two base losses the last counts: it normalizes, as the method does.
                against = of_control if runs.method(base).is_control else of_base
                pairs[against] = own, others
        if not pairs:
            continue
        *_, (_, others) = pairs.values()  # the control, if there is one
        angles = [run["angle"]["degrees"][-1] for run in others if "angle" in run]
        if angles:
            found.append(
                [
                    GainOver(
                        *(runs.name, label, statistics.mean(angles), against, metric),
                        len(own),
                        any(map(convergence.is_rising, (own, others))),
                        tables.difference(own, others, metric),
                    )
                    for against, (own, others) in pairs.items()
                    for metric in tables.COMPARED
                ]
            )
    return found


def _map_over_base(gains: Iterable[GainOver]) -> float:
    """The gain in MAP@R over the first comparison, by which the table is sorted."""
    return next(
        x.difference.mean for x in gains if x.metric == "mean_average_precision_at_r"
    )


def _rows(of_variants: Iterable[Sequence[GainOver]]) -> list[list[str]]:
    titles = [
        f"{tables.COMPARED[metric]} above the {against}, points [95 %]"
        for against, metric in _COLUMNS
    ]
    rows = [["experiment", "", "angle, degrees", *titles]]
    for gains in of_variants:
        cells = {
            (x.against, x.metric): f"{x.difference}" + f" {convergence.MARK}" * x.rising
            for x in gains
        }
        experiment, variant, angle, *_ = gains[0]
        shown = [cells.get(column, "") for column in _COLUMNS]
        rows.append([experiment, variant, f"{angle:.1f}", *shown])
    return rows


def _draw(gains: Sequence[GainOver], path: Path) -> None:
    """A panel for each comparison and metric; hollow points had not converged."""
    experiments = list(dict.fromkeys(gain.experiment for gain in gains))
    variants = list(dict.fromkeys(gain.variant for gain in gains))
    shades = colormaps["tab20"]
    colours = {name: shades(i % shades.N) for i, name in enumerate(experiments)}
    markers = dict(zip(variants, itertools.cycle(_MARKERS), strict=False))
    figure = Figure(figsize=(10, 6.4), layout="constrained", dpi=150)
    grid = figure.subplots(len(tables.COMPARED), len(_AGAINST), sharex=True, sharey="row")
    panels = dict(zip(_COLUMNS, grid.T.flat, strict=True))
    for gain in gains:
        mean, low, high = gain.difference
        colour = colours[gain.experiment]
        panels[gain.against, gain.metric].errorbar(
            [gain.angle],
            [mean],
            yerr=[[mean - low], [high - mean]],
            color=colour,
            marker=markers[gain.variant],
            markersize=6,
            markerfacecolor="none" if gain.rising else colour,
            linewidth=1,
            alpha=0.85,
        )
    for axes in grid.flat:
        axes.axhline(0, color="gray", linestyle=":", linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    for axes, title in zip(grid[:, 0], tables.COMPARED.values(), strict=True):
        axes.set_ylabel(f"{title}, points")
    for axes, against in zip(grid[0], _AGAINST, strict=True):
        axes.set_title(f"above the {against}", fontsize="medium")
    for axes in grid[-1]:
        axes.set_xlabel("angle between source and axis, degrees")
    handles = [Line2D([], [], color=colours[x], label=x, linewidth=4) for x in experiments]
    handles += [
        Line2D([], [], color="gray", marker=markers[x], linestyle="", label=x)
        for x in variants
    ]
    figure.legend(
        handles=handles, loc="outside right upper", frameon=False, fontsize="small"
    )
    figure.savefig(path)
