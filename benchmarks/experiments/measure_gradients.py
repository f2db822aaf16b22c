"""Measure what mirror images add to the gradient of N-pairs, while it trains.

python -m benchmarks.experiments.measure_gradients glyphs
python -m benchmarks.experiments.measure_gradients texts clinc150.jsonl

Trains N-pairs on the hardest originals, and looks at the same batches with and without
mirror images. Prints a row for some of the steps, as Markdown. Only the part of the
gradient that comes from the negatives counts: the positive pair's attraction is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from pml_symm import SymmNPairsLoss, SymmSynthesizer
from pml_symm.functional import DotProduct, Synthesis, n_pairs_loss

from ..methods import methods
from ..reporting.tables import markdown
from ..training.run import run
from ..training.settings import CommonSettings, Settings, Source
from .command import PRESETS

TEXTS = replace(PRESETS["texts"].settings, learning_rate=1e-4, test_interval=50)
SETTINGS = {"glyphs": CommonSettings(), "texts": TEXTS}
STEPS = 600
SHOWN = 0, 10, 50, 100, 200, 400, 599
HEADER = [
    *("step", "angle", "hardest originals: pull", "across"),
    *("Symm: pull", "across", "synthetic", "above the positive pair"),
]


class Watched(SymmNPairsLoss):
    """N-pairs on the hardest originals, which looks at its batches."""

    rows: list[list[str]]

    def compute_loss(self, embeddings: Tensor, *rest: Any) -> dict:
        """Look at the batch in training, and compute the loss."""
        if torch.is_grad_enabled():
            if self.step in SHOWN:
                self.rows.append([str(self.step), *look(embeddings.detach(), rest[0])])
            self.step += 1
        return super().compute_loss(embeddings, *rest)


def look(embeddings: Tensor, labels: Tensor) -> Iterator[str]:
    """The cells of a row after the step; embeddings have shape (B, D), two per class."""
    members = embeddings[labels.argsort(stable=True)].unflatten(0, (-1, 2))
    angle = cosine_similarity(members[:, 0], members[:, 1]).clamp(-1, 1).arccos()
    yield f"{angle.rad2deg().mean():.0f}°"
    apart = normalize(members[:, 0] - members[:, 1], dim=1)
    for synthesis in (Synthesis(pairing="none"), Synthesis()):
        descent, synthetic, above = negatives_descent(members, synthesis)
        push = descent.mean(dim=1).norm(dim=1).mean()
        half = (descent[:, 1] - descent[:, 0]) / 2  # what brings the two together
        pull = (half * apart).sum(dim=1, keepdim=True)
        yield f"{pull.mean() / push:.2f}"
        yield f"{(half - pull * apart).norm(dim=1).mean() / push:.2f}"
    yield f"{100 * synthetic:.0f} %"
    yield f"{100 * above:.1f} %"


def negatives_descent(members: Tensor, synthesis: Synthesis) -> tuple[Tensor, float, float]:
    """Minus the gradient of the negatives, (C, 2, D); synthetic share; those above."""
    members = members.clone().requires_grad_()
    classes = torch.arange(len(members))
    compared = n_pairs_loss(
        members.flatten(0, 1),
        classes.repeat_interleave(2),
        distance=DotProduct(normalize=False),
        synthesis=synthesis,
        reduction="none",
    ).compared
    positive, keep = compared.positive.detach(), compared.keep
    logits = compared.negative.diagonal_scatter(positive)
    cross_entropy(logits, classes, reduction="sum").backward()
    synthetic = compared.selected.is_synthetic
    above = synthetic & (compared.negative >= positive.unsqueeze(1))
    assert members.grad is not None
    return (
        -members.grad,
        synthetic[keep].float().mean().item(),
        above[keep].float().mean().item(),
    )


def main(
    dataset: tyro.conf.Positional[Literal["glyphs", "texts"]],
    data_root: tyro.conf.Positional[Path | None] = None,
    /,
) -> None:
    """Train and print the table."""
    watched = methods._n_pairs(Watched, synthesizer=SymmSynthesizer(pairing="none"))
    watched.rows, watched.step = [], 0
    methods.METHODS["watched"] = methods.Method(lambda: watched)
    common = replace(SETTINGS[dataset], steps=STEPS)
    settings = Settings("watched", 0, touch_test=False, **vars(common))
    source = Source(data_root=data_root)
    with tempfile.TemporaryDirectory() as out:
        run(settings, Path(out), source=source)
    print(markdown([HEADER, *watched.rows]))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
