"""The hardest pair of two classes from the Gram matrix, where every class has two members.

The usual batch, and the fast way through it: the same as gram.py, in few and large
operators, because at the paper's batch it is their number that costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .gram import NORMALIZE_EPS, largest
from .kinds import Kinds, Setting, look_up

# A block has so many candidates, to stay in the cache, but not so few rows that the matrix
# products become slow.
_BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
_LEAST_ROWS = 64


class HardestOfPairs(NamedTuple):
    """The hardest candidate of every row class and column class.

    Attributes:
        similarity: shape (C, C), its dot product; the diagonal has the dot product of
            the two members of each class. Gradients flow through it.
        distance: shape (C,), the Euclidean distance of the two members, with gradients;
            of no use unless it was asked for.
        winner: shape (C, C), its place among the candidates, as kinds.Winners reads it;
            the diagonal is undefined. Of no use unless it was asked for.
    """

    similarity: Tensor
    distance: Tensor
    winner: Tensor


def supports(kinds: Kinds, setting: Setting) -> bool:
    """Whether hardest_of_pairs answers; compiled code fuses gram.py's operators itself."""
    return (
        kinds.num_members == 2
        and setting.rank == 1
        and not setting.euclidean
        and not torch.compiler.is_compiling()
    )


def hardest_of_pairs(
    embeddings: Tensor,
    pairs: Tensor,
    setting: Setting,
    distances: bool = False,
    sums: bool = False,
    keep_winners: bool = False,
) -> HardestOfPairs:
    """H(u, v) of every two classes, or the largest sum of two points of u for v.

    Args:
        embeddings: shape (B, D), floating.
        pairs: shape (C, 2), int64: the rows of the two members of each class, none
            of them twice.
        setting: what is compared; as supports says.
        distances: give the distances of the two members, too.
        sums: the largest (X + Y).z of the points X != Y of u and z of v, which is not
            symmetric, instead of the largest x.z.
        keep_winners: tell which candidates were selected.
    """
    problem = _Problem(setting, distances, sums, keep_winners)
    return HardestOfPairs(*_HardestOfPairs.apply(embeddings, pairs, problem))


class _Problem(NamedTuple):
    """What is asked, without the points."""

    setting: Setting
    distances: bool
    sums: bool
    keep_winners: bool


