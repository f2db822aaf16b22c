"""The points of classes, and the scores of points of every two classes.

Points are rows of weights over their class's members, or made as tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .class_groups import point_places
from .distances import Distance
from .synthesis import Synthesis

# With more members in a class, a matrix product is faster than a sum.
_FEW_MEMBERS = 8


class Points(NamedTuple):
    """Points of C classes of m members each, as rows of weights."""

    members: Tensor  # (C, m, D)
    weights: Tensor  # (C, K, m): point k of class c is weights[c, k] @ members[c]
    bias: Tensor | None  # (C, K), what a point adds to each of its scores; None for zero
    synthetic: Tensor  # (C, K), bool, which points are or contain a mirror image
    gram: Tensor  # (C, m, m), the dot products of the members of each class

    @property
    def num_members(self) -> int:
        """Of a class: m."""
        return self.members.shape[1]


class ProductTable:
    """The scores of R row and C column classes, from the dot products of their members.

    score(u, v) = sum_ij w_uk,i S_ui,vj w_vl,j + b_uk + b_vl
    """

    def __init__(self, rows: Points, columns: Points) -> None:
        self.rows, self.columns = rows, columns
        (R, m, _), (C, n, _) = rows.members.shape, columns.members.shape
        own = theirs = rows.members.transpose(0, 1).flatten(0, 1)
        if columns is not rows:
            theirs = columns.members.transpose(0, 1).flatten(0, 1)
        self.products = (own @ theirs.t()).view(m, R, n, C)
        self.of_column_points = columns.weights.detach().permute(2, 1, 0).contiguous()

    def candidates(self, here: slice) -> Callable[[slice], Tensor]:
        """Of some row classes: from some of their points to scores, shape (r, k, L, C)."""
        # Scores of the rows' members with the columns' points ...
        products, weights = self.products.detach()[:, here], self.of_column_points
        if len(weights) <= _FEW_MEMBERS:
            half = products[:, :, 0, None] * weights[0]
            for j in range(1, len(weights)):
                half.addcmul_(products[:, :, j, None], weights[j])
        else:
            half = torch.einsum("mrnc,nlc->mrlc", products, weights)
        of_members = half.transpose(0, 1).flatten(2)
        row_bias, column_bias = self.rows.bias, self.columns.bias

        def of_points(some: slice) -> Tensor:
            # ... and of the rows' points with them.
            if len(half) == 1:  # the only point of a class of one is its member
                whole = half[0].unsqueeze(1)
            else:
                own = self.rows.weights.detach()[here, some]
                whole = torch.bmm(own, of_members).unflatten(2, half.shape[2:])
            if row_bias is not None:
                whole += row_bias.detach()[here, some, None, None]
            if column_bias is not None:
                whole += column_bias.detach().t()
            return whole

        return of_points

    def winners(self, k: Tensor, l: Tensor) -> Tensor:
        """The scores of row points k and column points l, all of shape (R, n, C)."""
        (m, _, n, _), size = self.products.shape, k.shape
        k, l = k.long().flatten(1), l.long().flatten(0, 1)
        w_k = self.rows.weights.permute(2, 0, 1).gather(2, k.expand(m, *k.shape))
        w_l = self.columns.weights.permute(2, 1, 0).gather(1, l.expand(n, *l.shape))
        (product, weights), *others = zip(
            self.products.unsqueeze(3).unbind(2), w_l.view(n, *size).unbind(0), strict=True
        )
        half = product * weights
        for product, weights in others:
            half = torch.addcmul(half, product, weights)
        score = (w_k.view(m, *size) * half).sum(0)
        if self.rows.bias is not None:
            score = score + self.rows.bias.gather(1, k).view(size)
        if self.columns.bias is not None:
            score = score + self.columns.bias.t().gather(0, l).view(size)
        return score


class MadePoints(NamedTuple):
    """Points of C classes, as tensors."""

    points: Tensor  # (C, K, D)
    synthetic: Tensor  # (C, K), bool, which are or contain a mirror image

    @property
    def num_members(self) -> int:
        """One: a score needs nothing but the two points."""
        return 1


class MatrixTable:
    """The scores of R row and C column classes, from blocks of a distance's matrix."""

    def __init__(self, rows: MadePoints, columns: MadePoints, distance: Distance) -> None:
        self.rows, self.columns, self.distance = rows, columns, distance

    def _matrix(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self.distance.similarity(self.distance.matrix(rows, columns))

    def candidates(self, here: slice) -> Callable[[slice], Tensor]:
        """As of ProductTable."""
        columns = self.columns.points.detach().transpose(0, 1)

        def of_points(some: slice) -> Tensor:
            rows = self.rows.points.detach()[here, some]
            whole = self._matrix(rows.flatten(0, 1), columns.flatten(0, 1))
            return whole.view(*rows.shape[:2], *columns.shape[:2])

        return of_points

    def winners(self, k: Tensor, l: Tensor) -> Tensor:
        """As of ProductTable."""
        (R, K), (C, L) = self.rows.synthetic.shape, self.columns.synthetic.shape
        k = k + torch.arange(R, device=k.device).view(-1, 1, 1) * K
        l = l + torch.arange(C, device=l.device) * L
        # Few points win: one block of the matrix has them all.
        (row, k), (column, l) = (torch.unique(x, return_inverse=True) for x in (k, l))
        rows, columns = (x.points.flatten(0, 1) for x in (self.rows, self.columns))
        return self._matrix(rows[row], columns[column])[k, l]


AnyPoints = Points | MadePoints
AnyTable = ProductTable | MatrixTable


def table_of(rows: Any, columns: Any, distance: Distance) -> AnyTable:
    """The scores of points of the same kind."""
    if isinstance(rows, Points):
        return ProductTable(rows, columns)
    return MatrixTable(rows, columns, distance)


def some_classes(points: AnyPoints, start: int, end: int | None = None) -> AnyPoints:
    """The points of some of the classes; the points themselves of all."""
    if start == 0 and (end is None or end >= len(points.synthetic)):
        return points
    parts = (None if x is None else x[start:end] for x in points)
    return type(points)(*parts)  # type: ignore[arg-type]


def sums_of_two(points: AnyPoints) -> AnyPoints:
    """The sums of every two different points of a class; weighted ones without bias.

    Of equal candidates the first wins: pairs without a synthetic point come first.
    """
    K, device = points.synthetic.shape[1], points.synthetic.device
    pairs = torch.triu_indices(K, K, offset=1, device=device)
    one_is = points.synthetic[:1, pairs].any(1)
    order = one_is.byte().argsort(stable=True)[0]
    synthetic = one_is[:, order].expand(len(points.synthetic), -1)
    first, second = pairs[:, order]

    def summed(x: Tensor) -> Tensor:
        return x.index_select(1, first) + x.index_select(1, second)

    if isinstance(points, MadePoints):
        return MadePoints(summed(points.points), synthetic)
    return points._replace(weights=summed(points.weights), synthetic=synthetic)


def class_points(
    members: Tensor, synthesis: Synthesis, normalized: bool = False, with_bias: bool = False
) -> Points:
    """The originals of classes of one size, and their mirror images.

    Point i * m + j is member i mirrored about member j, or for i = j the member itself.
    With t the projection of the source in units of the axis, a mirror image is
    ``beta * (alpha * t * axis - source)``, and its squared length
    ``beta^2 * (|source|^2 + alpha * (alpha - 2) * t^2 |axis|^2)``.

    Args:
        members: shape (C, m, D), floating; of length one or zero if normalized.
        synthesis: which mirror images.
        normalized: divide every point by its length.
        with_bias: give each point x the bias -|x|^2 / 2, or (1 - |x|^2) / 2 if
            normalized, so that the score of two points at distance d is -d^2 / 2, or
            1 - d^2 / 2.
    """
    m, tiny = members.shape[1], torch.finfo(members.dtype).tiny
    alpha, beta = synthesis.alpha, 1.0 if normalized else synthesis.beta
    gram = torch.bmm(members, members.mT)
    squared = gram.diagonal(dim1=1, dim2=2)
    eye = torch.eye(m, dtype=members.dtype, device=members.device)
    itself = eye.bool()
    projection = gram / (squared + tiny).unsqueeze(1)  # on the axis, in units of it
    # In units of alpha beta; a member is its own axis, and loses nothing.
    on_axis = projection.masked_fill(itself, 1 / (alpha * beta))
    bias = divisor = None
    resized = normalized and alpha != 2
    if resized or (with_bias and not (normalized and _all_of_length_one(squared))):
        lengths = squared.unsqueeze(2)
        if alpha != 2:
            # The square of gram could overflow.
            lengths = lengths + alpha * (alpha - 2) * projection * gram
        lengths = torch.where(itself, squared.unsqueeze(2), beta**2 * lengths)
        if resized:
            # A point of length zero has no direction, and stays as it is.
            divisor = lengths.masked_fill(itself | (lengths <= tiny), 1).sqrt()
            lengths = lengths / divisor**2
        if with_bias:
            bias = (float(normalized) - lengths) / 2
    if synthesis.pairing == "all":
        # Views, and few operators: they cost as much as a small batch's arithmetic.
        place: slice | Tensor = slice(None)
        source, axis = (x.expand(m, m, m).reshape(-1, m) for x in (eye.unsqueeze(1), eye))
    else:
        number = place = point_places(m, synthesis.pairing, members.device)
        source, axis = eye[number // m], eye[number % m]

    def chosen(x: Tensor) -> Tensor:
        """From shape (..., m, m) to (..., K): the points that there are."""
        return x.flatten(-2)[..., place]

    synthetic, on_axis = chosen(~itself), chosen(on_axis).unsqueeze(2)
    lost = source * synthetic.unsqueeze(1)
    weights = torch.addcmul(-beta * lost, on_axis, axis, value=alpha * beta)
    if divisor is not None:
        weights = weights / chosen(divisor).unsqueeze(2)
    bias = None if bias is None else chosen(bias)
    return Points(members, weights, bias, synthetic.expand(len(members), -1), gram)


def _all_of_length_one(squared: Tensor) -> bool:
    """Whether all lengths are one; always False where that needs waiting for a device."""
    if squared.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool((squared > 0.99).all())
