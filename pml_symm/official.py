"""The candidates of the authors' released TensorFlow losses, for candidates="official".

The candidates compare four kinds of points of n pairs, each of shape (n, D), in the
authors' order: anchors, positives, positives mirrored about anchors, anchors mirrored
about positives. Row i of each kind belongs to class i. A loss takes the maximum over the
last dimension of the candidates, including the positive terms on the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor


def four_points(
    anchors: Tensor, positives: Tensor, reflect: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The originals and synthetic points of n pairs, in the authors' order."""
    return anchors, positives, reflect(positives, anchors), reflect(anchors, positives)


def n_pairs_candidates(
    points: Sequence[Tensor], similarity: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Shape (n, n, 6): rows of the first kind against columns of the second."""
    return torch.stack([similarity(x, y) for x, y in combinations(points, 2)], dim=-1)


def angular_candidates(points: Sequence[Tensor], squared_tangent: Tensor) -> Tensor:
    """Shape (n, n, 12): the angular terms of the ordered pairs of different kinds."""
    diagonal = torch.eye(len(points[0]), dtype=torch.bool, device=points[0].device)
    return torch.stack(
        [
            torch.where(
                diagonal,
                2 * (1 + squared_tangent) * (x * y).sum(1),
                4 * squared_tangent * (x + y) @ y.t(),
            )
            for x, y in permutations(points, 2)
        ],
        dim=-1,
    )
