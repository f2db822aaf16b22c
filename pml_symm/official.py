"""The authors' released TensorFlow losses, for candidates="official".

They compare four kinds of points of n pairs, each of shape (n, D), in the authors' order:
anchors, positives, positives mirrored about anchors, anchors mirrored about positives.
Row i of each kind belongs to class i. A loss takes the maximum over its candidates,
including the positive terms on the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Official(NamedTuple):
    """A released loss."""

    losses: Tensor  # (n,), of the pairs
    candidates: Tensor  # (n, n, k), the terms of every two classes; the largest counts
    originals: tuple[int, ...]  # the candidates without a synthetic point

    @property
    def synthetic_ratio(self) -> float:
        """The share of negatives with a synthetic point."""
        winner = self.candidates.argmax(-1)
        is_original = torch.isin(winner, winner.new_tensor(self.originals))
        others = ~torch.eye(len(winner), dtype=torch.bool, device=winner.device)
        return (~is_original)[others].float().mean().item()


def four_points(
    anchors: Tensor, positives: Tensor, reflect: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The originals and synthetic points of n pairs, in the authors' order."""
    return anchors, positives, reflect(positives, anchors), reflect(anchors, positives)


def n_pairs(points: Sequence[Tensor], distance: Any) -> Official:
    """The softmax over six kinds of pairs: rows of the one kind, columns of the other."""
    sign = 1 if distance.is_inverted else -1
    candidates = [sign * distance(x, y) for x, y in combinations(points, 2)]
    # Of the six, the first is (a, p).
    return _softmax(torch.stack(candidates, dim=-1), originals=(0,))


def angular(
    points: Sequence[Tensor], normalize: Callable[[Tensor], Tensor], squared_tangent: Tensor
) -> Official:
    """The softmax over the angular terms of twelve ordered pairs of different kinds."""
    points = [normalize(x) for x in points]
    diagonal = torch.eye(len(points[0]), dtype=torch.bool, device=points[0].device)
    candidates = [
        torch.where(
            diagonal,
            2 * (1 + squared_tangent) * (x * y).sum(1),
            4 * squared_tangent * (x + y) @ y.t(),
        )
        for x, y in permutations(points, 2)
    ]
    # Of the twelve, the first is (a, p) and the fourth (p, a).
    return _softmax(torch.stack(candidates, dim=-1), originals=(0, 3))


def _softmax(candidates: Tensor, originals: tuple[int, ...]) -> Official:
    targets = torch.arange(len(candidates), device=candidates.device)
    losses = cross_entropy(candidates.amax(-1), targets, reduction="none")
    return Official(losses, candidates, originals)
