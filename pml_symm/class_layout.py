"""ClassLayout: which rows of a batch belong to which class."""

from __future__ import annotations

from itertools import combinations, permutations
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

    def positive_pairs(self, both_ways: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Every pair of a class's rows.

        Args:
            both_ways: (i, j) and (j, i); else only the one that comes first in the batch.

        Returns:
            anchors, positives: shape (P,), rows of the batch.
            numbers: shape (P,), of their classes.
        """
        anchors, positives, numbers = [], [], []
        first = 0
        for group in self.groups:
            number = torch.arange(first, first + group.shape[1], device=group.device)
            first += group.shape[1]
            choose = permutations if both_ways else combinations
            for i, j in choose(range(len(group)), 2):
                anchors.append(group[i])
                positives.append(group[j])
                numbers.append(number)
        if not anchors:
            return (self.class_of[:0],) * 3
        return torch.cat(anchors), torch.cat(positives), torch.cat(numbers)


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
    group_sizes = torch.unique(sizes).tolist()
    if len(group_sizes) == 1:
        numbers = torch.arange(len(classes), device=labels.device)
        groups = [order.view(len(classes), -1).t()]
    else:
        starts = sizes.cumsum(0) - sizes
        numbers = torch.empty_like(starts)
        groups = []
        first = 0
        for size in group_sizes:
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
