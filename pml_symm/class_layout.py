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

    def positive_pairs(self, both_ways: bool = True) -> tuple[Tensor, Tensor]:
        """Anchors and positives, shape (P,) each, of every pair of a class's rows.

        Args:
            both_ways: (i, j) and (j, i); else only the one that comes first in the batch.
        """
        choose = permutations if both_ways else combinations
        anchors, positives = [self.class_of[:0]], [self.class_of[:0]]
        for group in self.groups:
            for i, j in choose(range(len(group)), 2):
                anchors.append(group[i])
                positives.append(group[j])
        return torch.cat(anchors), torch.cat(positives)

    def first_pairs(self) -> tuple[Tensor, Tensor]:
        """Anchors and positives, the first two rows of every class that has two.

        They are the pairs that PML's convert_to_pos_pairs_with_unique_labels chooses.
        """
        pairs = [group[:2] for group in self.groups if len(group) > 1]
        anchors, positives = torch.cat([self.class_of.new_empty(2, 0), *pairs], dim=1)
        return anchors, positives


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
    # An empty batch has one group, of no classes.
    group_sizes = torch.unique(sizes).tolist() or [1]
    if len(group_sizes) == 1:
        # Balanced, the usual case: nothing to pick and choose.
        groups = [order.view(len(classes), group_sizes[0]).t()]
        numbers = torch.arange(len(classes), device=labels.device)
    else:
        groups, numbers = _by_size(order, sizes, group_sizes)
    class_of = torch.empty_like(order)
    class_of[order] = numbers.repeat_interleave(sizes)
    in_order = torch.empty_like(classes)
    in_order[numbers] = classes
    return ClassLayout(tuple(groups), class_of, in_order)


def _by_size(
    order: Tensor, sizes: Tensor, group_sizes: list[int]
) -> tuple[list[Tensor], Tensor]:
    """The groups, and the number of each class.

    Args:
        order: shape (B,), the rows class by class.
        sizes: shape (C,), of the classes.
        group_sizes: the different sizes.
    """
    starts = sizes.cumsum(0) - sizes
    numbers = torch.empty_like(starts)
    groups: list[Tensor] = []
    first = 0
    for size in group_sizes:
        chosen = (sizes == size).nonzero().squeeze(1)
        offsets = torch.arange(size, device=order.device).unsqueeze(1)
        groups.append(order[starts[chosen] + offsets])
        numbers[chosen] = torch.arange(first, first + len(chosen), device=order.device)
        first += len(chosen)
    return groups, numbers
