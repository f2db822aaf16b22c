"""The hardest pair of points of every two classes.

The search sees all candidates, in blocks and without gradients. What it finds, two points
of every two classes, is then scored once more with autograd on:

    H(u, v) = score of point k of u and point l of v,     k, l = the winner's place
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from .class_groups import joined
from .distances import Distance
from .points import AnyPoints, AnyTable, some_classes, table_of
from .rules import Rule, best, better

# The most candidates at a time. On a CPU they should fit into its cache; a GPU needs
# operators that large, and sorting so many takes half a GiB.
_MOST_CANDIDATES = 1 << 24
_CANDIDATES = {"cpu": 1 << 18}
# The most products of members, and the most numbers for the scores of some winners, that
# are kept for the backward pass. Beyond them it computes each part again.
_MOST_PRODUCTS, _MOST_KEPT = 1 << 26, 1 << 24
# On a CPU, a symmetric comparison of more classes is cut into blocks of at least so many
# classes, at most eight blocks, to leave out the half below the diagonal.
_HALVED, _BLOCKS = {"cpu": 64}, 8


class Selected(NamedTuple):
    """The winners of U rows in C classes; a row class has n rows, one for each limit."""

    score: Tensor  # (U, C), with gradients
    row: Tensor  # (U, C), integers, the row class's point; -1 where none may win
    column: Tensor  # (U, C), integers, the column class's point
    rows: Sequence[AnyPoints]  # of each group of row classes
    columns: Sequence[AnyPoints]
    limits: Sequence[Tensor] | None  # of each group of row classes, (R, n)

    @property
    def column_point(self) -> Tensor:
        """Shape (U, C), int64: the column class's point, counted class after class."""
        classes = [points.synthetic for points in self.columns]
        counts = torch.cat(
            [x.new_full((len(x),), x.shape[1], dtype=torch.long) for x in classes]
        )
        return self.column + (counts.cumsum(0) - counts)

    @property
    def is_synthetic(self) -> Tensor:
        """Shape (U, C), bool: whether either point is or contains a mirror image."""
        sizes = [x.numel() for x in self.limits or (p.synthetic[:, 0] for p in self.rows)]
        parts = zip(self.rows, self.row.clamp_min(0).long().split(sizes), strict=True)
        of_row = [
            p.synthetic.gather(1, k.view(len(p.synthetic), -1)).view_as(k) for p, k in parts
        ]
        of_column = joined([points.synthetic.flatten() for points in self.columns])
        return joined(of_row) | of_column[self.column_point]


