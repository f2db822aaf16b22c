"""The hardest pair of points of every two classes, and its gradient.

A point is a row of weights over its class's members, so the score of two points is a
combination of dot products of members. S_uv holds those of the classes u and v:

    score(k of u, l of v) = w_uk S_uv w_vl' + b_uk + b_vl
    H(u, v)               = the largest of these
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from .point_weights import Points

# The most candidates that a tile has at a time: this limits the memory. A GPU needs
# operators that large. On a CPU a tile should fit into the cache, but still have enough
# members for fast matrix products.
_MOST_CANDIDATES = 1 << 24
_CANDIDATES = {"cpu": 1 << 18}
_MEMBERS = {"cpu": 128}


class HardestPair(NamedTuple):
    """What a search finds for R row classes and C column classes.

    Attributes:
        score: shape (R, C), floating, with gradients; minus infinity where the ceiling
            leaves no candidate.
        selected: shape (2, R, C), integer: the selected points of row and column class.
    """

    score: Tensor
    selected: Tensor


class _Side(NamedTuple):
    """The fields of Points that have derivatives."""

    members: Any
    weights: Any
    bias: Any


class _Search(NamedTuple):
    """The arguments of a search that are not tensors.

    Attributes:
        same_members: whether rows and columns are points of the same classes.
        symmetric: whether they are the same points, too.
        rank: which candidate is selected, 1 for the hardest.
        steps: how many row classes and column classes a tile has.
        keep_products: whether to keep the dot products of members for the gradient.
    """

    same_members: bool
    symmetric: bool
    rank: int
    steps: tuple[int, int]
    keep_products: bool


def hardest_pair(
    rows: Points, columns: Points, rank: int = 1, ceiling: Tensor | None = None
) -> HardestPair:
    """H(u, v) of every row class u and column class v.

    Args:
        rows: of R classes.
        columns: of C classes, as class_points gives them. If they are the rows, without a
            ceiling, H is symmetric, and its diagonal undefined.
        rank: which candidate to select, 1 for the hardest; the easiest where there are
            fewer.
        ceiling: shape (R,): only candidates of a smaller score compete.
    """
    size = len(rows.members), len(columns.members)
    if 0 in size:
        score = rows.weights.new_zeros(size)
        return HardestPair(
            score, torch.zeros_like(score, dtype=torch.uint8).expand(2, *size)
        )
    if torch.compiler.is_compiling():
        return twin(rows, columns, rank, ceiling)
    same_members = rows.members is columns.members
    symmetric = same_members and rows.weights is columns.weights and ceiling is None
    tensors = [
        *rows[:3],
        None if same_members else columns.members,
        *((None, None) if symmetric else columns[1:3]),
    ]
    needs_gradient = any(x is not None and x.requires_grad for x in tensors)
    search = _Search(
        same_members,
        symmetric,
        rank,
        _steps(rows, columns, same_members),
        needs_gradient and torch.is_grad_enabled(),
    )
    constants = columns.axis, columns.two_weights, ceiling
    return HardestPair(*_HardestPair.apply(search, constants, *tensors)[:2])


def twin(
    rows: Points | _Side,
    columns: Points | _Side,
    rank: int = 1,
    ceiling: Tensor | None = None,
) -> HardestPair:
    """The same as hardest_pair, by autograd through all candidates."""
    products = torch.einsum("uid,vjd->uijv", rows.members, columns.members)
    scores = torch.einsum("uki,uijv,vlj->uklv", rows.weights, products, columns.weights)
    if rows.bias is not None:
        scores = scores + rows.bias[:, :, None, None]
    if columns.bias is not None:
        scores = scores + columns.bias.t()
    if ceiling is not None:
        scores = scores.masked_fill(scores >= ceiling[:, None, None, None], -torch.inf)
    num_columns = scores.shape[2]
    flat = scores.flatten(1, 2)
    score, place = flat.topk(min(rank, flat.shape[1]), dim=1)
    k = torch.div(place[:, -1], num_columns, rounding_mode="floor")
    return HardestPair(score[:, -1], torch.stack([k, place[:, -1] - k * num_columns]))


class _HardestPair(torch.autograd.Function):
    """Searches tile by tile, and sends the gradient through the selected pairs only.

    With G = dL/dH, and k and l the points that are selected for u and v:

        dL/dX_u  = sum_v G_uv w_uk' w_vl X_v       dL/dX_v  = sum_u G_uv w_vl' w_uk X_u
        dL/dw_uk = sum_v G_uv w_vl S_uv'           dL/dw_vl = sum_u G_uv w_uk S_uv
        dL/db_uk = sum_v G_uv                      dL/db_vl = sum_u G_uv

    A tile is r row classes with c column classes. Its tables have the members first and
    the column classes last, where operators are fast.
    """

    @staticmethod
    def forward(
        search: _Search,
        constants: tuple[Tensor, Tensor, Tensor | None],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        weights, bias, column_weights, column_bias = _weights(search, tensors)
        (R, K, m), (C, L, n) = weights.shape, column_weights.shape
        axis, (on_axis, on_source), ceiling = constants
        score = weights.new_zeros(R, C)
        selected = score.new_zeros(2, R, C, dtype=_smallest_dtype(max(K, L)))
        room = min(search.steps[0], R) * min(search.steps[1], C) * L
        at_a_time = min(K, max(1, _MOST_CANDIDATES // room))
        # New memory for every tile would cost more than its arithmetic.
        scratch = score.new_empty(room * (m + at_a_time))

        def search_tile(here: slice, there: slice, products: Tensor) -> None:
            """Fill in a tile, from the products of the members, of shape (m, r, n, c)."""
            r, c = products.shape[1], products.shape[3]
            # Scores of the rows' members with the columns' points ...
            products = products.reshape(m * r, n, c)
            points = scratch[: m * r * L * c].view(m * r, L, c)
            torch.index_select(products, 1, axis, out=points)
            synthetic = points.view(m * r, L // n, n, c)[:, 1:]
            synthetic *= on_axis[..., there]
            synthetic.addcmul_(products.unsqueeze(1), on_source[..., there])
            points = points.view(m, r, L * c).transpose(0, 1)
            # ... and of the rows' points with them.
            found = None
            for first in range(0, K, at_a_time):
                some = slice(first, first + at_a_time)
                own = weights[here, some]
                candidates = scratch[-r * own.shape[1] * L * c :].view(r, -1, L * c)
                torch.bmm(own, points, out=candidates)
                candidates = candidates.view(r, -1, L, c)
                if bias is not None:
                    candidates += bias[here, some, None, None]
                if column_bias is not None:
                    candidates += column_bias[there].t()
                if ceiling is not None:
                    above = candidates >= ceiling[here, None, None, None]
                    candidates.masked_fill_(above, -torch.inf)
                value, place = _largest(candidates, search.rank)
                if found is not None:
                    value, place = _largest_of_both(
                        found, (value, place + first * L), search.rank
                    )
                found = value, place
            value, place = value[:, -1], place[:, -1].to(_smallest_dtype(K * L))
            k = torch.div(place, L, rounding_mode="floor")
            l = place - k * L
            if search.symmetric and here == there:
                # (u, v) and (v, u) select the same pair, also of equal candidates.
                upper = torch.ones_like(k, dtype=torch.bool).triu_()
                k, l = torch.where(upper, k, l.t()), torch.where(upper, l, k.t())
            score[here, there] = value
            selected[0, here, there], selected[1, here, there] = k, l
            if search.symmetric and here != there:
                score[there, here] = value.t()
                selected[0, there, here], selected[1, there, here] = l.t(), k.t()

        kept = []
        for (here, own), (there, theirs) in _tiles(search, tensors):
            products = (own @ theirs.t()).view(m, -1, n, there.stop - there.start)
            search_tile(here, there, products)
            if search.same_members and not search.symmetric and here != there:
                search_tile(there, here, products.permute(2, 3, 0, 1))
            if search.keep_products:
                kept.append(products)
        return score, selected, *kept

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]
    ) -> None:
        ctx.search, (*_, ctx.ceiling), *tensors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        search: _Search = ctx.search
        tensors, (selected, *kept) = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
        if torch.is_grad_enabled():  # this derivative will have derivatives
            return None, None, *_through_twin(search, ctx.ceiling, tensors, gradient)
        if search.symmetric:
            gradient = (gradient + gradient.t()).fill_diagonal_(0)
        weights, bias, column_weights, column_bias = _weights(search, tensors)
        (R, K, m), (C, L, n) = weights.shape, column_weights.shape
        to_weights = weights.new_zeros(m, R, K)
        to_column_weights = weights.new_zeros(n, L, C)
        to_bias = None if bias is None else torch.zeros_like(bias)
        to_column_bias = None if column_bias is None else torch.zeros_like(column_bias)

        def send(here: slice, there: slice, products: Tensor) -> Tensor:
            """Add a tile's gradients to those of the weights; returns its products'."""
            through = gradient[here, there]
            k, l = selected[:, here, there].long()
            w_k = weights[here].permute(2, 0, 1).gather(2, k.expand(m, -1, -1))
            w_k = w_k.unsqueeze(2)
            w_l = column_weights[there].permute(2, 1, 0).expand(len(l), -1, -1, -1)
            w_l = w_l.gather(2, l[:, None, None].expand(-1, n, -1, -1)).squeeze(2)
            w_l *= through.unsqueeze(1)
            to_w_k = (products * w_l).sum(2)
            to_weights[:, here].scatter_add_(2, k.expand(m, -1, -1), to_w_k)
            if to_bias is not None:
                to_bias[here].scatter_add_(1, k, through)
            if not (search.symmetric and here == there):  # which has both ends as rows
                to_w_l = (products * w_k).sum(0).transpose(0, 1) * through
                to_column_weights[..., there].scatter_add_(1, l.expand(n, -1, -1), to_w_l)
                if to_column_bias is not None:
                    to_column_bias[there].scatter_add_(1, l.t(), through.t())
            return w_k * w_l

        tiles = _tiles(search, tensors)
        to_rows = to_columns = _zeros(tensors[0], search.steps[0])
        if not search.same_members:
            to_columns = _zeros(tensors[3], search.steps[1])
        for ((here, own), (there, theirs)), products in zip(tiles, kept, strict=True):
            to_products = send(here, there, products).view(len(own), len(theirs))
            if search.same_members and not search.symmetric:
                if here == there:
                    to_products = to_products + to_products.t()
                else:
                    turned = send(there, here, products.permute(2, 3, 0, 1))
                    to_products += turned.reshape(len(theirs), len(own)).t()
            to_rows[here.start].addmm_(to_products, theirs)
            if not (search.same_members and here == there):
                to_columns[there.start].addmm_(to_products.t(), own)
        to_members = _by_class(to_rows, m)
        to_column_members = None if search.same_members else _by_class(to_columns, n)
        to_weights = to_weights.permute(1, 2, 0)
        to_column_weights = to_column_weights.permute(2, 1, 0)
        if search.symmetric:
            to_weights = to_weights + to_column_weights
            if to_bias is not None and to_column_bias is not None:
                to_bias = to_bias + to_column_bias
            return None, None, to_members, to_weights, to_bias, None, None, None
        return (
            *(None, None, to_members, to_weights, to_bias),
            *(to_column_members, to_column_weights, to_column_bias),
        )


def _weights(search: _Search, tensors: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Weights and biases, of rows and of columns."""
    _, weights, bias, _, column_weights, column_bias = tensors
    if search.symmetric:
        return weights, bias, weights, bias
    return weights, bias, column_weights, column_bias


