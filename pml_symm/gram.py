"""The hardest pair of two classes from the Gram matrix of the originals.

A synthetic point is a combination of two originals, c * axis - beta * source, so every
dot product of two points is a combination of at most four dot products of originals.
Nothing of size (synthetic points x embedding size) is ever made.

Classes come in groups of equal size, so that all shapes are fixed: ``members`` has
shape (C, m, D), the m members of each of C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kinds import Kinds, Setting, composition, look_up, winners

NORMALIZE_EPS = 1e-12  # as torch.nn.functional.normalize has it

# A block has so many candidates at most, for the memory's sake; on CPU it has so many rows
# of originals at most, too: fewer make slow matrix products, more leave the cache.
_BLOCK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 26}
_BLOCK_ROWS = {"cpu": 256}


class Selected(NamedTuple):
    """The selected candidate of every row class and column class.

    Attributes:
        similarity: shape (R, C), its dot product, or minus half its squared distance;
            gradients flow through it.
        within: shape (R, m, m), the dot products, or distances, of the members of each
            row class, with gradients.
        winner: shape (R, C), integer: its place among the candidates, as kinds.Winners
            reads it.
    """

    similarity: Tensor
    within: Tensor
    winner: Tensor


@dataclass(frozen=True)
class Problem:
    """What hardest_within and hardest_between are asked, without the points."""

    rows: Kinds
    columns: Kinds
    setting: Setting
    symmetric: bool
    distances: bool
    keep_winners: bool

    @property
    def num_candidates(self) -> int:
        """Of every row class with every column class."""
        return len(self.rows) * len(self.columns)

    @property
    def dtype(self) -> torch.dtype:
        """Of the winners: the smallest that holds all candidates."""
        return torch.uint8 if self.num_candidates <= 256 else torch.int32


def hardest_within(
    members: Tensor,
    kinds: Kinds,
    setting: Setting,
    distances: bool = False,
    keep_winners: bool = False,
) -> Selected:
    """H(u, v) of every two classes of one size; symmetric, the diagonal is undefined.

    Args:
        members: shape (C, m, D), floating.
        kinds: of a class of m members.
        setting: what is compared.
        distances: give the Euclidean distances of the members of each class instead of
            their dot products.
        keep_winners: tell which candidates were selected; else winner is of no use.
    """
    problem = Problem(kinds, kinds, setting, True, distances, keep_winners)
    if torch.compiler.is_compiling():
        return differentiable(members, members, problem)
    return Selected(*_HardestPair.apply(members, None, problem))


def hardest_between(
    rows: Tensor, columns: Tensor, row_kinds: Kinds, column_kinds: Kinds, setting: Setting
) -> Selected:
    """H(u, v) of every class u of one size and class v of another.

    Args:
        rows: shape (R, m, D), floating.
        columns: shape (C, n, D).
        row_kinds: of a class of m members.
        column_kinds: of a class of n members; not sums.
        setting: what is compared.
    """
    problem = Problem(row_kinds, column_kinds, setting, False, False, True)
    if torch.compiler.is_compiling():
        return differentiable(rows, columns, problem)
    return Selected(*_HardestPair.apply(rows, columns, problem))


class _Points(NamedTuple):
    """The originals of classes of one size, and what all points are made of.

    Attributes:
        members: shape (C, m, D), of length one if the problem says so.
        lengths: shape (C, m, 1), what they were divided by; empty if they were not.
        gram: shape (C, m, m), the dot products within each class.
        coefficients: shape (C, synthetic points), of the axis.
        made_of: shape (C, rows, kinds), as kinds.Composition has it.
    """

    members: Tensor
    lengths: Tensor
    gram: Tensor
    coefficients: Tensor
    made_of: Tensor


def _points(members: Tensor, kinds: Kinds, setting: Setting) -> _Points:
    """Differentiable by autograd, too."""
    lengths = members.new_empty(0)
    if setting.normalize:
        lengths = torch.linalg.vector_norm(members, dim=2, keepdim=True)
        lengths = lengths.clamp_min(NORMALIZE_EPS)
        members = members / lengths
    gram = members @ members.mT
    parts = composition(kinds, setting, members.dtype, members.device)
    flat = gram.flatten(1)
    squared_norms = flat.index_select(1, parts.axes)
    coefficients = flat.index_select(1, parts.sources_and_axes) / squared_norms.clamp_min(
        torch.finfo(members.dtype).tiny
    )
    coefficients = coefficients * (setting.alpha * setting.beta)
    made_of = torch.addmm(parts.constant, coefficients, parts.linear)
    made_of = made_of.unflatten(1, (len(parts.constant) // len(kinds), len(kinds)))
    return _Points(members, lengths, gram, coefficients, made_of)


def _half_squared_norms(points: _Points, kinds: Kinds) -> Tensor:
    """Shape (C, kinds): minus half the squared norm of every point."""
    squared_norms = points.gram.diagonal(dim1=1, dim2=2).unsqueeze(1)
    bias = points.made_of[:, kinds.num_members + len(kinds.synthetic) :]
    return (squared_norms @ bias).squeeze(1)


def _distances(members: Tensor) -> Tensor:
    """Shape (C, m, m); not from dot products, which cannot tell near points apart."""
    size, count = members.shape[:2]
    distances = members.new_zeros(size, count, count)
    for i, j in combinations(range(count), 2):
        distance = torch.linalg.vector_norm(members[:, i] - members[:, j], dim=1)
        distances[:, i, j] = distance
        distances[:, j, i] = distance
    return distances


def _through_distances(distances: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of distances as one of dot products: w (x_i - x_j) at x_i."""
    through = torch.where(distances > 0, gradient / distances, 0)
    return torch.diag_embed((through + through.mT).sum(2) / 2) - through


