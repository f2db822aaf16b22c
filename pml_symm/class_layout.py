"""ClassLayout: which rows of a batch belong to which class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassLayout(NamedTuple):
    """The rows of a batch class by class, in groups of classes of equal size.

    Classes are numbered group after group, within a group by their labels.

    Attributes:
        groups: for each group, shape (m, C_g), int64: column u holds the rows of the
            group's class u, in batch order.
        class_of: shape (B,), int64: the number of each row's class.
        labels: shape (C,), the label of each class.
    """

    groups: tuple[Tensor, ...]
    class_of: Tensor
    labels: Tensor


def class_layout(labels: Tensor) -> ClassLayout:
    """Group the rows of a batch by class, and the classes by size.

    Args:
        labels: shape (B,).

    >>> import torch
    >>> from pml_symm.class_layout import class_layout
    >>> class_layout(torch.tensor([7, 5, 7, 9, 5])).groups
    (tensor([[3]]), tensor([[1, 0],
            [4, 2]]))
    """
    ordered, order = torch.sort(labels, stable=True)
    classes, sizes = torch.unique_consecutive(ordered, return_counts=True)
    starts = sizes.cumsum(0) - sizes
    groups = []
    numbers = torch.empty_like(starts)
    first = 0
    for size in torch.unique(sizes).tolist():
        chosen = (sizes == size).nonzero().squeeze(1)
        offsets = torch.arange(size, device=labels.device).unsqueeze(1)
        groups.append(order[starts[chosen] + offsets])
        numbers[chosen] = torch.arange(first, first + len(chosen), device=labels.device)
        first += len(chosen)
    class_of = torch.empty_like(order)
    class_of[order] = numbers.repeat_interleave(sizes)
    in_order = torch.empty_like(classes)
    in_order[numbers] = classes
    return ClassLayout(tuple(groups), class_of, in_order)