def _through_twin(
    search: _Search,
    ceiling: Tensor | None,
    tensors: Sequence[Any],
    gradient: Tensor,
) -> list[Tensor | None]:
    """The derivatives by autograd, which can differentiate them again."""
    given = [x is not None for x in tensors]

    def scores(*some: Tensor) -> Tensor:
        rest = iter(some)
        whole = [next(rest) if there else None for there in given]
        weights, bias, column_weights, column_bias = _weights(search, whole)
        rows = _Side(whole[0], weights, bias)
        columns = _Side(
            rows.members if search.same_members else whole[3], column_weights, column_bias
        )
        return twin(rows, columns, search.rank, ceiling).score

    if search.symmetric:
        gradient = gradient - gradient.diagonal().diag()
    derivatives = torch.func.vjp(scores, *(x for x in tensors if x is not None))[1]
    found = iter(derivatives(gradient))
    return [next(found) if there else None for there in given]


def _steps(rows: Points, columns: Points, same_members: bool) -> tuple[int, int]:
    """How many row classes and column classes a tile has."""
    device = rows.members.device.type
    of_tile = _CANDIDATES.get(device, _MOST_CANDIDATES)
    candidates = rows.weights.shape[1] * columns.weights.shape[1]
    members = max(rows.weights.shape[2], columns.weights.shape[2])
    side = max(isqrt(of_tile // candidates), _MEMBERS.get(device, 0) // members)
    side = max(1, min(side, isqrt(_MOST_CANDIDATES // candidates)))
    if same_members:
        return side, side
    num_columns = min(side, len(columns.members))
    return max(side, of_tile // (candidates * num_columns)), num_columns


_Part = tuple[slice, Tensor]


def _tiles(search: _Search, tensors: Sequence[Any]) -> list[tuple[_Part, _Part]]:
    """Row classes and column classes, each with its members."""
    rows = _parts(tensors[0], search.steps[0])
    if not search.same_members:
        columns = _parts(tensors[3], search.steps[1])
        return [(row, column) for row in rows for column in columns]
    tiles = [(row, column) for i, row in enumerate(rows) for column in rows[i:]]
    if not search.symmetric:
        return tiles
    # A class that is alone in its tile has nothing to be compared with.
    return [
        (row, column)
        for row, column in tiles
        if row is not column or row[0].stop - row[0].start > 1
    ]


def _parts(members: Tensor, step: int) -> list[_Part]:
    """Classes side by side; of their members first all that are number 0."""
    parts = []
    for start in range(0, len(members), step):
        classes = slice(start, min(start + step, len(members)))
        parts.append((classes, members[classes].transpose(0, 1).flatten(0, 1)))
    return parts


def _zeros(members: Tensor, step: int) -> dict[int, Tensor]:
    """Zeros for the gradients of each part's members, by the part's first class."""
    size, m, D = members.shape
    return {
        start: members.new_zeros(m * min(step, size - start), D)
        for start in range(0, size, step)
    }


def _by_class(parts: dict[int, Tensor], num_members: int) -> Tensor:
    """Shape (C, m, D), of all parts."""
    whole = [x.view(num_members, -1, x.shape[1]) for x in parts.values()]
    return torch.cat(whole, dim=1).transpose(0, 1)


def _largest(candidates: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The largest of shape (r, k, l, c), and their places, each of shape (r, rank, c)."""
    flat = candidates.flatten(1, 2)
    if rank > 1:
        return flat.topk(min(rank, flat.shape[1]), dim=1)
    if flat.device.type != "cpu":
        return flat.max(dim=1, keepdim=True)
    # On a CPU ten times as fast as max over a dimension that is not the last.
    value, place = max_pool2d(
        candidates.permute(0, 3, 1, 2), candidates.shape[1:3], return_indices=True
    )
    size = len(candidates), 1, -1
    return value.view(size), place.view(size)


def _largest_of_both(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], rank: int
) -> tuple[Tensor, Tensor]:
    value, place = (torch.cat(x, dim=1) for x in zip(first, second, strict=True))
    value, order = value.topk(min(rank, value.shape[1]), dim=1)
    return value, place.gather(1, order)


def _smallest_dtype(count: int) -> torch.dtype:
    """The smallest integers that hold a count, with which they are compared, too."""
    if count < 1 << 8:
        return torch.uint8
    return torch.int32 if count < 1 << 31 else torch.int64
