"""Draws the figure of architecture.md: python docs/draw_architecture.py."""

from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

FOLDER = Path(__file__).parent / "architecture"
LEFT, CENTRE, RIGHT = 1.15, 3.65, 6.15
WIDTH, HEIGHT = 2.1, 0.6
SMALL = {"va": "center", "fontsize": 8.5}
JOIN = {"solid_capstyle": "projecting"}
DATA, BOTH, WEIGHTS, MADE = "white", "#ececec", "#dbe8f6", "#fbe5d0"


class Box(NamedTuple):
    """A step: its position, its name in the code, what it does, and its colour."""

    x: float
    y: float
    name: str
    text: str
    colour: str


BOXES = {
    "labels": Box(LEFT, 9.1, "labels", "or those of the reference", DATA),
    "embeddings": Box(CENTRE, 9.1, "embeddings", "in float32 or better", DATA),
    "groups": Box(LEFT, 8.05, "class_groups", "classes of one size together", BOTH),
    "which": Box(CENTRE, 8.05, "makes_points", "are weights not enough?", BOTH),
    "pairs": Box(LEFT, 7, "PositivePairs", "all, or the given ones", BOTH),
    "points": Box(CENTRE, 7, "class_points", "points as rows of weights", WEIGHTS),
    "pool": Box(RIGHT, 7, "pool", "points as tensors", MADE),
    "values": Box(LEFT, 5.95, "Scores.of_pairs", "$d(i, j)$ of positive pairs", BOTH),
    "products": Box(CENTRE, 5.95, "ProductTable", "sums of dot products", WEIGHTS),
    "matrix": Box(RIGHT, 5.95, "MatrixTable", "blocks of distance(pool)", MADE),
    "search": Box(CENTRE, 4.9, "compare_groups", "a rule finds places, in blocks", BOTH),
    "winners": Box(CENTRE, 3.85, "Table.winners", "scored again, with autograd", BOTH),
    "back": Box(CENTRE, 2.8, "Scores.values", "$H(u, v)$ of the distance", BOTH),
    "miner": Box(RIGHT, 2.8, "mine_points", "places as rows of the pool", BOTH),
    "loss": Box(CENTRE, 1.75, "..._terms", "the loss's formula", BOTH),
    "tuple": Box(RIGHT, 1.75, "indices", "of pairs or triplets", DATA),
    "reducer": Box(CENTRE, 0.7, "mean", "or PML's reducer", DATA),
}
DOWN = (
    ("labels", "groups"),
    ("embeddings", "which"),
    ("groups", "pairs"),
    ("pairs", "values"),
    ("points", "products"),
    ("products", "search"),
    ("search", "winners"),
    ("winners", "back"),
    ("back", "loss"),
    ("loss", "reducer"),
    ("pool", "matrix"),
    ("miner", "tuple"),
)


def draw_box(axes: Axes, box: Box) -> None:
    """Draw a rounded box: a name from the code above a description."""
    axes.add_patch(
        FancyBboxPatch(
            (box.x - WIDTH / 2, box.y - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=box.colour,
            edgecolor="0.35",
            linewidth=0.9,
        )
    )
    style = {"ha": "center", "va": "center"}
    axes.text(box.x, box.y + 0.13, box.name, family="monospace", fontsize=9.5, **style)
    axes.text(box.x, box.y - 0.14, box.text, fontsize=8.5, color="0.2", **style)


def draw_arrow(axes: Axes, *corners: tuple[float, float]) -> None:
    """Draw a line from corner to corner, with an arrow head at the last one."""
    *line, end = corners
    axes.plot(*zip(*line, strict=True), color="0.3", linewidth=1.1, zorder=0, **JOIN)
    style = {"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.1, "shrinkA": 0}
    axes.annotate("", end, line[-1], arrowprops=style | {"shrinkB": 0})


def draw_data_flow() -> None:
    """Draw the steps from labels and embeddings to the loss and to the miner's indices."""
    figure = Figure(figsize=(7.3, 9.2), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 7.3)
    axes.set_ylim(0.2, 9.6)
    axes.set_axis_off()
    for box in BOXES.values():
        draw_box(axes, box)
    half, side = HEIGHT / 2, WIDTH / 2
    for start, end in DOWN:
        first, second = BOXES[start], BOXES[end]
        draw_arrow(axes, (first.x, first.y - half), (second.x, second.y + half))
    y = {name: box.y for name, box in BOXES.items()}
    left, right, lane = CENTRE - side, CENTRE + side, (LEFT + CENTRE) / 2
    enters, joins, leaves = y["points"] + 0.12, y["search"] + 0.12, y["search"] - 0.12
    for corners in (
        [(CENTRE, y["which"] - half), (CENTRE, y["points"] + half)],
        [(right, y["which"]), (RIGHT, y["which"]), (RIGHT, y["pool"] + half)],
        [(LEFT + side, y["groups"]), (lane, y["groups"]), (lane, enters), (left, enters)],
        [(LEFT, y["values"] - half), (LEFT, y["loss"]), (left, y["loss"])],
        [(RIGHT, y["matrix"] - half), (RIGHT, joins), (right, joins)],
        [(right, leaves), (RIGHT, leaves), (RIGHT, y["miner"] + half)],
    ):
        draw_arrow(axes, *corners)
    axes.text(CENTRE + 0.08, (y["which"] + y["points"]) / 2, "no", **SMALL)
    axes.text(lane + CENTRE - LEFT - 0.15, y["which"] + 0.13, "yes", **SMALL)
    for height, colour, text in (
        (1.15, WEIGHTS, "points as weights"),
        (0.85, MADE, "points made as tensors"),
        (0.55, BOTH, "both"),
    ):
        axes.plot(0.25, height, "s", color=colour, markeredgecolor="0.35", markersize=9)
        axes.text(0.45, height, text, **SMALL)
    figure.savefig(FOLDER / "data_flow.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw_data_flow()
