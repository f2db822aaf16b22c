"""One HTML file of all runs: tables that sort, curves, and a map of embeddings."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image
from plotly.offline import get_plotlyjs
from scipy.stats import ttest_rel
from sklearn.manifold import TSNE

from pml_symm import SymmSynthesizer

from ..data.files import written_whole
from ..methods.methods import METHODS, Synthesis
from ..training import embedding_map, records
from . import tables
from .figures import CURVES

TEMPLATE = Path(__file__).parent / "report.html"
# What only Symm methods look at: a base is the same without it.
_SYNTHESIS = {field.name for field in fields(Synthesis)}


class Experiment(NamedTuple):
    """The runs of an output folder.

    Attributes:
        name: of the folder.
        variants: label -> what its runs found, by seed.
        bases: label -> the variant that it is compared with, or None.
        maps: label -> the folder of its first run, if that has a map.
    """

    name: str
    variants: dict[str, list[dict[str, Any]]]
    bases: dict[str, str | None]
    maps: dict[str, Path]


def report(out: Path, runs: Sequence[Path] = (), speed: Path | None = None) -> str:
    """Write a report of output folders.

    Args:
        out: the HTML file to write.
        runs: output folders of the other commands; by default all in "runs" that hold
            finished runs.
        speed: a speed.csv; by default runs/speed/speed.csv, if it is there.

    Returns:
        What is in it.

    Raises:
        ValueError: a folder holds no finished runs, or there are none at all.
    """
    databases = sorted(Path("runs").glob(f"**/{records.DATABASE}"))
    experiments = []
    for folder in runs or [path.parent for path in databases]:
        experiment = read(folder)
        if experiment.variants:
            experiments.append(experiment)
        elif runs:
            raise ValueError(f"{folder} holds no runs that are finished")
    if not experiments:
        raise ValueError("no finished runs in runs: train some, or name their folder")
    if speed is None:
        speed = Path("runs", "speed", "speed.csv")
        speed = speed if speed.exists() else None
    sections = [_section(experiment) for experiment in experiments]
    maps = [_map(experiment) for experiment in experiments]
    sections += [x for x in maps if x]
    if speed is not None:
        sections.append(_speed(speed))
    page = TEMPLATE.read_text()
    page = page.replace("{{sections}}", "\n".join(sections))
    page = page.replace("{{plotly}}", get_plotlyjs())
    with written_whole(out) as file:
        file.write(page.encode())
    counts = [
        f"{x.name}: {len(x.variants)} variants, {sum(map(len, x.variants.values()))} runs"
        for x in experiments
    ]
    return "\n".join(counts) + "\n"


def read(folder: Path) -> Experiment:
    """The finished runs of an output folder that were tested, by what they share."""
    found = {
        name: result
        for name, result in records.read_all(folder / records.DATABASE).items()
        if result["test"]
    }
    every = [result["settings"] for result in found.values()]
    varying = [
        name
        for name in (every[0] if every else {})
        if name not in ("seed", "method", "learning_rate", "head_factor", "touch_test")
        and len({json.dumps(x.get(name)) for x in every}) > 1
    ]
    variants: dict[str, list[dict[str, Any]]] = {}
    maps: dict[str, Path] = {}
    for name, result in found.items():
        label = _label(result["settings"], varying)
        variants.setdefault(label, []).append(result)
        if (folder / name / embedding_map.NAME).exists():
            maps.setdefault(label, folder / name)
    for results in variants.values():
        results.sort(key=lambda x: x["settings"]["seed"])
    bases = {
        label: _base(results[0]["settings"], varying, variants)
        for label, results in variants.items()
    }
    return Experiment(folder.name, variants, bases, maps)


def _label(settings: Mapping[str, Any], varying: Iterable[str]) -> str:
    is_symm = METHODS[settings["method"]].is_symm
    parts = [
        f"{name} = {settings[name]}"
        for name in varying
        if settings.get(name) is not None and (is_symm or name not in _SYNTHESIS)
    ]
    return ", ".join([settings["method"], *parts])


def _base(
    settings: Mapping[str, Any], varying: Iterable[str], labels: Iterable[str]
) -> str | None:
    method = METHODS[settings["method"]].base
    if method is None:
        return None
    label = _label({**settings, "method": method}, varying)
    return label if label in labels else None


def _section(experiment: Experiment) -> str:
    results = experiment.variants
    settings = next(iter(results.values()))[0]["settings"]
    seeds = max(map(len, results.values()))
    about = (
        f"{settings['dataset']}, {settings['steps']:,} steps of batch "
        f"{settings['batch_size']}, {seeds} seed{'s' * (seeds > 1)}; mean ± standard "
        "deviation on unseen classes. Click a column's title to sort."
    )
    parts = [f"<p>{html.escape(about)}</p>", _table(tables.accuracy_rows(results))]
    difference = _differences(experiment)
    if difference is not None:
        parts.append(difference)
    for (series, values), axis_label in CURVES.items():
        title = axis_label.removesuffix(" (%)")
        curves = _curves(experiment, title[0].upper() + title[1:], series, values)
        if curves is not None:
            parts.append(curves)
    name = html.escape(experiment.name)
    return f'<section aria-label="{name}"><h2>{name}</h2>{"".join(parts)}</section>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(x)}</button></th>'
        for x in header
    )
    lines = [
        "<tr>"
        + f'<th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(x)}</td>" for x in row[1:])
        + "</tr>"
        for row in body
    ]
    return (
        '<div class="scroll"><table class="sortable"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _figure(figure: go.Figure, title: str, rows: Sequence[Sequence[str]]) -> str:
    """A plot, and the same as a table for those who cannot see it."""
    figure.update_layout(
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "y": -0.2},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    # In a script element "</" would end it.
    data = str(figure.to_json()).replace("</", "<\\/")
    name = html.escape(title)
    return (
        f'<figure><figcaption>{name}</figcaption><div class="plot" role="img" '
        f'aria-label="{name}; the table below has its values">'
        f'<script type="application/json">{data}</script></div>'
        f"<details><summary>As a table</summary>{_table(rows)}</details></figure>"
    )


def _differences(experiment: Experiment) -> str | None:
    """Base against the others, paired by seed, with 95 % intervals."""
    labels = [
        label
        for label, base in experiment.bases.items()
        if base is not None
        and len(experiment.variants[label]) == len(experiment.variants[base]) > 1
    ]
    if not labels:
        return None
    figure = go.Figure()
    for metric, title in tables.COMPARED.items():
        intervals = np.array(
            [
                ttest_rel(
                    tables.percentages(experiment.variants[label], metric),
                    tables.percentages(
                        experiment.variants[str(experiment.bases[label])], metric
                    ),
                ).confidence_interval()
                for label in labels
            ]
        )
        figure.add_scatter(
            x=intervals.mean(axis=1),
            y=labels,
            error_x={"type": "data", "array": np.ptp(intervals, axis=1) / 2},
            mode="markers",
            name=title,
            marker={"size": 9},
        )
    figure.add_vline(0, line={"dash": "dot", "color": "gray"})
    figure.update_xaxes(title="points above the base, 95 % interval")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=140 + 36 * len(labels))
    bases = {label: experiment.bases[label] for label in labels}
    rows = tables.difference_rows(experiment.variants, bases)
    return _figure(figure, "Difference to the base loss, paired by seed", rows)


def _curves(experiment: Experiment, title: str, series: str, values: str) -> str | None:
    figure = go.Figure()
    rows = [["variant", "first, %", "last, %"]]
    for label, runs in experiment.variants.items():
        steps = runs[0][series]["step"]
        if not steps:
            continue
        shares = np.array([run[series][values] for run in runs], dtype=float)
        mean = 100 * shares.mean(axis=0)
        figure.add_scatter(x=steps, y=mean.round(3), mode="lines", name=label)
        rows.append([label, f"{mean[0]:.1f}", f"{mean[-1]:.1f}"])
    if len(rows) == 1:
        return None
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title="%")
    figure.update_layout(height=420 + 16 * len(rows))  # room for the legend
    return _figure(figure, f"{title}, mean over the seeds", rows)


def _map(experiment: Experiment) -> str:
    """t-SNE of test embeddings, originals and mirror images."""
    if not experiment.maps:
        return ""
    # One map is enough for a folder: of a Symm method, if there is one.
    label = max(experiment.maps, key=lambda x: METHODS[_method(experiment, x)].is_symm)
    data = embedding_map.load(experiment.maps[label] / embedding_map.NAME)
    pool = SymmSynthesizer(pairing="ring")(
        torch.from_numpy(data.embeddings), torch.from_numpy(data.labels)
    )
    points = torch.nn.functional.normalize(pool.embeddings).numpy()
    perplexity = min(30.0, (len(points) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=0).fit_transform(points)
    number = len(data.labels)
    classes, colours = np.unique(pool.labels.numpy(), return_inverse=True)
    figure = go.Figure()
    for name, own, symbol in (
        ("originals", np.arange(number), "circle"),
        ("mirror images", np.arange(number, len(places)), "x"),
    ):
        of_images = own if name == "originals" else pool.source.numpy()
        figure.add_scattergl(
            x=places[own, 0].round(2),
            y=places[own, 1].round(2),
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 8 if name == "originals" else 6,
                "color": colours[own],
                "colorscale": "Turbo",
            },
            # The image that is shown, by its number.
            customdata=of_images,
            text=[f"class {x}" for x in pool.labels[own].tolist()],
            hoverinfo="text",
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    figure.update_layout(height=560)
    rows = [["class", "originals"]]
    rows += [[str(x), str(int((data.labels == x).sum()))] for x in classes]
    title = (
        f"{experiment.name}, {label}: t-SNE of test embeddings of {len(classes)} classes, "
        "by colour. Point at one to see its image, or the image of its source."
    )
    images = json.dumps([_data_uri(image) for image in data.images])
    switch = (
        '<label class="switch"><input type="checkbox" checked> mirror images</label>'
        '<img class="hovered" alt="image of the point that was pointed at" hidden>'
    )
    return (
        f'<section class="map" aria-label="map of {html.escape(experiment.name)}">'
        f"<h2>Map: {html.escape(experiment.name)}</h2>{switch}"
        f"{_figure(figure, title, rows)}"
        f'<script type="application/json" class="images">{images}</script></section>'
    )


def _method(experiment: Experiment, label: str) -> str:
    return experiment.variants[label][0]["settings"]["method"]


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _speed(path: Path) -> str:
    with path.open(newline="") as file:
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
                    name=f"{loss}, {column.split()[0]}",
                    line={"dash": dash},
                )
    figure.update_xaxes(type="log", title="batch")
    figure.update_yaxes(type="log", title="ms, forward and backward")
    return (
        '<section aria-label="speed"><h2>speed</h2>'
        f"{_figure(figure, 'Time of a loss, two samples a class', rows)}</section>"
    )


_TIMES = ("PML ms", "Symm ms")
