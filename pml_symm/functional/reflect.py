"""The mirror image of a point in the line through the origin and another point."""

from __future__ import annotations

import torch
from torch import Tensor

from ..validation import check_kind, check_positive
from .precision import at_least_float32


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
    check_positive(alpha=alpha, beta=beta)
    for name, value in (("source", source), ("axis", axis)):
        check_kind(name, value, Tensor)
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
