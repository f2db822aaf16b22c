"""The hardest pair of two classes from the Gram matrix of the originals.

A synthetic point is a combination of two originals, c * axis - beta * source, so every
dot product of two points is a combination of at most four dot products of originals.
Nothing of size (synthetic points x embedding size) is ever made.

Classes come in groups of equal size, so that all shapes are fixed: ``members`` has
shape (m, C, D), member first, so that member i of every class is one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NORMALIZE_EPS = 1e-12  # as torch.nn.functional.normalize has it

# A block's candidates should stay in the processor's cache; a GPU wants few launches.
_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}


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

    @cached_property
    def synthetic(self) -> tuple[tuple[int, int], ...]:
        """The members (source, axis) of each synthetic point."""
        members = range(self.num_members)
        if self.pairing == "all":
            return tuple(permutations(members, 2))
        return tuple((i, (i + 1) % len(members)) for i in members if len(members) > 1)

    @cached_property
    def num_points(self) -> int:
        """How many points there are, originals and synthetic."""
        return self.num_members + len(self.synthetic)

    @cached_property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """The points that each kind is the sum of."""
        points = range(self.num_points)
        return tuple(combinations(points, 2 if self.are_sums else 1))

    def __len__(self) -> int:
        return len(self.terms)

    def axis(self, point: int) -> int:
        """The member itself, or the axis of a synthetic point."""
        if point < self.num_members:
            return point
        return self.synthetic[point - self.num_members][1]


@lru_cache
def axis_of_kind(kinds: Kinds, device: torch.device) -> Tensor:
    """Shape (kinds,), int64: the member that each point is, or is mirrored about."""
    return torch.tensor([kinds.axis(x) for x in range(kinds.num_points)], device=device)


@lru_cache
def has_synthetic(kinds: Kinds, device: torch.device) -> Tensor:
    """Shape (kinds,), bool: whether a synthetic point is part of the kind."""
    parts = [max(terms) >= kinds.num_members for terms in kinds.terms]
    return torch.tensor(parts, device=device)


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Attributes:
        alpha: similarity ratio.
        beta: norm ratio.
        normalize: compare points of length one; only with alpha = 2 and beta = 1, which
            keep the length.
        rank: which of the candidates to select, 1 for the hardest.
    """

    alpha: float = 2.0
    beta: float = 1.0
    normalize: bool = False
    rank: int = 1


class Selected(NamedTuple):
    """The selected candidate of every row class and column class.

    Attributes:
        similarity: shape (R, C), its dot product; gradients flow through it.
        within: shape (R, m, m), the dot products, or distances, of the members of each
            row class, with gradients.
        kinds: shape (2, R, C), integer, the kind of the row's point and the column's; or
            None, if it was not asked for.
    """

    similarity: Tensor
    within: Tensor
    kinds: Tensor | None


@dataclass(frozen=True)
class _Problem:
    row_kinds: Kinds
    column_kinds: Kinds
    setting: Setting
    symmetric: bool
    distances: bool
    keep_kinds: bool

    @cached_property
    def num_products(self) -> int:
        """How many products of a row's point and a column's kind there are."""
        return self.row_kinds.num_points * len(self.column_kinds)

    @cached_property
    def num_candidates(self) -> int:
        return len(self.row_kinds) * len(self.column_kinds)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the winners: the smallest that holds all candidates."""
        return torch.uint8 if self.num_candidates < 256 else torch.int32

    @cached_property
    def place_dtype(self) -> torch.dtype:
        """Of the candidates' places: float32 counts no further than this."""
        return torch.float32 if self.num_candidates < 1 << 24 else torch.float64


def hardest_within(
    members: Tensor,
    kinds: Kinds,
    setting: Setting,
    distances: bool = False,
    keep_kinds: bool = False,
) -> Selected:
    """H(u, v) of every two classes of one size; symmetric, the diagonal is undefined.

    Args:
        members: shape (m, C, D), floating.
        kinds: of a class of m members.
        setting: what is compared.
        distances: give the Euclidean distances of the members of each class instead of
            their dot products.
        keep_kinds: tell which candidates were selected.
    """
    problem = _Problem(kinds, kinds, setting, True, distances, keep_kinds)
    return Selected(*_HardestPair.apply(members, None, problem))