class _HardestOfPairs(torch.autograd.Function):
    """Finds the winners block by block, and sends the gradient through them only.

    A block is some row classes with all column classes from the first of these on. Its
    left square, the corner, holds pairs of classes both ways; for the classes to the
    right of it the block stands for their rows, too.

    Tables of a block have shape (rows, points, points, columns), or members in the place
    of points: with a long last dimension every operator is fast. The points are in the
    order: member 0, member 1, the synthetic point with axis 0, the one with axis 1. A
    synthetic point is coefficient * axis - beta * source.
    """

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, pairs: Tensor, problem: _Problem
    ) -> tuple[Tensor, Tensor, Tensor]:
        setting = problem.setting
        rows, size = pairs.flatten(), len(pairs)
        members = embeddings.index_select(0, rows)
        inverses = lengths = members.new_empty(0)
        if setting.normalize:
            lengths = torch.linalg.vector_norm(members, dim=1, keepdim=True)
            members.div_(lengths.clamp_min_(NORMALIZE_EPS))
        members = members.view(size, 2, -1)
        first, second = members.unbind(1)
        product = torch.linalg.vecdot(first, second)
        # Shape (2, C), of the points with axis 0 and 1; (1, C) where they are the same.
        coefficients = (product * (setting.alpha * setting.beta)).unsqueeze(0)
        if not setting.normalize:
            squared_norms = torch.linalg.vecdot(members, members).t()
            floor = torch.finfo(members.dtype).tiny
            inverses = squared_norms.clamp_min(floor).reciprocal_()
            coefficients = coefficients * inverses

        similarity = members.new_empty(size, size)
        winner = members.new_empty(size, size, dtype=torch.uint8)
        tables = _tables(members.device)
        saved = []
        for here in _blocks(size, members.device):
            there, beyond = slice(here.start, size), slice(here.stop, size)
            right = slice(here.stop - here.start, None)
            row_points = _row_points(members, coefficients, setting.beta, here)
            saved.append(row_points)
            points = _column_points(row_points, coefficients[:, there], setting.beta)
            value, place = largest(_sums(points) if problem.sums else points)
            similarity[here, there] = value
            winner[here, there] = place
            if here.stop == size:
                continue
            if problem.sums:
                value, place = largest(_sums(points[..., right].transpose(1, 2)))
                winner[beyond, here] = place.t()
            else:
                value = value[:, right]
                if problem.keep_winners:
                    place = look_up(tables.mirrored, place[:, right])
                    winner[beyond, here] = place.t().byte()
            similarity[beyond, here] = value.t()
        similarity.diagonal().copy_(product)
        distance = product
        if problem.distances:
            distance = torch.linalg.vector_norm(first - second, dim=1)
        ctx.problem, ctx.num_rows = problem, len(embeddings)
        ctx.save_for_backward(
            rows, members, lengths, inverses, coefficients, distance, winner, *saved
        )
        if problem.keep_winners:
            in_kinds = tables.sums_in_kinds if problem.sums else tables.in_kinds
            winner = look_up(in_kinds, winner.int())
        ctx.mark_non_differentiable(winner)
        return similarity, distance, winner

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, to_distance: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        problem: _Problem = ctx.problem
        setting = problem.setting
        rows, members, lengths, inverses, coefficients, distance, winner, *saved = (
            ctx.saved_tensors
        )
        size = len(members)
        gradient = gradient.clone()
        to_product = gradient.diagonal().clone()
        gradient.fill_diagonal_(0)
        if problem.distances:
            # Of |x - y|, times x - y: there is no direction where it is 0.
            to_distance = torch.where(distance > 0, to_distance / distance, 0)
            to_product -= to_distance
        to_members = torch.zeros_like(members)
        to_coefficients = torch.zeros_like(coefficients)
        both = () if len(coefficients) == 2 else (2,)
        blocks = _blocks(size, members.device)
        for row_points, here in zip(saved, blocks, strict=True):
            there, beyond = slice(here.start, size), slice(here.stop, size)
            right = slice(here.stop - here.start, None)
            points = _selected(gradient, winner, here, problem.sums)
            # From the columns' points to their members ...
            synthetic = points[:, :, 2:]
            to_coefficients[:, there] += (synthetic * row_points).sum((0, 1, *both))
            points = points[:, :, :2].addcmul_(synthetic, coefficients[:, there])
            points[:, :, 0].sub_(synthetic[:, :, 1], alpha=setting.beta)
            points[:, :, 1].sub_(synthetic[:, :, 0], alpha=setting.beta)
            # ... and likewise for the rows.
            synthetic = points[:, 2:].transpose(0, 1)
            to_coefficients[:, here] += (
                (synthetic * row_points[:, :2].transpose(0, 1))
                .sum((3, 2))
                .sum_to_size(coefficients[:, here].shape)
            )
            own_coefficients = coefficients[:, here].t()[:, :, None, None]
            to_gram = torch.addcmul(points[:, :2], points[:, 2:], own_coefficients)
            to_gram[:, 0].sub_(synthetic[1], alpha=setting.beta)
            to_gram[:, 1].sub_(synthetic[0], alpha=setting.beta)
            # The coefficients of these rows have got all they get.
            corner = to_gram[..., : right.start]
            to_own_gram = corner.diagonal(dim1=0, dim2=3)
            through = to_coefficients[:, here] * (setting.alpha * setting.beta)
            if not setting.normalize:
                # Else this is along the point, where a gradient counts for nothing.
                through = through * inverses[:, here]
                along = through * coefficients[:, here] / -(setting.alpha * setting.beta)
                if problem.distances:
                    along = along + to_distance[here] / 2
                to_own_gram.diagonal().add_(along.t())
            to_own_gram[0, 1] += to_product[here] + through.sum(0)
            corner.copy_(corner + corner.permute(3, 2, 1, 0))
            own, to_own = members[here].flatten(0, 1), to_members[here].flatten(0, 1)
            to_gram = to_gram.flatten(0, 1)
            for member in range(2):
                part = to_gram[:, member]
                to_own.addmm_(part, members[there, member])
                if here.stop < size:
                    to_members[beyond, member].addmm_(part[:, right].t(), own)
        if setting.normalize:
            # Only what is at right angles to a point changes its direction.
            along = torch.linalg.vecdot(to_members, members).unsqueeze(2)
            to_members.addcmul_(members, along, value=-1)
            to_members.div_(lengths.view(size, 2, 1))
        to_embeddings = members.new_zeros(ctx.num_rows, members.shape[2])
        return to_embeddings.index_copy_(0, rows, to_members.flatten(0, 1)), None, None


