"""Draws the figures of how-it-works.md: python docs/draw_geometry.py."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pml_symm import SymmSynthesizer

FOLDER = Path(__file__).parent / "geometry"
COLOURS = "C0", "C1"


def axes_of(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plane with the same scale on both axes."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure, axes


def draw_mirror() -> None:
    """Draw one synthetic point: source, axis, projection, and equal lengths."""
    points = torch.tensor([[0.35, 0.95], [1.1, 0.45]])
    pool = SymmSynthesizer()(points, torch.tensor([0, 0]))
    source, axis, image = points[0], points[1], pool.synthetic[0]
    projection = (source + image) / 2
    figure, axes = axes_of(5, 3.4)
    far = axis * 1.25
    axes.plot([0, far[0]], [0, far[1]], "--", color="0.5", linewidth=1)
    for point, style in ((source, "C0-"), (image, "C3-")):
        axes.plot([0, point[0]], [0, point[1]], style, linewidth=1, alpha=0.6)
        axes.plot([point[0], axis[0]], [point[1], axis[1]], style, linewidth=1, alpha=0.6)
    axes.plot([source[0], image[0]], [source[1], image[1]], ":", color="0.4")
    for point, marker, colour, text, shift in (
        (source, "o", "C0", "source $x_k$", (-0.05, 0.07)),
        (axis, "o", "C0", "axis $x_l$", (0.06, -0.07)),
        (image, "X", "C3", "mirror image $x'_{kl} = 2r - x_k$", (-0.4, -0.13)),
        (projection, ".", "0.3", "projection $r$", (0.07, -0.07)),
    ):
        axes.plot(*point, marker, color=colour, markersize=9)
        axes.annotate(text, point + torch.tensor(shift))
    axes.set_xlim(-0.15, 1.9)
    axes.set_ylim(-0.65, 1.2)
    figure.savefig(FOLDER / "mirror.png")


def draw_sixteen() -> None:
    """Draw two classes of two members: sixteen pairs of points, and the hardest pair."""
    points = torch.tensor([[0.25, 1.05], [0.75, 0.85], [1.25, 0.2], [1.1, -0.35]])
    labels = torch.tensor([0, 0, 1, 1])
    pool = SymmSynthesizer()(points, labels)
    distance = torch.cdist(pool.embeddings, pool.embeddings)
    distance[pool.labels.unsqueeze(1) == pool.labels] = torch.inf
    hardest = divmod(int(distance.argmin()), len(distance))
    figure, axes = axes_of(6, 4)
    first, second = (torch.where(pool.labels == label)[0].tolist() for label in (0, 1))
    for i in first:
        for j in second:
            is_hardest = {i, j} == set(hardest)
            axes.plot(
                *pool.embeddings[[i, j]].t(),
                "-",
                color="C3" if is_hardest else "0.8",
                linewidth=2.2 if is_hardest else 0.8,
                zorder=2 if is_hardest else 1,
            )
    for index, (point, label) in enumerate(zip(pool.embeddings, pool.labels, strict=True)):
        is_original = index < pool.num_originals
        axes.plot(
            *point,
            "o" if is_original else "X",
            color=COLOURS[int(label)],
            markersize=10,
            zorder=3,
        )
    for marker, text in (("o", "originals"), ("X", "mirror images")):
        axes.plot([], [], marker, color="0.4", label=text)
    axes.plot([], [], "C3-", linewidth=2.2, label="the hardest of sixteen pairs")
    # Outside the axes, where it hides no point.
    figure.legend(frameon=False, loc="outside right center")
    figure.savefig(FOLDER / "sixteen.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw_mirror()
    draw_sixteen()