def hardest_between(
    rows: Tensor,
    columns: Tensor,
    row_kinds: Kinds,
    column_kinds: Kinds,
    setting: Setting,
    keep_kinds: bool = False,
) -> Selected:
    """H(u, v) of every class u of one size and class v of another.

    Args:
        rows: shape (m, R, D), floating.
        columns: shape (n, C, D).
        row_kinds: of a class of m members.
        column_kinds: of a class of n members.
        setting: what is compared.
        keep_kinds: tell which candidates were selected.
    """
    problem = _Problem(row_kinds, column_kinds, setting, False, False, keep_kinds)
    return Selected(*_HardestPair.apply(rows, columns, problem))


class _Points(NamedTuple):
    """The originals of classes of one size, and what their synthetic points are made of.

    Attributes:
        members: shape (m, C, D), of length one if the problem says so.
        lengths: shape (m, C, 1), what they were divided by; empty if they were not.
        gram: shape (C, m, m), the dot products within each class.
        coefficients: shape (synthetic points, C), of the axis.
    """

    members: Tensor
    lengths: Tensor
    gram: Tensor
    coefficients: Tensor

    def part(self, classes: slice) -> tuple[Tensor, Tensor]:
        """Members and coefficients of some of the classes."""
        return self.members[:, classes], self.coefficients[:, classes]


def _points(members: Tensor, kinds: Kinds, setting: Setting) -> _Points:
    lengths = members.new_empty(0)
    if setting.normalize:
        lengths = torch.linalg.vector_norm(members, dim=2, keepdim=True)
        lengths = lengths.clamp_min(_NORMALIZE_EPS)
        members = members / lengths
    gram = members.transpose(0, 1) @ members.permute(1, 2, 0)
    if not kinds.synthetic:
        return _Points(members, lengths, gram, gram.new_empty(0, len(gram)))
    sources, axes = _sources_and_axes(kinds, members.device)
    floor = torch.finfo(members.dtype).tiny
    quotients = gram[:, sources, axes] / gram[:, axes, axes].clamp_min(floor)
    return _Points(members, lengths, gram, (quotients * (setting.alpha * setting.beta)).t())


def _distances(members: Tensor) -> Tensor:
    """Shape (C, m, m); not from dot products, which cannot tell near points apart."""
    count, size = members.shape[:2]
    distances = members.new_zeros(size, count, count)
    for i, j in combinations(range(count), 2):
        distance = torch.linalg.vector_norm(members[i] - members[j], dim=1)
        distances[:, i, j] = distance
        distances[:, j, i] = distance
    return distances


