"""The points of classes, and the scores of points of every two classes.

Points are rows of weights over their class's members, or made as tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .class_groups import point_places
from .distances import Distance
from .synthesis import Synthesis

# With more members in a class, a matrix product is faster than a sum.
_FEW_MEMBERS = 8


class Table(Protocol):
    """The scores of the points of R row classes and C column classes."""

    @property
    def rows(self) -> AnyPoints:
        """Of R classes."""

    @property
    def columns(self) -> AnyPoints:
        """Of C classes."""

    def candidates(self, here: slice) -> Callable[[slice], Tensor]:
        """Of some row classes: from some of their points to scores, shape (r, k, L, C)."""

    def winners(self, k: Tensor, l: Tensor) -> Tensor:
        """Shape (R, n, C), of row points k and column points l, with gradients.

        Both are int64 of shape (R, n, C).
        """


class Points(NamedTuple):
    """Points of C classes of m members each, as rows of weights.

    Attributes:
        members: shape (C, m, D), floating.
        weights: shape (C, K, m): point k of class c is ``weights[c, k] @ members[c]``.
        bias: shape (C, K), what a point adds to each of its scores; None for zero.
        synthetic: shape (C, K), bool, which points are or contain a mirror image.
        gram: shape (C, m, m), the dot products of the members of each class.
    """

    members: Tensor
    weights: Tensor
    bias: Tensor | None
    synthetic: Tensor
    gram: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(C, K)."""
        return self.weights.shape[0], self.weights.shape[1]

    @property
    def num_members(self) -> int:
        """Of a class: m."""
        return self.members.shape[1]

    def classes(self, start: int, end: int) -> Points:
        """The points of some of the classes."""
        return Points(*(None if x is None else x[start:end] for x in self))  # type: ignore[arg-type]

    def table(self, columns: AnyPoints, distance: Distance) -> Table:
        """The scores of these rows and columns."""
        assert isinstance(columns, Points)
        return ProductTable(self, columns)

    def sums_of_two(self) -> Points:
        """The sums of every two different points of a class, without bias."""
        pairs, synthetic = _pairs(self.synthetic)
        first, second = (self.weights.index_select(1, x) for x in pairs)
        return self._replace(weights=first + second, synthetic=synthetic)


class ProductTable:
    """Combinations of the dot products of members.

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
        """From some of the rows' points to scores, shape (r, k, L, C)."""
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
            own = self.rows.weights.detach()[here, some]
            whole = torch.bmm(own, of_members).unflatten(2, half.shape[2:])
            if row_bias is not None:
                whole += row_bias.detach()[here, some, None, None]
            if column_bias is not None:
                whole += column_bias.detach().t()
            return whole

        return of_points

    def winners(self, k: Tensor, l: Tensor) -> Tensor:
        """Shape (R, n, C)."""
        (m, _, n, _), size = self.products.shape, k.shape
        k, l = k.flatten(1), l.flatten(0, 1)
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
    """Points of C classes, as tensors.

    Attributes:
        points: shape (C, K, D), floating.
        synthetic: shape (C, K), bool, which are or contain a mirror image.
    """

    points: Tensor
    synthetic: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(C, K)."""
        return self.points.shape[0], self.points.shape[1]

    @property
    def num_members(self) -> int:
        """One: a score needs nothing but the two points."""
        return 1

    def classes(self, start: int, end: int) -> MadePoints:
        """The points of some of the classes."""
        return MadePoints(self.points[start:end], self.synthetic[start:end])

    def table(self, columns: AnyPoints, distance: Distance) -> Table:
        """The scores of these rows and columns."""
        assert isinstance(columns, MadePoints)
        return MatrixTable(self, columns, distance)

    def sums_of_two(self) -> MadePoints:
        """The sums of every two different points of a class."""
        pairs, synthetic = _pairs(self.synthetic)
        first, second = (self.points[:, x] for x in pairs)
        return MadePoints(first + second, synthetic)


class MatrixTable:
    """Blocks of a distance's matrix."""

    def __init__(self, rows: MadePoints, columns: MadePoints, distance: Distance) -> None:
        self.rows, self.columns, self.distance = rows, columns, distance

    def _matrix(self, rows: Tensor, columns: Tensor) -> Tensor:
        return self.distance.similarity(self.distance.matrix(rows, columns))

    def candidates(self, here: slice) -> Callable[[slice], Tensor]:
        """From some of the rows' points to scores, shape (r, k, L, C)."""
        columns = self.columns.points.detach().transpose(0, 1)

        def of_points(some: slice) -> Tensor:
            rows = self.rows.points.detach()[here, some]
            whole = self._matrix(rows.flatten(0, 1), columns.flatten(0, 1))
            return whole.view(*rows.shape[:2], *columns.shape[:2])

        return of_points

    def winners(self, k: Tensor, l: Tensor) -> Tensor:
        """Shape (R, n, C)."""
        (R, K), (C, L) = self.rows.shape, self.columns.shape
        k = k + torch.arange(R, device=k.device).view(-1, 1, 1) * K
        l = l + torch.arange(C, device=l.device) * L
        # Few points win: one block of the matrix has them all.
        (row, k), (column, l) = (torch.unique(x, return_inverse=True) for x in (k, l))
        rows, columns = (x.points.flatten(0, 1) for x in (self.rows, self.columns))
        return self._matrix(rows[row], columns[column])[k, l]