def differentiable(rows: Tensor, columns: Tensor, problem: Problem) -> Selected:
    """As _HardestPair, with autograd through all candidates: for torch.compile."""
    row_points = _points(rows, problem.rows, problem.setting)
    column_points = _points(columns, problem.columns, problem.setting)
    row_weights = row_points.made_of[:, : problem.rows.num_members]
    column_weights = column_points.made_of[:, : problem.columns.num_members]
    products = row_points.members.flatten(0, 1) @ column_points.members.flatten(0, 1).t()
    products = products.view(*rows.shape[:2], *columns.shape[:2])
    candidates = torch.einsum("riu,ricj,cjv->ruvc", row_weights, products, column_weights)
    if problem.setting.euclidean:
        row_bias = _half_squared_norms(row_points, problem.rows)
        column_bias = _half_squared_norms(column_points, problem.columns)
        candidates = candidates + row_bias[:, :, None, None] + column_bias.t()
    flat = candidates.flatten(1, 2)
    if problem.setting.rank == 1:
        similarity, winner = flat.max(dim=1)
    else:
        top = flat.topk(min(problem.setting.rank, flat.shape[1]), dim=1)
        similarity, winner = top.values[:, -1], top.indices[:, -1]
    within = row_points.gram
    if problem.distances:
        within = _distances(row_points.members)
    return Selected(similarity, within, winner)