def _through_distances(distances: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of distances as one of dot products: w (x_i - x_j) at x_i."""
    through = torch.where(distances > 0, gradient / distances, 0)
    return torch.diag_embed((through + through.mT).sum(2) / 2) - through


def _through_coefficients(
    points: _Points, to_coefficients: Tensor, kinds: Kinds, setting: Setting
) -> Tensor:
    """Shape (C, m, m): the gradient of the dot products within each class."""
    to_gram = torch.zeros_like(points.gram)
    floor = torch.finfo(to_gram.dtype).tiny
    for number, (source, axis) in enumerate(kinds.synthetic):
        squared_norm = points.gram[:, axis, axis].clamp_min(floor)
        to_product = to_coefficients[number] / squared_norm
        to_gram[:, source, axis].add_(to_product, alpha=setting.alpha * setting.beta)
        to_gram[:, axis, axis].sub_(to_product * points.coefficients[number])
    return to_gram


def _through_lengths(points: _Points, to_members: Tensor) -> Tensor:
    """The gradient of what was normalized; overwrites to_members."""
    # Only what is at right angles to a point changes its direction.
    flat, unit = to_members.flatten(0, 1), points.members.flatten(0, 1)
    along = flat.unsqueeze(1) @ unit.unsqueeze(2)
    to_members.addcmul_(points.members, along.view_as(points.lengths), value=-1)
    return to_members.div_(points.lengths)


class _Block(NamedTuple):
    """The winners of some row classes, R, and column classes, C.

    Attributes:
        similarity: shape (R, C), their dot products.
        kinds: shape (2, R, C), the kind of the row's point and of the column's.
        row_products: shape (q, R, C), of the column's point with the axis of the row's,
            or, if row kinds are sums, with every member of the row's class.
        column_products: shape (1, R, C), of the row's point with the column's axis.
    """

    similarity: Tensor
    kinds: Tensor
    row_products: Tensor
    column_products: Tensor


class _HardestPair(torch.autograd.Function):
    """Finds the winners block by block, and sends the gradient through them only.

    A symmetric problem has the column classes from a block's first row class on in that
    block. One side of the diagonal then decides for both ends, also where candidates
    are equal but for the last digit.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor | None, problem: _Problem
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        row_points = _points(rows, problem.row_kinds, problem.setting)
        column_points = row_points
        if columns is not None:
            column_points = _points(columns, problem.column_kinds, problem.setting)
        size = row_points.members.shape[1], column_points.members.shape[1]
        similarity = rows.new_empty(size)
        kinds = (
            rows.new_empty(2, *size, dtype=problem.dtype) if problem.keep_kinds else None
        )
        blocks = list(_blocks(problem, size, rows.device))
        # One piece of memory for all blocks: new memory costs more than the arithmetic.
        room = max((here.stop - here.start for here, _ in blocks), default=0) * size[1]
        scratch = _Scratch(
            rows.new_empty(problem.num_products * room),
            rows.new_empty(problem.num_candidates * room, dtype=problem.place_dtype),
        )
        saved: list[Tensor] = []
        for here, there in blocks:
            block = _select(
                scratch, *row_points.part(here), *column_points.part(there), problem
            )
            similarity[here, there] = block.similarity
            if problem.symmetric:
                length = here.stop - here.start
                similarity[here.stop :, here] = block.similarity[:, length:].t()
            if kinds is not None:
                _store_kinds(kinds, block.kinds, here, there, problem.symmetric)
            saved += block[1:]
        ctx.problem = problem
        within = row_points.gram
        if problem.distances:
            within = _distances(row_points.members)
        ctx.save_for_backward(*row_points, *column_points, within, *saved)
        if kinds is not None:
            ctx.mark_non_differentiable(kinds)
        return similarity, within, kinds

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, to_within: Tensor, *_: Any
    ) -> tuple[Tensor | None, ...]:
        problem: _Problem = ctx.problem
        row_points = _Points(*ctx.saved_tensors[:4])
        column_points = _Points(*ctx.saved_tensors[4:8])
        within, *saved = ctx.saved_tensors[8:]
        to_rows = _Gradients.zeros(row_points, problem.row_kinds, problem.setting)
        to_columns = to_rows
        if not problem.symmetric:
            to_columns = _Gradients.zeros(
                column_points, problem.column_kinds, problem.setting
            )
        for number, (here, there) in enumerate(
            _blocks(problem, gradient.shape, gradient.device)
        ):
            kinds, row_products, column_products = saved[3 * number : 3 * number + 3]
            through = gradient[here, there]
            if problem.symmetric:
                through = through + gradient[there, here].t()
                corner = through[:, : len(through)]
                corner.copy_(corner.triu(1))
            to_rows.coefficients[:, here] += _by_point(
                through * row_products, kinds[0], problem.row_kinds
            ).sum(2)
            to_columns.coefficients[:, there] += _by_point(
                through * column_products, kinds[1], problem.column_kinds
            ).sum(1)
            _through_gram(
                _to_gram(
                    through,
                    to_rows.weights[:, here],
                    to_columns.weights[:, there],
                    kinds,
                ),
                row_points.members[:, here],
                column_points.members[:, there],
                to_rows.members[:, here],
                to_columns.members[:, there],
                square=problem.symmetric and here == there,
            )
        if problem.distances:
            to_within = _through_distances(within, to_within)
        through_rows = to_rows.finish(
            row_points, problem.row_kinds, problem.setting, to_within
        )
        if problem.symmetric:
            return through_rows, None, None
        through_columns = to_columns.finish(
            column_points, problem.column_kinds, problem.setting
        )
        return through_rows, through_columns, None


class _Gradients(NamedTuple):
    """What has been sent back so far.

    Attributes:
        weights: shape (m, C, kinds), what every kind of every class is made of.
        members: shape (m, C, D).
        coefficients: shape (synthetic points, C).
    """

    weights: Tensor
    members: Tensor
    coefficients: Tensor

    @classmethod
    def zeros(cls, points: _Points, kinds: Kinds, setting: Setting) -> _Gradients:
        """Before the first block."""
        return cls(
            _weights(kinds, points.coefficients, setting.beta),
            torch.zeros_like(points.members),
            torch.zeros_like(points.coefficients),
        )

    def finish(
        self,
        points: _Points,
        kinds: Kinds,
        setting: Setting,
        to_gram: Tensor | None = None,
    ) -> Tensor:
        """The gradient of the members that were given, after the last block."""
        through = _through_coefficients(points, self.coefficients, kinds, setting)
        if to_gram is not None:
            through += to_gram
        through = (through + through.mT).permute(1, 2, 0).unsqueeze(3)
        for i, member in enumerate(self.members):
            for j, other in enumerate(points.members):
                member.addcmul_(through[i, j], other)
        return _through_lengths(points, self.members) if setting.normalize else self.members