AnyPoints = Points | MadePoints


def _pairs(synthetic: Tensor) -> tuple[Tensor, Tensor]:
    """Every two of K points, shape (2, N), and whether one is synthetic, shape (C, N).

    Of equal candidates the first wins: pairs without a synthetic point come first.
    """
    K, device = synthetic.shape[1], synthetic.device
    pairs = torch.triu_indices(K, K, offset=1, device=device)
    one_is = synthetic[:1, pairs].any(1)
    order = one_is.byte().argsort(stable=True)[0]
    return pairs[:, order], one_is[:, order].expand(len(synthetic), -1)


def class_points(
    members: Tensor,
    synthesis: Synthesis,
    normalized: bool = False,
    with_bias: bool = False,
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
    # On the axis, in units of alpha beta. With the weight of a member about itself, what
    # is taken from the source leaves the member.
    on_axis = gram / (squared + tiny).unsqueeze(1)
    on_axis = on_axis.masked_fill(itself, (1 + beta) / (alpha * beta))
    bias = divisor = None
    resized = normalized and alpha != 2
    if resized or (with_bias and not (normalized and _all_of_length_one(squared))):
        lengths = squared.unsqueeze(2)
        if alpha != 2:
            projected = gram**2 / (squared + tiny).unsqueeze(1)
            lengths = lengths + alpha * (alpha - 2) * projected
        lengths = torch.where(itself, squared.unsqueeze(2), beta**2 * lengths)
        if resized:
            # A point of length zero has no direction, and stays as it is.
            divisor = lengths.masked_fill(itself | (lengths <= tiny), 1).sqrt()
            lengths = lengths / divisor**2
        if with_bias:
            bias = (float(normalized) - lengths) / 2
    if synthesis.pairing == "all":
        source, axis = (x.expand(m, m, m).reshape(-1, m) for x in (eye.unsqueeze(1), eye))

        def chosen(x: Tensor) -> Tensor:
            """From shape (..., m, m) to (..., K): the points that there are."""
            return x.flatten(-2)
    else:
        place = point_places(m, synthesis.pairing, members.device)
        source, axis = eye.index_select(0, place // m), eye.index_select(0, place % m)

        def chosen(x: Tensor) -> Tensor:
            return x.flatten(-2).index_select(-1, place)

    on_axis = chosen(on_axis).unsqueeze(2)
    weights = torch.addcmul(-beta * source, on_axis, axis, value=alpha * beta)
    if divisor is not None:
        weights = weights / chosen(divisor).unsqueeze(2)
    bias = None if bias is None else chosen(bias)
    synthetic = chosen(~itself).expand(len(members), -1)
    return Points(members, weights, bias, synthetic, gram)


def _all_of_length_one(squared: Tensor) -> bool:
    """Whether all lengths are one; always False where that needs waiting for a device."""
    if squared.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool((squared > 0.99).all())
