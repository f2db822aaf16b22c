"""The kinds of points of a class, as combinations of its members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kinds:
    """The kinds of points of a class of m members: the members, then the synthetic.

    Attributes:
        num_members: m.
        pairing: "all" or "ring", as in SymmSynthesizer.
        are_sums: each kind is the sum of two different points instead, as the angular
            loss compares them.
    """

    num_members: int
    pairing: str = "all"
    are_sums: bool = False

    @property
    def synthetic(self) -> tuple[tuple[int, int], ...]:
        """The members (source, axis) of each synthetic point."""
        return _synthetic(self.num_members, self.pairing)

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The points that each kind is the sum of."""
        num_points = self.num_members + len(self.synthetic)
        return _terms(num_points, 2 if self.are_sums else 1)

    def __len__(self) -> int:
        return len(self.terms)

    def axis(self, point: int) -> int:
        """The member itself, or the axis of a synthetic point."""
        if point < self.num_members:
            return point
        return self.synthetic[point - self.num_members][1]

    def source(self, point: int) -> int:
        """The member itself, or the source of a synthetic point."""
        if point < self.num_members:
            return point
        return self.synthetic[point - self.num_members][0]

    def has_synthetic(self, kind: int) -> bool:
        """Whether a synthetic point is part of the kind."""
        return max(self.terms[kind]) >= self.num_members


@lru_cache
def _synthetic(num_members: int, pairing: str) -> tuple[tuple[int, int], ...]:
    members = range(num_members)
    if pairing == "all":
        return tuple(permutations(members, 2))
    return tuple((i, (i + 1) % num_members) for i in members if num_members > 1)


@lru_cache
def _terms(num_points: int, num_terms: int) -> tuple[tuple[int, ...], ...]:
    return tuple(combinations(range(num_points), num_terms))


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Attributes:
        alpha: similarity ratio.
        beta: norm ratio.
        normalize: compare points of length one; only with alpha = 2 and beta = 1, which
            keep the length.
        euclidean: x.y - |x|^2 / 2 - |y|^2 / 2 in the place of the dot product x.y, that
            is, minus half the squared distance; only with alpha = 2, which makes a
            synthetic point beta times as long as its source, and not for sums.
        rank: which of the candidates to select, 1 for the hardest.
    """

    alpha: float = 2.0
    beta: float = 1.0
    normalize: bool = False
    euclidean: bool = False
    rank: int = 1


class Composition(NamedTuple):
    """What kinds are made of; a synthetic point s is c_s * axis - beta * source.

    ``constant + sum_s c_s * linear[s]`` has for every kind m rows, the weights of the
    members; then a row for each synthetic point, 1 where it is part of the kind; then, if
    the setting is Euclidean, m rows that give minus half the squared norm of the kind's
    point from the squared norms of the members.

    Attributes:
        constant: shape (rows * kinds,).
        linear: shape (synthetic points, rows * kinds).
        sources_and_axes: shape (synthetic points,), int64: where the source's product
            with the axis is in the m x m dot products of the members.
        axes: likewise, the axis's product with itself.
        to_products: shape (synthetic points, m * m): 1 at sources_and_axes.
        to_norms: likewise, -1 at axes.
    """

    constant: Tensor
    linear: Tensor
    sources_and_axes: Tensor
    axes: Tensor
    to_products: Tensor
    to_norms: Tensor


@lru_cache
def composition(
    kinds: Kinds, setting: Setting, dtype: torch.dtype, device: torch.device
) -> Composition:
    """The composition of kinds, made once for every device."""
    m, num_synthetic = kinds.num_members, len(kinds.synthetic)
    num_rows = m + num_synthetic + (m if setting.euclidean else 0)
    constant = torch.zeros(num_rows, len(kinds), dtype=dtype)
    linear = torch.zeros(num_synthetic, num_rows, len(kinds), dtype=dtype)
    for kind, terms in enumerate(kinds.terms):
        for point in terms:
            if point < m:
                constant[point, kind] = 1
                source, squared_ratio = point, 1.0
            else:
                number = point - m
                source, axis = kinds.synthetic[number]
                constant[source, kind] -= setting.beta
                constant[point, kind] = 1
                linear[number, axis, kind] = 1
                squared_ratio = setting.beta**2
            if setting.euclidean:
                constant[m + num_synthetic + source, kind] = -squared_ratio / 2
    products = [source * m + axis for source, axis in kinds.synthetic]
    norms = [axis * m + axis for _, axis in kinds.synthetic]
    to_products = torch.zeros(num_synthetic, m * m, dtype=dtype)
    to_norms = torch.zeros_like(to_products)
    for number in range(num_synthetic):
        to_products[number, products[number]] = 1
        to_norms[number, norms[number]] = -1
    return Composition(
        constant.flatten().to(device),
        linear.flatten(1).to(device),
        torch.tensor(products, dtype=torch.long, device=device),
        torch.tensor(norms, dtype=torch.long, device=device),
        to_products.to(device),
        to_norms.to(device),
    )


class Winners(NamedTuple):
    """What a winner says, by its place among the candidates: shape (candidates,) each.

    The candidates are the row's kinds with each of the column's, row by row.

    Attributes:
        row: the row's kind, int64.
        column: the column's kind.
        mirrored: its place if rows and columns change places.
        row_axis: the place of the row's axis with the column's kind.
        column_axis: the place of the row's kind with the column's axis.
        nearest: the column's member, or the axis of its synthetic point.
        source: the column's member, or the source of its synthetic point.
        is_synthetic: bool, whether either kind has a synthetic point.
    """

    row: Tensor
    column: Tensor
    mirrored: Tensor
    row_axis: Tensor
    column_axis: Tensor
    nearest: Tensor
    source: Tensor
    is_synthetic: Tensor


@lru_cache
def winners(rows: Kinds, columns: Kinds, device: torch.device) -> Winners:
    """Of candidates of two kinds, made once for every device.

    Sums have no axis; row_axis is then not to be used. Columns are never sums.
    """
    places = range(len(rows) * len(columns))
    row, column = zip(*(divmod(place, len(columns)) for place in places), strict=True)
    nearest = [columns.axis(v) for v in column]
    row_axis = [0 if rows.are_sums else rows.axis(u) for u in row]

    def table(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Winners(
        table(list(row)),
        table(list(column)),
        table([v * len(rows) + u for u, v in zip(row, column, strict=True)]),
        table([u * len(columns) + v for u, v in zip(row_axis, column, strict=True)]),
        table([u * len(columns) + v for u, v in zip(row, nearest, strict=True)]),
        table(nearest),
        table([columns.source(v) for v in column]),
        table(
            [
                rows.has_synthetic(u) or columns.has_synthetic(v)
                for u, v in zip(row, column, strict=True)
            ]
        ).bool(),
    )


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index], in index's shape; far cheaper than indexing with a tensor."""
    return table.index_select(0, index.flatten()).view(index.shape)