def compare_groups(
    rows: Sequence[AnyPoints],
    columns: Sequence[AnyPoints],
    distance: Distance,
    rule: int | Rule,
    limits: Sequence[Tensor] | None = None,
    same: bool = False,
    with_score: bool = True,
) -> Selected:
    """H(u, v) of every row class u and column class v.

    Args:
        rows: the points of each group's row classes.
        columns: the points of each group's column classes, of the same kind.
        distance: of made points; weighted points are compared by their dot products.
        rule: a rank, or a rule.
        limits: of each group's row classes, shape (R, n): the positive pairs' scores, if
            the choice depends on them.
        same: whether columns are the rows, and their scores symmetric; the diagonal is
            then undefined.
        with_score: whether scores are wanted; else they are meaningless.
    """
    device = columns[0].synthetic.device
    num_columns = sum(len(points.synthetic) for points in columns)
    num_members = sum(len(x.synthetic) * x.num_members for x in columns)
    num_rows, blocks = 0, []
    for g, points in enumerate(rows):
        R, n = len(points.synthetic), 1 if limits is None else limits[g].shape[1]
        num_rows += R * n
        if 0 in (R, n, num_columns):
            continue
        step = max(1, min(R, _MOST_PRODUCTS // (points.num_members * num_members)))
        recompute = step < R and with_score and _may_recompute()
        if same and device.type in _HALVED:
            step = min(step, max(_HALVED[device.type], -(-R // _BLOCKS)))
        for start in range(0, R, step):
            part = some_classes(points, start, start + step)
            some = None if limits is None else limits[g][start : start + step]
            others = [some_classes(points, start), *columns[g + 1 :]] if same else columns
            found = [
                _compare(part, x, distance, rule, some, with_score, recompute)
                for x in others
            ]
            together = zip(*found, strict=True)
            blocks.append([joined(x, dim=2).flatten(0, 1) for x in together])
    if not blocks:
        place = torch.zeros(num_rows, num_columns, dtype=torch.int64, device=device)
        return Selected(place.float(), place, place, rows, columns, limits)
    if same and len(blocks) > 1:
        blocks = [_completed(blocks)]
    score, row, column = (joined(x) for x in zip(*blocks, strict=True))
    return Selected(score, row, column, rows, columns, limits)


def _completed(blocks: list[list[Tensor]]) -> list[Tensor]:
    """Scores, row points and column points from the blocks on and above the diagonal."""
    size = blocks[0][0].shape[1]
    score, row, column = (
        torch.cat([pad(x, (size - x.shape[1], 0)) for x in parts])
        for parts in zip(*blocks, strict=True)
    )
    number = torch.cat([row.new_full((len(x),), i) for i, (_, x, _) in enumerate(blocks)])
    below = number.unsqueeze(1) > number
    exchanged = (score, score), (row, column), (column, row)
    return [torch.where(below, x.t(), y) for y, x in exchanged]


def _compare(
    rows: AnyPoints,
    columns: AnyPoints,
    distance: Distance,
    rule: int | Rule,
    limits: Tensor | None,
    with_score: bool,
    recompute: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The winners' score, row point and column point, of shape (R, n, C)."""
    places: list[Tensor] = []

    def score() -> Tensor:
        table = table_of(rows, columns, distance)
        if not places:  # else it is the backward pass that computes the scores again
            places.extend(_search(table, rule, limits))
        row, column = places
        if not with_score:
            return row
        return _winners(table, row if limits is None else row.clamp_min(0), column)

    scores = _again(score) if recompute else score()
    return scores, places[0], places[1]


def _winners(table: AnyTable, row: Tensor, column: Tensor) -> Tensor:
    """The winners' scores, shape (R, n, C); of some limits at a time if they are many."""
    (R, n, C), kept = row.shape, table.rows.num_members * table.columns.num_members
    some = max(1, _MOST_KEPT // (kept * R * C))
    if n <= some:
        return table.winners(row, column)
    compute = table.winners
    if _may_recompute():
        compute = partial(_again, compute)
    parts = zip(row.split(some, dim=1), column.split(some, dim=1), strict=True)
    return torch.cat([compute(*part) for part in parts], dim=1)


# Computed again in the backward pass, instead of being kept.
_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def _may_recompute() -> bool:
    """Whether there is a backward pass that may: torch.func does not take what it needs."""
    try:
        with saved_tensors_hooks(lambda x: x, lambda x: x):
            return torch.is_grad_enabled()
    except RuntimeError:
        return False


@torch.no_grad()
def _search(
    table: AnyTable, rule: int | Rule, limits: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The winner's row point and column point, of shape (R, n, C)."""
    (R, K), (C, L) = table.rows.synthetic.shape, table.columns.synthetic.shape
    row_synthetic = table.rows.synthetic[:, :, None, None]
    column_synthetic = table.columns.synthetic.t()
    device = column_synthetic.device
    room = _CANDIDATES.get(device.type, _MOST_CANDIDATES) // (L * C)
    step, some = max(1, min(R, room // K)), max(1, min(K, room))
    n = 1 if limits is None else limits.shape[1]
    # Made first: small results between large blocks would leave holes in the memory. Small
    # integers: the places of a large batch take most of its memory.
    dtype = torch.int16 if max(K, L) < 1 << 15 else torch.int32
    whole = torch.empty(2, R if step < R else 0, n, C, dtype=dtype, device=device)
    for start in range(0, R, step):
        here, winner = slice(start, start + step), None
        candidates = table.candidates(here)
        some_limits = None if limits is None else limits[here]
        for first in range(0, K, some):
            points = slice(first, first + some)
            synthetic = row_synthetic[here, points], column_synthetic
            now = best(candidates(points), *synthetic, rule, some_limits)
            if winner is not None:
                now = better(winner, now._replace(place=now.place + first * L), rule)
            winner = now
        assert winner is not None
        priority, place = winner
        if limits is None:
            place = place[:, -1:]
        else:
            place = place.masked_fill_(priority == -torch.inf, -1)
        row = torch.div(place, L, rounding_mode="floor")
        column = place.sub(row, alpha=L)
        if step >= R:
            return row, column
        whole[0, here], whole[1, here] = row, column
    return whole[0], whole[1]
