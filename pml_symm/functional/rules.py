"""Which candidates of two classes may win, and which one does.

A rule is a function of the candidates that gives each its priority. The largest wins;
minus infinity and NaN never do. It is asked without gradients, in blocks, once for every
positive pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


class Candidates(NamedTuple):
    """Pairs of points of r row classes and c column classes.

    Attributes:
        score: shape (r, K, L, c), the similarity of point k of the row class and point l
            of the column class, or their negated distance: larger is nearer, and so
            harder. For the angular loss, (X + Y).z.
        row_synthetic: bool, which row points are synthetic; broadcasts with score.
        column_synthetic: bool, which column points are synthetic; broadcasts with score.
        positive: the score of the positive pair that the row class competes with, or
            what equals it for the angular loss; broadcasts with score.
    """

    score: Tensor
    row_synthetic: Tensor
    column_synthetic: Tensor
    positive: Tensor


Rule = Callable[[Candidates], Tensor]
"""Priorities of the candidates, of the shape of their scores."""

Hardness = Literal["hardest", "semihard"] | int | Rule
"""What the losses and the miner take; an int is a rank."""


def semihard(candidates: Candidates) -> Tensor:
    """The rule "semihard": the hardest that is farther apart than the positive pair."""
    score = candidates.score
    return score.masked_fill(score >= candidates.positive, -torch.inf)


# With more pairs in a class, "semihard" sorts the candidates once, instead of asking the
# rule for each pair: for two classes of 64, a hundred times as fast.
_PAIRS_IN_TURN = 8


class Best(NamedTuple):
    """The winners of a block, shape (r, n, c) each.

    n is the number of limits, or else the rank, the last being the selected one.
    """

    priority: Tensor  # minus infinity where there is none
    place: Tensor  # int64, k * L + l


def best(
    score: Tensor,
    row_synthetic: Tensor,
    column_synthetic: Tensor,
    rule: int | Rule,
    limits: Tensor | None,
) -> Best:
    """Select among the candidates of a block; limits are positive pairs' scores, (r, n)."""
    if limits is None or not callable(rule):
        return _largest(score, rule)  # type: ignore[arg-type]
    if rule is semihard and limits.shape[1] > _PAIRS_IN_TURN:
        return _largest_below(score, limits)
    in_turn = []
    for limit in limits.unbind(1):
        positive = limit.view(-1, 1, 1, 1)
        candidates = Candidates(score, row_synthetic, column_synthetic, positive)
        in_turn.append(_largest(rule(candidates), rank=1))
    return Best(*(torch.cat(x, dim=1) for x in zip(*in_turn, strict=True)))


def checked_priority(priority: Tensor, shape: torch.Size) -> Tensor:
    """The priorities that a user's rule returns; NaN does not win."""
    if not isinstance(priority, Tensor):
        found = type(priority).__name__
    elif priority.shape == shape and priority.is_floating_point():
        return priority.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    else:
        found = f"{priority.dtype} of shape {tuple(priority.shape)}"
    raise ValueError(
        "hardness must return a floating-point priority for each candidate, shape "
        f"{tuple(shape)}, got {found}"
    )


def better(first: Best, second: Best, rule: int | Rule) -> Best:
    """Merge the winners of two blocks of the same classes."""
    if rule == 1 or callable(rule):
        wins = second.priority > first.priority
        return Best(*(torch.where(wins, y, x) for x, y in zip(first, second, strict=True)))
    priority, place = (torch.cat(x, dim=1) for x in zip(first, second, strict=True))
    priority, order = priority.topk(min(rule, priority.shape[1]), dim=1)
    return Best(priority, place.gather(1, order))


def _largest(priority: Tensor, rank: int) -> Best:
    """The largest of shape (r, K, L, c), down to the rank, or as many as there are."""
    flat = priority.flatten(1, 2)
    if rank > 1:
        return Best(*flat.topk(min(rank, flat.shape[1]), dim=1))
    if flat.device.type != "cpu":
        return Best(*flat.max(dim=1, keepdim=True))
    # On a CPU ten times as fast as max over a dimension that is not the last.
    value, place = max_pool2d(
        priority.permute(0, 3, 1, 2), priority.shape[1:3], return_indices=True
    )
    size = len(flat), 1, -1
    return Best(value.view(size), place.view(size))


def _largest_below(score: Tensor, limits: Tensor) -> Best:
    """The largest of shape (r, K, L, c) below each of the limits, shape (r, n)."""
    score = score.nan_to_num(torch.inf, torch.inf, -torch.inf)  # NaN is not below anything
    score = score.flatten(1, 2).mT.contiguous()
    limits = limits.to(score.dtype).unsqueeze(1).expand(-1, score.shape[1], -1).contiguous()
    # Places count from the end: the last of equal scores is then the first that there is.
    if (keys := _sorted_keys(score)) is None:
        ordered, order = score.flip(2).sort(stable=True)
    else:
        ordered, order, limits = keys, keys, _upper_half(limits)
    number = torch.searchsorted(ordered, limits)  # of scores below each
    place = order.gather(2, number.sub(1).clamp_min_(0))
    place = score.shape[2] - 1 - (place if keys is None else place & 0xFFFFFFFF)
    priority = score.gather(2, place).masked_fill(number == 0, -torch.inf)
    return Best(priority.mT, place.mT)


def _sorted_keys(score: Tensor) -> Tensor | None:
    """Sorted integers: a score in the upper half, its place in the lower half.

    On a CPU, NumPy 2 sorts them six times as fast as torch sorts scores. None for another
    device or dtype, and for tensors that are no arrays, as within torch.func.
    """
    is_compiling = torch.compiler.is_compiling()
    if score.dtype != torch.float32 or score.device.type != "cpu" or is_compiling:
        return None
    places = torch.arange(score.shape[2] - 1, -1, -1, device=score.device)
    keys = _upper_half(score).add_(places)
    try:
        keys.numpy().sort()
    except RuntimeError:
        return None
    return keys


def _upper_half(x: Tensor) -> Tensor:
    """2^32 times integers in the order of float32 numbers."""
    bits = (x + 0.0).view(torch.int32)  # minus zero becomes zero
    # The bits of negative numbers count away from zero.
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits.long().bitwise_left_shift_(32)