class _HardestPair(torch.autograd.Function):
    """Finds the winners block by block, and sends the gradient through them only.

    A symmetric problem has the column classes from a block's first row class on in that
    block. Its square corner has both ends of a pair, so that its rows say everything;
    the columns to the right of it have one end only. One side of the diagonal decides
    for both ends, also where candidates are equal but for the last digit.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor | None, problem: Problem
    ) -> tuple[Tensor, Tensor, Tensor]:
        row_points = _points(rows, problem.rows, problem.setting)
        column_points = row_points
        if columns is not None:
            column_points = _points(columns, problem.columns, problem.setting)
        results = _Results.empty(
            row_points, column_points, problem, any(ctx.needs_input_grad)
        )
        _select(row_points, column_points, problem, results)
        within = row_points.gram
        if problem.distances:
            within = _distances(row_points.members)
        ctx.problem = problem
        ctx.save_for_backward(*row_points, *column_points, within, *results[1:])
        ctx.mark_non_differentiable(results.winner)
        return results.similarity, within, results.winner

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, to_within: Tensor, *_: Any
    ) -> tuple[Tensor | None, ...]:
        problem: Problem = ctx.problem
        row_points = _Points(*ctx.saved_tensors[:5])
        column_points = _Points(*ctx.saved_tensors[5:10])
        within, *results = ctx.saved_tensors[10:]
        to_rows = _Gradients.zeros(row_points)
        to_columns = to_rows if problem.symmetric else _Gradients.zeros(column_points)
        _send(
            row_points,
            column_points,
            _Results(gradient, *results),
            problem,
            to_rows,
            to_columns,
        )
        if problem.distances:
            to_within = _through_distances(within, to_within)
        through_rows = to_rows.finish(row_points, problem.rows, problem.setting, to_within)
        if problem.symmetric:
            return through_rows, None, None
        return (
            through_rows,
            to_columns.finish(column_points, problem.columns, problem.setting),
            None,
        )


class _Results(NamedTuple):
    """What the forward pass finds.

    The backward pass does not need what is to the left of a symmetric problem's blocks,
    and the column products of their corners: it is not there.

    Attributes:
        similarity: shape (R, C), complete; in the backward pass its gradient.
        winner: shape (R, C), complete if the problem says so.
        row_products: shape (R, q, C), of the column's point with the axis of the row's,
            or, if row kinds are sums, with every member of the row's class.
        column_products: shape (R, C), of the row's point with the column's axis.
    """

    similarity: Tensor
    winner: Tensor
    row_products: Tensor
    column_products: Tensor

    @classmethod
    def empty(
        cls, rows: _Points, columns: _Points, problem: Problem, keep_products: bool
    ) -> _Results:
        new_empty = rows.members.new_empty
        size = len(rows.members), len(columns.members)
        num_products = problem.rows.num_members if problem.rows.are_sums else 1
        return cls(
            new_empty(size),
            new_empty(size, dtype=problem.dtype),
            new_empty(size[0] * keep_products, num_products, size[1]),
            new_empty(size[0] * keep_products, size[1]),
        )


def _blocks(
    problem: Problem, size: tuple[int, int] | torch.Size, device: torch.device
) -> Iterator[slice]:
    """Row classes whose candidates fit into a block."""
    limit = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS["cuda"])
    rows = _BLOCK_ROWS.get(device.type, size[0] * problem.rows.num_members)
    step = max(
        1,
        min(
            limit // max(1, problem.num_candidates * size[1]),
            rows // problem.rows.num_members,
        ),
    )
    for start in range(0, size[0], step):
        yield slice(start, min(start + step, size[0]))


def _select(rows: _Points, columns: _Points, problem: Problem, results: _Results) -> None:
    """Fill in the results."""
    size, device = results.similarity.shape, results.similarity.device
    m, n = problem.rows.num_members, problem.columns.num_members
    num_kinds = len(problem.rows), len(problem.columns)
    table = winners(problem.rows, problem.columns, device)
    blocks = list(_blocks(problem, size, device))
    # One piece of memory for all blocks: new memory costs more than the arithmetic.
    room = max((here.stop - here.start for here in blocks), default=0) * size[1]
    scratch = rows.members.new_empty((m * num_kinds[1] + problem.num_candidates) * room)
    row_weights = rows.made_of[:, :m].mT
    coefficients = columns.coefficients.t().contiguous()
    if problem.setting.euclidean:
        row_bias = _half_squared_norms(rows, problem.rows)
        column_bias = _half_squared_norms(columns, problem.columns).t().contiguous()
    for here in blocks:
        there = slice(here.start if problem.symmetric else 0, size[1])
        length, width = here.stop - here.start, there.stop - there.start
        # The row's members with the column's points, then the row's points with them.
        shape = length * m, num_kinds[1], width
        products = scratch[: math.prod(shape)].view(shape)
        own = rows.members[here].flatten(0, 1)
        for member in range(n):
            torch.mm(own, columns.members[there, member].t(), out=products[:, member])
        for number, (source, axis) in enumerate(problem.columns.synthetic):
            out = products[:, n + number]
            torch.mul(products[:, axis], coefficients[number, there], out=out)
            out.sub_(products[:, source], alpha=problem.setting.beta)
        products = products.view(length, m, num_kinds[1] * width)
        shape = length, num_kinds[0], num_kinds[1] * width
        candidates = scratch[-math.prod(shape) :].view(shape)
        torch.bmm(row_weights[here], products, out=candidates)
        candidates = candidates.view(length, *num_kinds, width)
        scores = candidates
        if problem.setting.euclidean:
            scores = candidates + row_bias[here, :, None, None]
            scores += column_bias[:, there]
        similarity, winner = largest(scores, problem.setting.rank)
        if problem.symmetric:
            corner = winner[:, :length]
            corner.copy_(corner.triu() + look_up(table.mirrored, corner.t()).tril(-1))
        results.similarity[here, there] = similarity
        results.winner[here, there] = winner
        right = _right_of_corner(problem, here)
        beyond = slice(there.start + right.start, None)
        if problem.symmetric and right.start < width:
            results.similarity[beyond, here] = similarity[:, right].t()
            if problem.keep_winners:
                mirrored = look_up(table.mirrored, winner[:, right].t())
                results.winner[beyond, here] = mirrored
        if len(results.row_products) == 0:
            continue
        if problem.rows.are_sums:
            column = look_up(table.column, winner)[:, None, None].expand(-1, m, -1, -1)
            by_member = products.view(length, m, num_kinds[1], width)
            results.row_products[here] = by_member.gather(2, column).squeeze(2)
        else:
            place = look_up(table.row_axis, winner).unsqueeze(1)
            by_place = products.view(length, m * num_kinds[1], width)
            results.row_products[here, :, there] = by_place.gather(1, place)
        if right.start < width:
            place = look_up(table.column_axis, winner[:, right]).unsqueeze(1)
            by_place = candidates.flatten(1, 2)[:, :, right]
            results.column_products[here, beyond] = by_place.gather(1, place).squeeze(1)


def _right_of_corner(problem: Problem, here: slice) -> slice:
    """The columns of a block that are not also among its rows."""
    return slice(here.stop - here.start if problem.symmetric else 0, None)


def largest(candidates: Tensor, rank: int = 1) -> tuple[Tensor, Tensor]:
    """Value and place, shape (R, C), among candidates, shape (R, kinds, kinds, C)."""
    flat = candidates.flatten(1, 2)
    if rank > 1:
        top = flat.topk(min(rank, flat.shape[1]), dim=1)
        return top.values[:, -1], top.indices[:, -1]
    if flat.device.type != "cpu" or flat.numel() == 0:
        value, winner = flat.max(dim=1)
        return value, winner
    # On CPU ten times as fast as max over a dimension that is not the last.
    value, winner = torch.nn.functional.max_pool2d(
        candidates.permute(0, 3, 1, 2), candidates.shape[1:3], return_indices=True
    )
    return value.flatten(1), winner.flatten(1)


class _Gradients(NamedTuple):
    """What has been sent back so far.

    Attributes:
        members: shape (C, m, D).
        coefficients: shape (C, synthetic points).
        squared_norms: shape (C, m), of the members.
    """

    members: Tensor
    coefficients: Tensor
    squared_norms: Tensor

    @classmethod
    def zeros(cls, points: _Points) -> _Gradients:
        """Before the first block."""
        return cls(
            torch.zeros_like(points.members),
            torch.zeros_like(points.coefficients),
            points.members.new_zeros(points.members.shape[:2]),
        )

    def finish(
        self,
        points: _Points,
        kinds: Kinds,
        setting: Setting,
        to_gram: Tensor | None = None,
    ) -> Tensor:
        """The gradient of the members that were given, after the last block."""
        parts = composition(kinds, setting, self.members.dtype, self.members.device)
        squared_norms = points.gram.flatten(1).index_select(1, parts.axes)
        floor = torch.finfo(squared_norms.dtype).tiny
        quotient = self.coefficients / squared_norms.clamp_min(floor)
        through = (quotient * (setting.alpha * setting.beta)) @ parts.to_products
        through.addmm_(quotient * points.coefficients, parts.to_norms)
        through = through.view_as(points.gram)
        if setting.euclidean:
            through.diagonal(dim1=1, dim2=2).add_(self.squared_norms)
        if to_gram is not None:
            through = through + to_gram
        to_members = self.members.baddbmm_(through + through.mT, points.members)
        if not setting.normalize:
            return to_members
        # Only what is at right angles to a point changes its direction.
        along = torch.linalg.vecdot(to_members, points.members).unsqueeze(2)
        return to_members.addcmul_(points.members, along, value=-1).div_(points.lengths)


def _send(
    rows: _Points,
    columns: _Points,
    results: _Results,
    problem: Problem,
    to_rows: _Gradients,
    to_columns: _Gradients,
) -> None:
    """Send the gradients of all winners to the rows' and to the columns' originals."""
    gradient = results.similarity
    m, n = problem.rows.num_members, problem.columns.num_members
    synthetic = slice(m, m + len(problem.rows.synthetic))
    their_synthetic = slice(n, n + len(problem.columns.synthetic))
    table = winners(problem.rows, problem.columns, gradient.device)
    axes = [axis for _, axis in problem.rows.synthetic]
    # Class last, because gather is fast along it.
    their_made_of = columns.made_of.permute(1, 2, 0).contiguous()
    for here in _blocks(problem, gradient.shape, gradient.device):
        there = slice(here.start if problem.symmetric else 0, None)
        through = gradient[here, there]
        if problem.symmetric:
            # Both ends of a pair have the same winner.
            through = (through + gradient[there, here].t()).fill_diagonal_(0)
        winner = results.winner[here, there].int()
        kind = look_up(table.row, winner).unsqueeze(1)
        made_of = rows.made_of[here]
        made_of = made_of.gather(2, kind.expand(-1, made_of.shape[1], -1))
        kind = look_up(table.column, winner)
        theirs = _gather_columns(their_made_of[:n, :, there], kind) * through
        to_gram = made_of[:, :m] * theirs.unsqueeze(2)
        right = _right_of_corner(problem, here)
        beyond = slice(there.start + right.start, None)
        own, to_own = (x[here].flatten(0, 1) for x in (rows.members, to_rows.members))
        for member, part in enumerate(to_gram.flatten(1, 2)):
            to_own.addmm_(part, columns.members[there, member])
            if right.start < through.shape[1]:
                to_columns.members[beyond, member].addmm_(part[:, right].t(), own)
        products = results.row_products[here, :, there]
        if problem.rows.are_sums:
            products = products[:, axes]
        products = products * through.unsqueeze(1)
        to_rows.coefficients[here] += (made_of[:, synthetic] * products).sum(2)
        if problem.setting.euclidean:
            bias = made_of[:, synthetic.stop :]
            to_rows.squared_norms[here] += (bias * through.unsqueeze(1)).sum(2)
        if right.start == through.shape[1]:
            continue
        kind, through = kind[:, right], through[:, right]
        products = results.column_products[here, beyond] * through
        indicator = _gather_columns(their_made_of[their_synthetic, :, beyond], kind)
        to_columns.coefficients[beyond] += (indicator * products).sum(1).t()
        if problem.setting.euclidean:
            bias = _gather_columns(their_made_of[their_synthetic.stop :, :, beyond], kind)
            to_columns.squared_norms[beyond] += (bias * through).sum(1).t()


def _gather_columns(made_of: Tensor, kind: Tensor) -> Tensor:
    """Shape (rows, R, C), from shapes (rows, kinds, C) and (R, C)."""
    return made_of.gather(1, kind.expand(len(made_of), -1, -1))
