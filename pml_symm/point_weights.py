"""Points as rows of weights over their class's members."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """The points of C classes of m members each.

    Attributes:
        members: shape (C, m, D), floating.
        weights: shape (C, K, m): point k of class c is ``weights[c, k] @ members[c]``.
        bias: shape (C, K), what a point adds to each of its scores; None for zero.
        num_originals: how many points come first that have no synthetic part.
        axis: shape (K,), int64, from source_and_axis.
        two_weights: shape (2, K / m - 1, m, C), again the weights of the synthetic
            points, only those of axis and source (the others are zero); no gradients.
        gram: shape (C, m, m), the dot products of the members of each class.
    """

    members: Tensor
    weights: Tensor
    bias: Tensor | None
    num_originals: int
    axis: Tensor
    two_weights: Tensor
    gram: Tensor

    def rows(self, classes: Tensor) -> Points:
        """The points of chosen classes, int64 of shape (R,), as rows of a search."""
        return self._replace(
            members=self.members.index_select(0, classes),
            weights=self.weights.index_select(0, classes),
            bias=None if self.bias is None else self.bias.index_select(0, classes),
        )


def count_points(num_members: int, pairing: str) -> int:
    """How many points a class has, originals and synthetic.

    >>> [count_points(4, pairing) for pairing in ("all", "ring", "none")]
    [16, 8, 4]
    """
    times = {"all": num_members, "ring": min(num_members, 2), "none": 1}
    return num_members * times[pairing]


def source_and_axis(
    num_points: int, num_members: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Source and axis, int64 of shape (K,), of a class's points; an original is both.

    First come the members, then each member mirrored about the next one, then about the
    one after that.

    >>> source_and_axis(6, 3, torch.device("cpu"))
    (tensor([0, 1, 2, 0, 1, 2]), tensor([0, 1, 2, 1, 2, 0]))
    """
    point = torch.arange(num_points, device=device)
    source = point % num_members
    return source, (source + point // num_members) % num_members


def class_points(
    members: Tensor,
    alpha: float,
    beta: float,
    pairing: str,
    normalized: bool = False,
    with_bias: bool = False,
) -> Points:
    """The originals of classes of one size, and their mirror images.

    With t the projection of the source in units of the axis, a mirror image is
    ``beta * (alpha * t * axis - source)``, and its squared length
    ``beta^2 * (|source|^2 + alpha * (alpha - 2) * t^2 |axis|^2)``.

    Args:
        members: shape (C, m, D), floating; of length one or zero if normalized.
        alpha: similarity ratio.
        beta: norm ratio.
        pairing: as for SymmSynthesizer.
        normalized: divide every point by its length.
        with_bias: give each point x the bias -|x|^2 / 2, or (1 - |x|^2) / 2 if
            normalized, so that the score of two points at distance d is -d^2 / 2, or
            1 - d^2 / 2.
    """
    size, m, _ = members.shape
    total, tiny = count_points(m, pairing), torch.finfo(members.dtype).tiny
    source, axis = source_and_axis(total, m, members.device)
    gram = torch.bmm(members, members.mT)
    squared = gram.diagonal(dim1=1, dim2=2)
    product = gram.flatten(1).index_select(1, (source * m + axis)[m:])
    t = product / squared.index_select(1, axis[m:]).clamp_min(tiny)
    if normalized:
        beta = 1.0  # it only changes the length
    on_axis = alpha * beta * t
    on_source = torch.full_like(on_axis, -beta)
    squared_synthetic = beta**2 * squared.index_select(1, source[m:])
    if alpha != 2:
        squared_synthetic = squared_synthetic + beta**2 * alpha * (alpha - 2) * t * product
        if normalized:
            length = squared_synthetic.clamp_min(tiny).sqrt()
            on_axis, on_source = on_axis / length, on_source / length
            squared_synthetic = squared_synthetic / length**2
    eye = torch.eye(m, dtype=members.dtype, device=members.device)
    synthetic = on_source.unsqueeze(2) * eye.index_select(0, source[m:])
    synthetic = synthetic.scatter(
        2, axis[m:, None].expand(size, -1, 1), on_axis.unsqueeze(2)
    )
    weights = torch.cat([eye.expand(size, m, m), synthetic], dim=1)
    two_weights = torch.stack([on_axis.detach(), on_source.detach()])
    two_weights = two_weights.mT.contiguous().view(2, total // m - 1, m, size)
    bias = None
    if with_bias and not (normalized and _all_of_length_one(squared)):
        bias = (float(normalized) - torch.cat([squared, squared_synthetic], dim=1)) / 2
    return Points(members, weights, bias, m, axis, two_weights, gram)


def _all_of_length_one(squared: Tensor) -> bool:
    """Whether all lengths are one; always False where that needs waiting for a device."""
    if squared.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool((squared > 0.99).all())


def sums_of_two(points: Points) -> Points:
    """The sums of every two different points of a class; that of the originals first.

    Args:
        points: without bias, of classes of two members. Only rows of a search can be sums:
            axis and two_weights stay those of points.
    """
    K = points.weights.shape[1]
    first, second = torch.triu_indices(K, K, offset=1, device=points.weights.device)
    weights = points.weights.index_select(1, first) + points.weights.index_select(1, second)
    return points._replace(weights=weights, num_originals=1)
