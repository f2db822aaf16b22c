"""Pictures of an embedding during training: originals and synthetic points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pytorch_metric_learning.samplers import MPerClassSampler
from sklearn.manifold import TSNE

from pml_symm import SymmSynthesizer

from ..data.glyphs import glyphs
from ..data.splits import SplitOptions
from ..methods.methods import METHODS
from ..models.trunks import make_trunk
from ..training.settings import Settings
from ..training.trainers import make_trainer

METHOD = "Symm + N-pairs"


class Snapshot(NamedTuple):
    """All images of some classes, embedded after some steps, and their synthetic points.

    The points have the shape (N, D) and the labels (N,); the originals are first.
    """

    step: int
    points: np.ndarray
    labels: np.ndarray
    num_originals: int


@dataclass(frozen=True, kw_only=True)
class Visualize:
    """Draw originals and synthetic points while an embedding trains.

    Train Symm + N-pairs on a few characters twice, and draw both kinds of points in the
    colours of their classes: an animated GIF of a 2-d embedding, and t-SNE maps of an
    embedding with more dimensions.

    Attributes:
        out: output folder.
        classes: how many characters.
        steps: batches to train on.
        frames: of the animation.
        maps: how many t-SNE maps, evenly over the training, the first before it.
        embedding_size: dimensions of the embedding that t-SNE maps.
        seed: of characters, weights and batches.
    """

    out: Path = Path("runs/visualize")
    classes: int = 8
    steps: int = 120
    frames: int = 40
    maps: int = 3
    embedding_size: int = 64
    seed: int = 0

    def run(self) -> tuple[str, Path]:
        """Train twice, and write embedding.gif, and tsne-STEP.png for each map.

        Raises:
            ValueError: classes or embedding_size is below 2, classes is above the number
                of characters, another number is below 1, or frames or maps is above steps.
        """
        for name, least in (("steps", 1), ("embedding_size", 2), ("classes", 2)):
            if (number := getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        available = len(np.unique(glyphs(SplitOptions(self.seed)).train.labels))
        if self.classes > available:
            raise ValueError(f"classes must be at most {available}, got {self.classes}")
        for name in ("frames", "maps"):
            if not 1 <= (number := getattr(self, name)) <= self.steps:
                raise ValueError(
                    f"{name} must be from 1 to steps = {self.steps}, got {number}"
                )
        self.out.mkdir(parents=True, exist_ok=True)
        train = partial(_train, self.classes, self.steps, self.seed)
        _animate(train(self.frames, 2), self.out / "embedding.gif")
        written = ["embedding.gif"]
        for snapshot in train(self.maps, self.embedding_size):
            path = self.out / f"tsne-{snapshot.step:05d}.png"
            _draw_map(snapshot, path)
            written.append(path.name)
        return f"{', '.join(written)}\n", self.out


def _train(
    classes: int, steps: int, seed: int, number: int, embedding_size: int
) -> list[Snapshot]:
    """Snapshots at evenly spaced steps of the training, its start and end included."""
    settings = Settings(
        METHOD,
        seed,
        steps=steps,
        test_interval=steps,
        batch_size=2 * classes,
        width=8,
        max_classes=classes,
    )
    torch.manual_seed(seed)
    np.random.seed(seed)
    dataset = glyphs(settings.split).train
    images = torch.stack([dataset[row][0] for row in range(len(dataset))])
    labels = torch.from_numpy(dataset.labels)
    trunk, features, *_ = make_trunk("convnet", settings.width)
    embedder = torch.nn.Linear(features, embedding_size)
    loss, _ = METHODS[METHOD].make(settings)
    wanted = set(np.linspace(0, steps, number).round().astype(int).tolist())
    snapshots: list[Snapshot] = []

    @torch.no_grad()
    def look(step: int) -> None:
        if step not in wanted:
            return
        embeddings = embedder(trunk.eval()(images))
        trunk.train()
        pool = SymmSynthesizer(pairing="ring")(embeddings, labels)
        snapshots.append(
            Snapshot(step, pool.embeddings.numpy(), pool.labels.numpy(), len(images))
        )

    trainer = make_trainer(
        {
            "models": {"trunk": trunk, "embedder": embedder},
            "batch_size": settings.batch_size,
            "loss_funcs": {"metric_loss": loss},
            "dataset": dataset,
            "sampler": MPerClassSampler(
                dataset.labels, settings.m, settings.batch_size, steps * settings.batch_size
            ),
            "iterations_per_epoch": steps,
            "data_device": torch.device("cpu"),
            "dataloader_num_workers": 0,
            "end_of_iteration_hook": lambda x: look(x.get_global_iteration() + 1),
        },
        settings,
    )
    look(0)
    trainer.train(num_epochs=1)
    return snapshots


def _scatter(axes: Axes, snapshot: Snapshot, points: np.ndarray) -> None:
    classes = np.unique(snapshot.labels, return_inverse=True)[1]
    is_synthetic = np.arange(len(points)) >= snapshot.num_originals
    style: dict[str, Any] = {"cmap": "tab10", "linewidths": 0.8, "alpha": 0.9}
    for chosen, marker, size, name in (
        (is_synthetic, "x", 14, "synthetic"),
        (~is_synthetic, "o", 18, "original"),
    ):
        x, y = points[chosen].T
        axes.scatter(x, y, size, classes[chosen], marker=marker, label=name, **style)
    axes.legend(loc="upper right", frameon=False)


def _animate(snapshots: list[Snapshot], path: Path) -> None:
    figure = Figure(figsize=(4.8, 4.8), layout="constrained", dpi=80)
    axes = figure.subplots()

    def draw(snapshot: Snapshot) -> list[Axes]:
        axes.clear()
        _scatter(axes, snapshot, snapshot.points)
        limit = 1.1 * np.abs(snapshot.points).max()
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set_title(f"step {snapshot.step}")
        return [axes]

    animation = FuncAnimation(figure, draw, frames=snapshots, cache_frame_data=False)
    animation.save(path, writer=PillowWriter(fps=8))


def _draw_map(snapshot: Snapshot, path: Path) -> None:
    perplexity = min(30, (len(snapshot.points) - 1) / 3)
    found = TSNE(perplexity=perplexity, random_state=0).fit_transform(snapshot.points)
    figure = Figure(figsize=(4.8, 4.8), layout="constrained", dpi=110)
    axes = figure.subplots()
    _scatter(axes, snapshot, found)
    axes.set(xticks=[], yticks=[], title=f"t-SNE, step {snapshot.step}")
    figure.savefig(path)
