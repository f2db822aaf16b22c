"""The algebra on plain tensors: the mirror image, and the hardest pair of two classes.

Nothing here depends on pytorch-metric-learning.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .validation import Hardness, check_alpha_beta, check_hardness


def reflect(source: Tensor, axis: Tensor, alpha: float = 2.0, beta: float = 1.0) -> Tensor:
    """Mirror each source in the line through the origin and its axis.

    ``x' = beta * (alpha * r - source)``, where ``r`` is the projection of the source
    on the axis. With the defaults this is the symmetry: norm, similarity to the axis
    and distance to the axis are those of the source. The projection on an axis of length
    zero is zero, with finite gradients. On an axis shorter than the square root of the
    smallest normal number, the projection gradually shrinks to zero.

    Half-precision inputs are computed in float32 and rounded once, at the end.

    Args:
        source: shape (..., D), floating.
        axis: shape (..., D), floating; the leading dimensions broadcast.
        alpha: similarity ratio, positive; the paper's ablation uses 1.5, 2.0, 2.5.
        beta: norm ratio, positive; the paper's ablation uses 0.5, 1.0, 1.5.

    Returns:
        The synthetic points, shape (..., D), in the inputs' dtype.

    Raises:
        ValueError: the last dimensions differ, or alpha or beta is out of range.
        TypeError: an input is not a floating-point tensor.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Synthesis".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import reflect
        >>> reflect(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([1., 0.])
    """
    check_alpha_beta(alpha, beta)
    for name, value in (("source", source), ("axis", axis)):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating, got {value.dtype}")
    if source.shape[-1:] != axis.shape[-1:]:
        raise ValueError(
            "source and axis must have the same embedding size, got shapes "
            f"{tuple(source.shape)} and {tuple(axis.shape)}"
        )
    dtype = torch.promote_types(source.dtype, axis.dtype)
    source, axis = at_least_float32(source), at_least_float32(axis)
    # The projection does not depend on the axis's length, so divide the axis by a
    # constant: the squares of huge and tiny axes then neither overflow nor underflow.
    floor = torch.finfo(axis.dtype).tiny ** 0.5
    unit = axis / axis.detach().abs().amax(-1, keepdim=True).clamp_min(floor)
    squared_norm = (unit * unit).sum(-1, keepdim=True).clamp_min(1)
    coefficient = (source * unit).sum(-1, keepdim=True) / squared_norm
    projection = coefficient * unit
    # In this order no intermediate value is longer than both the source and the result.
    return (beta * ((alpha - 1) * projection + (projection - source))).to(dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32, and leave others unchanged.

    Examples:
        >>> import torch
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def finite_or_nan(loss: Any, *inputs: Tensor | None) -> Any:
    """The loss if all inputs are finite, else NaN, without waiting for the device.

    A loss that is not a tensor, because it has not been reduced, stays unchanged.

    A reducer that averages the terms above zero drops NaN terms, and would return a
    finite loss for broken embeddings. NaN is multiplied, not added, so that it reaches
    the gradients too, where torch.amp.GradScaler looks for it.

    Examples:
        >>> import torch
        >>> finite_or_nan(torch.ones(()), torch.zeros(2), torch.tensor([torch.inf]))
        tensor(nan)
    """
    if not isinstance(loss, Tensor):
        return loss
    factor: Tensor | float = 1.0
    for x in inputs:
        if x is not None and x.numel() > 0:
            smallest, largest = torch.aminmax(x.detach())
            factor = factor + smallest * 0 + largest * 0
    return loss * factor


class ClassPairs(NamedTuple):
    """The selected pair of points for every row class and column class.

    Attributes:
        similarity: shape (R, C), the selected similarity; gradients flow through it.
            Undefined where found is False.
        row: shape (R, C), int64, the row of the selected pair.
        column: shape (R, C), int64, its column.
        found: shape (R, C), bool, whether there is a pair to select.
    """

    similarity: Tensor
    row: Tensor
    column: Tensor
    found: Tensor


def class_pair_hardness(
    similarity: Tensor,
    row_classes: Tensor,
    column_classes: Tensor,
    num_classes: tuple[int, int],
    hardness: Hardness = "hardest",
    positive_classes: Tensor | None = None,
    positive_similarity: Tensor | None = None,
) -> ClassPairs:
    """H(u, v): the hardest pair of points between row class u and column class v.

    The search runs without autograd; the gradient goes only to the selected entry of
    ``similarity``. Of equal candidates, the first in row-major order is selected.

    Args:
        similarity: shape (N, M), floating; larger is harder (negate a distance).
        row_classes: shape (N,), int64 in [0, num_classes[0]).
        column_classes: shape (M,), int64 in [0, num_classes[1]).
        num_classes: (R, C), how many row and column classes there are.
        hardness: "hardest"; an int k for the k-th hardest candidate, or the easiest
            where there are fewer than k; "semihard" for the hardest candidate less
            similar than the positive pair it competes with, if there is one.
        positive_classes: shape (P,), int64, "semihard" only: the row class of each
            positive pair. The result then has one row for each positive pair.
        positive_similarity: shape (P,), "semihard" only: their similarities.

    Returns:
        ClassPairs of shape (R, C), or (P, C) for "semihard".

    Raises:
        ValueError: shapes do not match, or hardness is unknown.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Hardness".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import class_pair_hardness
        >>> similarity = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.4, 0.8]])
        >>> one_class, two_classes = torch.tensor([0, 0]), torch.tensor([0, 0, 1])
        >>> class_pair_hardness(similarity, one_class, two_classes, (1, 2)).similarity
        tensor([[0.9000, 0.8000]])
        >>> class_pair_hardness(similarity, one_class, two_classes, (1, 2), 2).similarity
        tensor([[0.4000, 0.3000]])
    """
    check_hardness(hardness)
    expected = (row_classes.shape[0], column_classes.shape[0])
    if tuple(similarity.shape) != expected:
        raise ValueError(
            f"similarity must have shape {expected}, one entry for each row class and "
            f"column class given, got {tuple(similarity.shape)}"
        )
    num_rows, num_columns = num_classes
    segments = (row_classes.unsqueeze(1) * num_columns + column_classes).flatten()
    # A NaN counts as the hardest, so that it is selected and reaches the result.
    values = similarity.detach().flatten()
    values = values.nan_to_num(torch.inf, torch.inf, -torch.inf)
    if hardness == "semihard":
        if positive_classes is None or positive_similarity is None:
            raise ValueError(
                'hardness="semihard" needs positive_classes and positive_similarity'
            )
        columns = torch.arange(num_columns, device=similarity.device)
        queries = positive_classes.unsqueeze(1) * num_columns + columns
        winner, found = _first_below(
            values,
            segments,
            num_rows * num_columns,
            queries,
            positive_similarity.detach().unsqueeze(1),
        )
    elif hardness == "hardest":
        winner, found = _largest(values, segments, num_rows * num_columns)
    else:
        winner, found = _kth_largest(
            values, segments, num_rows * num_columns, int(hardness)
        )
    if hardness != "semihard":
        winner = winner.view(num_rows, num_columns)
        found = found.view(num_rows, num_columns)
    if values.numel() == 0:
        return ClassPairs(similarity.new_zeros(winner.shape), winner, winner, found)
    row = torch.div(winner, similarity.shape[1], rounding_mode="floor")
    column = winner - row * similarity.shape[1]
    return ClassPairs(similarity[row, column], row, column, found)


def _largest(values: Tensor, segments: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    # scatter_reduce is ten times as fast as sorting.
    best = values.new_full((num_segments,), -torch.inf)
    best = best.scatter_reduce(0, segments, values, "amax")
    position = torch.arange(len(values), device=values.device)
    position = torch.where(values == best[segments], position, len(values))
    winner = position.new_full((num_segments,), len(values))
    winner = winner.scatter_reduce(0, segments, position, "amin")
    return winner.clamp_max(len(values) - 1), winner < len(values)


def _sorted_segments(
    values: Tensor, segments: Tensor, num_segments: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions by segment, the largest value first; starts and sizes of the segments."""
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.argsort(segments[order], stable=True)]
    sizes = torch.bincount(segments, minlength=num_segments)
    return order, sizes.cumsum(0) - sizes, sizes