def _blocks(size: int, device: torch.device) -> Iterator[slice]:
    """Row classes block by block, more of them where fewer columns are left."""
    limit = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS["cuda"])
    start = 0
    while start < size:
        step = max(limit // (16 * (size - start)), _LEAST_ROWS)
        yield slice(start, min(start + step, size))
        start += step


def _row_points(members: Tensor, coefficients: Tensor, beta: float, here: slice) -> Tensor:
    """Shape (rows, 4, 2, columns): of the rows' points with the columns' members."""
    own, theirs = members[here].flatten(0, 1), members[here.start :]
    points = members.new_empty(here.stop - here.start, 4, 2, len(theirs))
    gram = members.new_empty(len(own), 2, len(theirs))
    for member in range(2):
        torch.mm(own, theirs[:, member].t(), out=gram[:, member])
    gram = gram.unflatten(0, (-1, 2))
    points[:, :2] = gram
    own_coefficients = coefficients[:, here].t()[:, :, None, None]
    synthetic = torch.mul(gram, own_coefficients, out=points[:, 2:])
    synthetic[:, 0].sub_(gram[:, 1], alpha=beta)
    synthetic[:, 1].sub_(gram[:, 0], alpha=beta)
    return points


def _column_points(row_points: Tensor, coefficients: Tensor, beta: float) -> Tensor:
    """Shape (rows, 4, 4, columns): of the rows' points with the columns' points."""
    points = row_points.new_empty(len(row_points), 4, 4, row_points.shape[3])
    points[:, :, :2] = row_points
    synthetic = torch.mul(row_points, coefficients, out=points[:, :, 2:])
    synthetic[:, :, 0].sub_(row_points[:, :, 1], alpha=beta)
    synthetic[:, :, 1].sub_(row_points[:, :, 0], alpha=beta)
    return points


def _sums(points: Tensor) -> Tensor:
    """Shape (rows, 6, 4, columns): every two of the rows' points together."""
    return torch.cat(
        [points[:, first : first + 1] + points[:, first + 1 :] for first in range(3)], dim=1
    )


def _selected(gradient: Tensor, winner: Tensor, here: slice, sums: bool) -> Tensor:
    """Shape (rows, 4, 4, columns): the gradient where the winners are, else 0."""
    there, beyond = slice(here.start, None), slice(here.stop, None)
    right = slice(here.stop - here.start, None)
    through, place = gradient[here, there], winner[here, there]
    table = gradient.new_zeros(len(through), 16, through.shape[1])
    if not sums:
        # Both ends of a pair have the same winner.
        through[:, right] += gradient[beyond, here].t()
        table.scatter_(1, place.long().unsqueeze(1), through.unsqueeze(1))
        return table.unflatten(1, (4, 4))
    tables = _tables(gradient.device)
    for points in tables.points_of_sum:
        index = look_up(points, place.int()).unsqueeze(1)
        table.scatter_add_(1, index, through.unsqueeze(1))
    through, place = gradient[beyond, here].t(), winner[beyond, here].t()
    for points in tables.mirrored_points_of_sum:
        index = look_up(points, place.int()).unsqueeze(1)
        table[..., right].scatter_add_(1, index, through.unsqueeze(1))
    return table.unflatten(1, (4, 4))


class _Tables(NamedTuple):
    """What a winner says, by its place among the candidates.

    Attributes:
        mirrored: shape (16,), its place if rows and columns change places.
        in_kinds: shape (16,), uint8, its place as kinds.Winners has it.
        points_of_sum: two of shape (24,), the places of the two points of a sum.
        mirrored_points_of_sum: likewise, if rows and columns change places.
        sums_in_kinds: shape (24,), as in_kinds, of a sum.
    """

    mirrored: Tensor
    in_kinds: Tensor
    points_of_sum: tuple[Tensor, Tensor]
    mirrored_points_of_sum: tuple[Tensor, Tensor]
    sums_in_kinds: Tensor


@lru_cache
def _tables(device: torch.device) -> _Tables:
    """Made once for every device."""
    axis_one, axis_zero = Kinds(2).synthetic.index((0, 1)), Kinds(2).synthetic.index((1, 0))
    in_kinds = [0, 1, 2 + axis_zero, 2 + axis_one]
    two = list(combinations(range(4), 2))
    renamed = [{in_kinds[x], in_kinds[y]} for x, y in two]
    sum_in_kinds = [[set(pair) for pair in two].index(pair) for pair in renamed]

    def table(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    columns = range(4)
    return _Tables(
        table([v * 4 + u for u in range(4) for v in columns]),
        table([in_kinds[u] * 4 + in_kinds[v] for u in range(4) for v in columns]).byte(),
        (
            table([x * 4 + v for x, _ in two for v in columns]),
            table([y * 4 + v for _, y in two for v in columns]),
        ),
        (
            table([v * 4 + x for x, _ in two for v in columns]),
            table([v * 4 + y for _, y in two for v in columns]),
        ),
        table([kind * 4 + in_kinds[v] for kind in sum_in_kinds for v in columns]).byte(),
    )
