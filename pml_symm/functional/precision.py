"""Half precision is computed in float32, and what is not finite reaches the result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32, and leave others unchanged.

    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_one_precision(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Embeddings and a reference, if any, in float32 or better, and in the same dtype.

    >>> both = in_one_precision(torch.zeros(1), torch.zeros(1, dtype=torch.float64))
    >>> {points.dtype for points in both}
    {torch.float64}
    """
    x = at_least_float32(x)
    if y is None:
        return x, None
    y = at_least_float32(y)
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def finite_or_nan(loss: Any, *inputs: Tensor | None) -> Any:
    """The loss if all inputs are finite, else NaN, without waiting for the device.

    A loss that is not a tensor, because it has not been reduced, stays unchanged.

    A reducer that averages the terms above zero drops NaN terms, and would return a
    finite loss for broken embeddings. NaN is multiplied, not added, so that it reaches
    the gradients too, where torch.amp.GradScaler looks for it.

    >>> finite_or_nan(torch.ones(()), torch.zeros(2), torch.tensor([torch.inf]))
    tensor(nan)
    """
    if not isinstance(loss, Tensor):
        return loss
    for x in inputs:
        if x is not None and x.numel() > 0:
            # Zero, or NaN if anything in x is not finite.
            nothing = (x.detach() * 0).sum()
            loss = torch.addcmul(loss, loss, nothing)
    return loss