def _store_kinds(
    kinds: Tensor, block: Tensor, here: slice, there: slice, symmetric: bool
) -> None:
    kinds[:, here, there] = block
    if symmetric:
        length = here.stop - here.start
        mirrored = block.flip(0).transpose(1, 2)
        kinds[:, here.stop :, here] = mirrored[:, length:]
        corner = kinds[:, here, here]
        upper = torch.ones_like(corner[0], dtype=torch.bool).triu()
        corner.copy_(torch.where(upper, corner, mirrored[:, :length]))


def _blocks(
    problem: _Problem, size: tuple[int, int] | torch.Size, device: torch.device
) -> Iterator[tuple[slice, slice]]:
    """Row classes and column classes whose candidates fit into a block."""
    limit = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS["cuda"])
    step = max(1, limit // max(1, problem.num_candidates * size[1]))
    for start in range(0, size[0], step):
        here = slice(start, min(start + step, size[0]))
        yield here, slice(start if problem.symmetric else 0, size[1])


class _Scratch(NamedTuple):
    products: Tensor
    is_best: Tensor


def _select(
    scratch: _Scratch,
    rows: Tensor,
    row_coefficients: Tensor,
    columns: Tensor,
    column_coefficients: Tensor,
    problem: _Problem,
) -> _Block:
    """The winners of a block, with all candidates side by side."""
    size = rows.shape[1], columns.shape[1]
    row_kinds, column_kinds = problem.row_kinds, problem.column_kinds
    shape = row_kinds.num_points, len(column_kinds), *size
    points = scratch.products[: problem.num_products * size[0] * size[1]].view(shape)
    if rows.is_contiguous() and columns.is_contiguous():
        gram = rows.flatten(0, 1) @ columns.flatten(0, 1).t()
        points[: len(rows), : len(columns)] = gram.view(
            len(rows), size[0], len(columns), size[1]
        ).transpose(1, 2)
    else:
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                torch.mm(row, column.t(), out=points[i, j])
    members = points[: len(rows)]
    for j, (source, axis) in enumerate(column_kinds.synthetic):
        out = members[:, len(columns) + j]
        torch.mul(members[:, axis], column_coefficients[j], out=out)
        out.sub_(members[:, source], alpha=problem.setting.beta)
    for i, (source, axis) in enumerate(row_kinds.synthetic):
        out = points[len(rows) + i]
        torch.mul(points[axis], row_coefficients[i].unsqueeze(1), out=out)
        out.sub_(points[source], alpha=problem.setting.beta)
    flat = points.flatten(0, 1)
    candidates = flat
    if row_kinds.are_sums:
        candidates = torch.cat([points[x] + points[y] for x, y in row_kinds.terms])
    similarity = (
        candidates.amax(0)
        if problem.setting.rank == 1
        else candidates.topk(min(problem.setting.rank, len(candidates)), dim=0).values[-1]
    )
    kinds_of, products_of, places = _tables(problem, rows.device)
    # The first candidate that is equal has the highest place; far faster than argmax.
    is_best = scratch.is_best[: candidates.numel()].view(candidates.shape)
    # As numbers, not as truth values: six times as fast on CPU.
    torch.eq(candidates, similarity, out=is_best)
    place = is_best.mul_(places).amax(0).long()

    def look_up(table: Tensor) -> Tensor:
        shape = len(table), size[0]
        return table.unsqueeze(1).expand(*shape, -1).gather(2, place.expand(*shape, -1))

    products = look_up(products_of)
    row_products = flat.gather(0, products[:-1])
    column_products = candidates.gather(0, products[-1:])
    return _Block(similarity, look_up(kinds_of), row_products, column_products)


@lru_cache
def _tables(problem: _Problem, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What to read off a winner's place, counted down from the number of candidates.

    Returns:
        kinds: shape (2, places), of the row's point and of the column's.
        products: shape (q + 1, places), int64: which candidates are the products that
            _Block keeps.
        places: shape (candidates, 1, 1).
    """
    rows, columns = problem.row_kinds, problem.column_kinds
    num_columns = len(columns)
    kinds: list[tuple[int, int]] = []
    products: list[list[int]] = []
    for place in range(problem.num_candidates + 1):
        # Place 0: none is equal, because the value is not a number. Any will do.
        winner = min(problem.num_candidates - place, problem.num_candidates - 1)
        row, column = divmod(winner, num_columns)
        axes = range(rows.num_members) if rows.are_sums else [rows.axis(row)]
        kinds.append((row, column))
        products.append(
            [axis * num_columns + column for axis in axes]
            + [row * num_columns + columns.axis(column)]
        )
    places = torch.arange(
        problem.num_candidates, 0, -1, dtype=problem.place_dtype, device=device
    )
    return (
        torch.tensor(kinds, dtype=problem.dtype, device=device).t().contiguous(),
        torch.tensor(products, device=device).t().contiguous(),
        places.view(-1, 1, 1),
    )


@lru_cache
def _sources_and_axes(kinds: Kinds, device: torch.device) -> tuple[Tensor, Tensor]:
    sources, axes = torch.tensor(kinds.synthetic, device=device).t().contiguous()
    return sources, axes


@lru_cache
def _constant_weights(
    kinds: Kinds, beta: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Shape (m, 1, points): 1 for the originals, -beta for the sources."""
    weights = torch.zeros(kinds.num_members, 1, kinds.num_points, dtype=dtype)
    for member in range(kinds.num_members):
        weights[member, 0, member] = 1
    for point, (source, _) in enumerate(kinds.synthetic, kinds.num_members):
        weights[source, 0, point] = -beta
    return weights.to(device)


def _weights(kinds: Kinds, coefficients: Tensor, beta: float) -> Tensor:
    """Shape (m, C, kinds): what every kind of every class is made of."""
    constant = _constant_weights(kinds, beta, coefficients.dtype, coefficients.device)
    weights = constant.repeat(1, coefficients.shape[1], 1)
    for point, (_, axis) in enumerate(kinds.synthetic, kinds.num_members):
        weights[axis, :, point] = coefficients[point - kinds.num_members]
    if kinds.are_sums:
        weights = torch.stack(
            [weights[..., x] + weights[..., y] for x, y in kinds.terms], dim=-1
        )
    return weights


def _to_gram(
    through: Tensor, row_weights: Tensor, column_weights: Tensor, kinds: Tensor
) -> Tensor:
    """The gradient of the originals' dot products, shape (m, R, n, C)."""
    row = kinds[0].long().expand(len(row_weights), -1, -1)
    own = row_weights.gather(2, row)
    # Transposed, because gather is fast along the last dimension.
    column = kinds[1].t().contiguous().long().expand(len(column_weights), -1, -1)
    theirs = column_weights.gather(2, column).permute(2, 0, 1)
    return own.unsqueeze(2) * (through.unsqueeze(1) * theirs)


def _through_gram(
    to_gram: Tensor,
    rows: Tensor,
    columns: Tensor,
    to_rows: Tensor,
    to_columns: Tensor,
    square: bool,
) -> None:
    """Add what goes on from the dot products to the originals.

    In a square block rows and columns are the same, and one product serves both.
    """
    if rows.is_contiguous() and columns.is_contiguous():
        flat = to_gram.flatten(2).flatten(0, 1)
        flat_rows, flat_columns = to_rows.flatten(0, 1), to_columns.flatten(0, 1)
        if square:
            flat_rows.addmm_(flat + flat.t(), columns.flatten(0, 1))
            return
        flat_rows.addmm_(flat, columns.flatten(0, 1))
        flat_columns.addmm_(flat.t(), rows.flatten(0, 1))
        return
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            part = to_gram[i, :, j]
            to_rows[i].addmm_(part, column)
            to_columns[j].addmm_(part.t(), row)


@lru_cache
def _parts(kinds: Kinds, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the synthetic points are found.

    Returns:
        parts: shape (points, x, 1, 1), the kinds that each point is part of.
        axes: shape (points,), its axis.
    """
    parts = [
        [kind for kind, terms in enumerate(kinds.terms) if point in terms]
        for point in range(kinds.num_members, kinds.num_points)
    ]
    axes = [axis for _, axis in kinds.synthetic]
    shape = len(parts), len(parts[0]) if parts else 0, 1, 1
    return (
        torch.tensor(parts, dtype=torch.long, device=device).view(shape),
        torch.tensor(axes, dtype=torch.long, device=device),
    )


def _by_point(products: Tensor, winner: Tensor, kinds: Kinds) -> Tensor:
    """Shape (synthetic points, R, C): the products where the point is in the winner."""
    parts, axes = _parts(kinds, winner.device)
    if kinds.are_sums:
        products = products[axes]
    return torch.where((winner == parts).any(1), products, 0)