def _kth_largest(
    values: Tensor, segments: Tensor, num_segments: int, k: int
) -> tuple[Tensor, Tensor]:
    order, starts, sizes = _sorted_segments(values, segments, num_segments)
    found = sizes > 0
    position = starts + sizes.clamp_max(k) - 1
    return _take(order, position), found


def _first_below(
    values: Tensor,
    segments: Tensor,
    num_segments: int,
    queries: Tensor,
    thresholds: Tensor,
) -> tuple[Tensor, Tensor]:
    """The largest value of segment queries[...] below thresholds[...]."""
    order, starts, sizes = _sorted_segments(values, segments, num_segments)
    low, end = starts[queries], (starts + sizes)[queries]
    high = end
    # Binary search, in all segments at once, for the first value below the threshold.
    for _ in range(len(values).bit_length()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        below = _take(values, _take(order, middle)) < thresholds
        searching = low < high
        high = torch.where(searching & below, middle, high)
        low = torch.where(searching & ~below, middle + 1, low)
    return _take(order, low), low < end


def _take(values: Tensor, index: Tensor) -> Tensor:
    """values[index]; an index may be out of range if the caller ignores its result."""
    if len(values) == 0:
        return torch.zeros_like(index)
    return values[index.clamp(0, len(values) - 1)]
