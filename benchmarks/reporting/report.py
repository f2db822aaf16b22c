"""One HTML file of all runs: sortable tables, plots, and a map of embeddings.

Plots are Plotly's. Labels are escaped in them, because Plotly would interpret tags as HTML.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
import tyro
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from plotly.offline import get_plotlyjs
from sklearn.manifold import TSNE

from pml_symm import SymmSynthesizer

from ..data.files import written_whole
from ..training import evaluator, records
from . import convergence, finished_runs, tables
from .figures import CURVES, Curve
from .finished_runs import FinishedRuns

_TIMES = ("PML ms", "Symm ms")


class Plot(NamedTuple):
    """A plot, and its values for readers who cannot see it.

    Attributes:
        title: what it shows.
        figure: data and layout, in the format of plotly.js.
        rows: of the table of its values; the first is the header.
        images: of a map, as data URIs; customdata of its points has their numbers.
    """

    title: str
    figure: dict[str, Any]
    rows: Sequence[Sequence[str]]
    images: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML file of all runs, which needs no network.

    It has sortable tables, base against Symm, learning curves, shares of synthetic
    negatives, speed, and an interactive t-SNE map of test embeddings.

    Attributes:
        out: the file.
        runs: output folders of the other commands; by default all in runs.
        speed: a speed.csv; by default runs/speed/speed.csv.
    """

    out: Path = Path("runs/report.html")
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[RUN ...]")
    ] = ()
    speed: Path | None = None

    def run(self) -> tuple[str, Path]:
        """Write the file.

        Raises:
            ValueError: out is a folder, a folder has no finished runs, or there are none
                at all.
        """
        if self.out.is_dir():
            raise ValueError(f"out must be a file, got the folder {self.out}")
        databases = sorted(Path("runs").glob(f"**/{records.DATABASE}"))
        named = finished_runs.different(self.runs)
        experiments = []
        for folder in named or [path.parent for path in databases]:
            experiment = finished_runs.read(folder)
            if experiment.variants:
                experiments.append(experiment)
            elif named:
                raise ValueError(
                    f"{folder} holds no runs that are finished"
                    f"{finished_runs.is_missing(folder)}"
                )
        if not experiments:
            raise ValueError("no finished runs in runs: train some, or name their folder")
        speed = self.speed or Path("runs", "speed", "speed.csv")
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        page = environment.get_template("report.html.jinja").render(
            experiments=[
                (
                    x,
                    f"{convergence.not_converged(x.variants)} {x.diverged}".strip(),
                    tables.accuracy_rows(x.variants),
                    filter(None, [difference_plot(x), *(curve_plot(x, c) for c in CURVES)]),
                )
                for x in experiments
            ],
            maps=[(x.name, map_plot(x)) for x in experiments if x.maps],
            speed=speed_plot(speed) if self.speed or speed.exists() else None,
            plotly=get_plotlyjs(),
        )
        with written_whole(self.out) as file:
            file.write(page.encode())
        counts = [
            f"{x.name}: {len(x.variants)} variants, "
            f"{sum(map(len, x.variants.values()))} runs\n"
            for x in experiments
        ]
        return "".join(counts), self.out


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
        differences = [tables.difference(*pairs, metric) for pairs in compared.values()]
        intervals = np.array([(x.low, x.high) for x in differences])
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
    return _plot(title.strip(), figure, rows)


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
        y = mean.round(3) if curve.unit else mean  # small ones count on a logarithmic scale
        figure.add_scatter(x=steps, y=y, mode="lines", name=html.escape(label))
        digits = ".1f" if curve.unit else ".3g"
        rows.append([label, f"{mean[0]:{digits}}", f"{mean[-1]:{digits}}"])
    if len(rows) == 1:
        return None
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title=curve.unit, type="linear" if curve.unit else "log")
    figure.update_layout(height=420 + 16 * len(rows))  # room for the legend
    title = curve.title[0].upper() + curve.title[1:]
    return _plot(f"{title}, mean over the seeds", figure, rows)


def speed_plot(path: Path) -> Plot:
    """Times of a speed.csv by batch size, for two samples of a class.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [
                (x["loss"], int(x["batch"]), [float(x[y] or "nan") for y in _TIMES])
                for x in csv.DictReader(file)
                if x["m"] == "2"
            ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no speed.csv of the command speed, or is damaged ({error!r})"
        ) from error
    figure = go.Figure()
    rows = [["loss", "batch", "PML, ms", "Symm, ms"]]
    rows += [
        [loss, str(batch), *("" if math.isnan(x) else f"{x:.2f}" for x in times)]
        for loss, batch, times in lines
    ]
    for loss in dict.fromkeys(loss for loss, *_ in lines):
        for i, dash in enumerate(("dot", "solid")):
            own = [x for x in lines if x[0] == loss and not math.isnan(x[2][i])]
            if own:
                figure.add_scatter(
                    x=[batch for _, batch, _ in own],
                    y=[times[i] for *_, times in own],
                    name=html.escape(f"{loss}, {_TIMES[i].split()[0]}"),
                    line={"dash": dash},
                )
    figure.update_xaxes(type="log", title="batch")
    figure.update_yaxes(type="log", title="ms, forward and backward")
    return _plot("Time of a loss, two samples a class", figure, rows)


def map_plot(runs: FinishedRuns) -> Plot:
    """The map of one variant; if possible, of a Symm method.

    It is t-SNE of test embeddings, with their mirror images.
    """
    label = max(runs.maps, key=lambda label: runs.method(label).is_symm)
    data = evaluator.load_map(runs.maps[label] / evaluator.MAP)
    pool = SymmSynthesizer(pairing="ring")(
        torch.from_numpy(data.embeddings), torch.from_numpy(data.labels)
    )
    points = torch.nn.functional.normalize(pool.embeddings).numpy()
    perplexity = min(30.0, (len(points) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
    number = len(data.labels)
    classes, colours = np.unique(pool.labels.numpy(), return_inverse=True)
    figure = go.Figure()
    for name, own, symbol, size, of_images in (
        ("originals", slice(number), "circle", 8, np.arange(number)),
        ("mirror images", slice(number, None), "x", 6, pool.source.numpy()),
    ):
        figure.add_scattergl(
            x=places[own, 0].round(2),
            y=places[own, 1].round(2),
            mode="markers",
            name=name,
            marker_symbol=symbol,
            marker_size=size,
            marker_color=colours[own],
            marker_colorscale="Turbo",
            customdata=of_images,
            text=[f"class {x}" for x in pool.labels[own].tolist()],
            hoverinfo="text",
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    figure.update_layout(height=560)
    rows = [["class", "originals"]]
    rows += [[str(x), str((data.labels == x).sum())] for x in classes]
    title = (
        f"{runs.name}, {label}: t-SNE of test embeddings of {len(classes)} classes, "
        "by colour. Point at one to see its image, or the image of its source."
    )
    return _plot(title, figure, rows)._replace(images=[_data_uri(x) for x in data.images])


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _plot(title: str, figure: go.Figure, rows: Sequence[Sequence[str]]) -> Plot:
    """A plot in the style of the report."""
    figure.update_layout(
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "y": -0.2},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return Plot(title, json.loads(figure.to_json()), rows)
