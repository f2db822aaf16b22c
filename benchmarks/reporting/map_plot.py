"""The report's map: t-SNE of test embeddings, with their mirror images."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image
from sklearn.manifold import TSNE

from pml_symm import SymmSynthesizer

from ..methods.methods import METHODS
from ..training import embedding_map
from .finished_runs import FinishedRuns
from .plots import Plot, plot


class MapPlot(NamedTuple):
    """A map and the images of its points.

    Attributes:
        plot: customdata has the number of each point's image.
        images: as data URIs.
    """

    plot: Plot
    images: list[str]


def map_plot(runs: FinishedRuns) -> MapPlot:
    """The map of one variant; if possible, of a Symm method."""

    def is_symm(label: str) -> bool:
        return METHODS[runs.variants[label][0]["settings"]["method"]].is_symm

    label = max(runs.maps, key=is_symm)
    data = embedding_map.load(runs.maps[label] / embedding_map.NAME)
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
            marker={
                "symbol": symbol,
                "size": size,
                "color": colours[own],
                "colorscale": "Turbo",
            },
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
    return MapPlot(plot(title, figure, rows), [_data_uri(x) for x in data.images])


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
