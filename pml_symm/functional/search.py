"""The hardest pair of points of every two classes.

The search sees all candidates, in blocks and without gradients. What it finds, two points
of every two classes, is then scored once more with autograd on:

    H(u, v) = score of point k of u and point l of v,     k, l = the winner's place
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from ..validation import Hardness
from .distances import Distance
from .points import AnyPoints, Table
from .rules import Best, Rule, best, better

# The most candidates at a time. On a CPU they should fit into its cache; a GPU needs
# operators that large.
_MOST_CANDIDATES = 1 << 26
_CANDIDATES = {"cpu": 1 << 18}
# The most numbers that the winners' scores may keep for the backward pass. Beyond it
# they are computed in blocks, and again in the backward pass.
_MOST_KEPT = 1 << 24
# On a CPU, a symmetric comparison of more classes is cut into blocks of at least so many
# classes, at most eight blocks, to leave out the half below the diagonal.
_HALVED, _BLOCKS = {"cpu": 64}, 8


class Winners(NamedTuple):
    """What a comparison of R row classes and C column classes finds.

    n is the number of limits, or 1.

    Attributes:
        score: shape (R, n, C), with gradients.
        row: shape (R, n, C), int64, the row class's point; -1 where none may win.
        column: shape (R, n, C), int64, the column class's point.
    """

    score: Tensor
    row: Tensor
    column: Tensor

    def transposed(self) -> Winners:
        """The same comparison with rows and columns exchanged, where n is 1."""
        score, row, column = (x.transpose(0, 2) for x in self)
        return Winners(score, column, row)


def compare_groups(
    rows: AnyPoints,
    columns: AnyPoints,
    distance: Distance,
    hardness: Hardness | Rule,
    limits: Tensor | None = None,
    same: bool = False,
    with_score: bool = True,
) -> Winners:
    """H(u, v) of every row class u and column class v.

    Args:
        rows: of R classes.
        columns: of C classes, of the same kind.
        distance: of made points; weighted points are compared by their dot products.
        hardness: as the losses take it.
        limits: shape (R, n), the scores of each row class's positive pairs, if the choice
            depends on them.
        same: whether columns are the rows, and their scores symmetric.
        with_score: whether scores are wanted; else they are meaningless.
    """
    (R, _), (C, _), device = rows.shape, columns.shape, rows.synthetic.device
    n = 1 if limits is None else limits.shape[1]
    if 0 in (R, n, C):
        place = torch.zeros(R, n, C, dtype=torch.int64, device=device)
        return Winners(place.float(), place, place)
    kept = rows.num_members * columns.num_members * n * C
    step = max(1, min(R, _MOST_KEPT // max(1, kept)))
    recompute = step < R and with_score and _may_recompute()
    if same and device.type in _HALVED:
        step = min(step, max(_HALVED[device.type], -(-R // _BLOCKS)))
    if step >= R:
        return _compare(rows.table(columns, distance), hardness, limits, with_score)
    blocks = []
    for start in range(0, R, step):
        first = start if same else 0
        part, others = rows.classes(start, start + step), columns.classes(first, C)
        some = None if limits is None else limits[start : start + step]
        if recompute:
            found = _recomputed(part, others, distance, hardness, some)
        else:
            found = _compare(part.table(others, distance), hardness, some, with_score)
        blocks.append([pad(x, (first, 0)) for x in found])
    whole = Winners(*map(torch.cat, zip(*blocks, strict=True)))
    if not same:
        return whole
    block = torch.arange(R, device=device) // step
    below = (block.unsqueeze(1) > block).unsqueeze(1)
    both = zip(whole.transposed(), whole, strict=True)
    return Winners(*(torch.where(below, x, y) for x, y in both))


def _compare(
    table: Table, hardness: Hardness | Rule, limits: Tensor | None, with_score: bool
) -> Winners:
    row, column = _search(table, hardness, limits)
    if not with_score:
        return Winners(row, row, column)
    some = row if limits is None else row.clamp_min(0)
    return Winners(_winners(table, some, column), row, column)


def _winners(table: Table, row: Tensor, column: Tensor) -> Tensor:
    """The winners' scores, shape (R, n, C); of some limits at a time if they are many."""
    (R, n, C), kept = row.shape, table.rows.num_members * table.columns.num_members
    some = max(1, _MOST_KEPT // (kept * R * C))
    if n <= some:
        return table.winners(row, column)
    compute = table.winners
    if _may_recompute():
        compute = partial(_again, table.winners)
    parts = zip(row.split(some, dim=1), column.split(some, dim=1), strict=True)
    return torch.cat([compute(*part) for part in parts], dim=1)


# Computed again in the backward pass, instead of being kept.
_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def _may_recompute() -> bool:
    # torch.func does not take what checkpoint does.
    is_func = torch._C._functorch.maybe_current_level() is not None
    return torch.is_grad_enabled() and not is_func


def _recomputed(
    rows: AnyPoints,
    columns: AnyPoints,
    distance: Distance,
    hardness: Hardness | Rule,
    limits: Tensor | None,
) -> Winners:
    """As _compare; the backward pass computes the scores again, instead of keeping them."""
    found: tuple[Tensor, Tensor] | None = None

    def score() -> Tensor:
        nonlocal found
        table = rows.table(columns, distance)
        if found is None:
            found = _search(table, hardness, limits)
        return _winners(table, found[0].clamp_min(0), found[1])

    scores = _again(score)
    assert found is not None
    return Winners(scores, *found)


@torch.no_grad()
def _search(
    table: Table, hardness: Hardness | Rule, limits: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The winner's row point and column point, of shape (R, n, C)."""
    (R, K), (C, L) = table.rows.shape, table.columns.shape
    row_synthetic = table.rows.synthetic[:, :, None, None]
    column_synthetic = table.columns.synthetic.t()
    device = column_synthetic.device.type
    room = _CANDIDATES.get(device, _MOST_CANDIDATES) // (L * C)
    step, some = max(1, min(R, room // K)), max(1, min(K, room))
    n = 1 if limits is None else limits.shape[1]
    # Made first: small results between large blocks would leave holes in the memory.
    whole = torch.empty(2, R, n, C, dtype=torch.int64, device=row_synthetic.device)
    for start in range(0, R, step):
        here, winner = slice(start, start + step), None
        candidates = table.candidates(here)
        for first in range(0, K, some):
            points = slice(first, first + some)
            now = best(
                *(candidates(points), row_synthetic[here, points], column_synthetic),
                *(hardness, None if limits is None else limits[here]),
            )
            now = Best(now.priority, now.place + first * L) if first else now
            winner = now if winner is None else better(winner, now, hardness)
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
