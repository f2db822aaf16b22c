"""Plots of the report: each a Plotly figure, and the same as a table.

Labels are escaped, because Plotly would interpret tags in them as HTML.
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from scipy.stats import ttest_rel

from . import tables
from .figures import Curve
from .finished_runs import FinishedRuns

_TIMES = ("PML ms", "Symm ms")


class Plot(NamedTuple):
    """A plot, and its values for readers who cannot see it.

    Attributes:
        title: what it shows.
        figure: data and layout, in the format of plotly.js.
        rows: of the table of its values; the first is the header.
    """

    title: str
    figure: dict[str, Any]
    rows: Sequence[Sequence[str]]


def plot(title: str, figure: go.Figure, rows: Sequence[Sequence[str]]) -> Plot:
    """A plot in the style of the report."""
    figure.update_layout(
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "y": -0.2},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return Plot(title, json.loads(figure.to_json()), rows)


def difference_plot(runs: FinishedRuns) -> Plot | None:
    """Each variant against its bases, paired by seed, with 95 % intervals."""
    compared = {
        f"{label} minus {base}": pairs
        for label, bases in runs.bases.items()
        for base in bases
        if len((pairs := tables.paired(runs.variants[label], runs.variants[base]))[0]) > 1
    }
    if not compared:
        return None
    figure = go.Figure()
    for metric, title in tables.COMPARED.items():
        intervals = np.array(
            [
                ttest_rel(
                    tables.percentages(own, metric), tables.percentages(others, metric)
                ).confidence_interval()
                for own, others in compared.values()
            ]
        )
        figure.add_scatter(
            x=intervals.mean(axis=1),
            y=[html.escape(label) for label in compared],
            error_x={"type": "data", "array": np.ptp(intervals, axis=1) / 2},
            mode="markers",
            name=title,
            marker={"size": 9},
        )
    figure.add_vline(0, line={"dash": "dot", "color": "gray"})
    figure.update_xaxes(title="points above, 95 % interval")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=140 + 36 * len(compared))
    rows = tables.difference_rows(runs.variants, runs.bases)
    title = (
        f"Difference to the base loss and the control, paired by seed. {tables.note(rows)}"
    )
    return plot(title.strip(), figure, rows)


def curve_plot(runs: FinishedRuns, curve: Curve) -> Plot | None:
    """A mean over the seeds by step, a line for each variant that has it."""
    figure = go.Figure()
    unit = f", {curve.unit}" if curve.unit else ""
    rows = [["variant", f"first{unit}", f"last{unit}"]]
    for label, results in runs.variants.items():
        steps = curve.steps(results)
        if not steps:
            continue
        mean = curve.of(results).mean(axis=0)
        figure.add_scatter(x=steps, y=mean.round(3), mode="lines", name=html.escape(label))
        digits = ".1f" if curve.unit else ".3g"
        rows.append([label, f"{mean[0]:{digits}}", f"{mean[-1]:{digits}}"])
    if len(rows) == 1:
        return None
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title=curve.unit, type="linear" if curve.unit else "log")
    figure.update_layout(height=420 + 16 * len(rows))  # room for the legend
    title = curve.title[0].upper() + curve.title[1:]
    return plot(f"{title}, mean over the seeds", figure, rows)


def speed_plot(path: Path) -> Plot:
    """Times of a speed.csv by batch size, for two samples of a class.

    Raises:
        ValueError: it is no such file.
    """
    try:
        return _speed_plot(path)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no speed.csv of the command speed, or is damaged ({error!r})"
        ) from error


def _speed_plot(path: Path) -> Plot:
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["m"] == "2"]
    figure = go.Figure()
    rows = [["loss", "batch", "PML, ms", "Symm, ms"]]
    rows += [
        [x["loss"], x["batch"], *(f"{float(x[y]):.2f}" if x[y] else "" for y in _TIMES)]
        for x in lines
    ]
    for loss in dict.fromkeys(line["loss"] for line in lines):
        for column, dash in zip(_TIMES, ("dot", "solid"), strict=True):
            own = [x for x in lines if x["loss"] == loss and x[column]]
            if own:
                figure.add_scatter(
                    x=[int(x["batch"]) for x in own],
                    y=[float(x[column]) for x in own],
                    name=html.escape(f"{loss}, {column.split()[0]}"),
                    line={"dash": dash},
                )
    figure.update_xaxes(type="log", title="batch")
    figure.update_yaxes(type="log", title="ms, forward and backward")
    return plot("Time of a loss, two samples a class", figure, rows)
