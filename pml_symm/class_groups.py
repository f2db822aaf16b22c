"""ClassLayout: which rows of a batch belong to which class."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, permutations
from typing import NamedTuple

import torch
from torch import Tensor


class ClassLayout(NamedTuple):
    """The rows of a batch class by class, in groups of classes of equal size.

    Classes are numbered group after group, within a group by their labels.

    Attributes:
        groups: for each group, shape (C_g, m), int64: row u holds the rows of the
            group's class u, in batch order.
        row_labels: shape (B,), the labels of the batch.
    """

    groups: tuple[Tensor, ...]
    row_labels: Tensor

    @property
    def labels(self) -> Tensor:
        """Shape (C,), the label of each class."""
        first = torch.cat([group[:, 0] for group in self.groups])
        return self.row_labels.index_select(0, first)

    @property
    def class_of(self) -> Tensor:
        """Shape (B,), int64: the number of each row's class."""
        class_of = torch.empty_like(self.row_labels, dtype=torch.long)
        first = 0
        for group in self.groups:
            numbers = torch.arange(first, first + len(group), device=group.device)
            class_of[group] = numbers.unsqueeze(1).expand_as(group)
            first += len(group)
        return class_of

    def positive_pairs(self, both_ways: bool = True) -> tuple[Tensor, Tensor]:
        """Anchors and positives, shape (P,) each, of every pair of a class's rows.

        Class after class, and within a class as member_pairs has them.

        Args:
            both_ways: (i, j) and (j, i); else only the one that comes first in the batch.
        """
        anchors, positives = [], []
        for group in self.groups:
            first, second = member_pairs(group.shape[1], both_ways, group.device)
            anchors.append(group.index_select(1, first).flatten())
            positives.append(group.index_select(1, second).flatten())
        return torch.cat(anchors), torch.cat(positives)

    def first_pairs(self) -> Tensor:
        """Shape (n, 2), int64: the first two rows of every class that has two.

        They are the pairs that PML's convert_to_pos_pairs_with_unique_labels chooses.
        """
        first = [group[:, :2] for group in self.groups if group.shape[1] > 1]
        if len(first) == 1:
            return first[0]
        return torch.cat([self.groups[0].new_empty(0, 2), *first])


@lru_cache
def member_pairs(
    num_members: int, both_ways: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """First and second, int64, of the pairs of a class's members."""
    choose = permutations if both_ways else combinations
    pairs = torch.tensor(list(choose(range(num_members), 2)), dtype=torch.long)
    first, second = pairs.view(-1, 2).t().contiguous().to(device)
    return first, second


@lru_cache
def one_way(num_members: int, device: torch.device) -> Tensor:
    """Which of the pairs both ways come first in the batch, int64."""
    pairs = enumerate(permutations(range(num_members), 2))
    first = [place for place, (i, j) in pairs if i < j]
    return torch.tensor(first, dtype=torch.long, device=device)


def other_classes(num_classes: int, device: torch.device) -> Tensor:
    """Shape (C, C - 1), int64: for every class the numbers of the others.

    >>> other_classes(3, torch.device("cpu"))
    tensor([[1, 2],
            [0, 2],
            [0, 1]])
    """
    other = torch.arange(max(num_classes - 1, 0), device=device)
    own = torch.arange(num_classes, device=device).unsqueeze(1)
    return other + (other >= own).long()


def class_layout(labels: Tensor) -> ClassLayout:
    """Group the rows of a batch by class, and the classes by size.

    Args:
        labels: shape (B,).

    >>> import torch
    >>> from pml_symm.class_layout import class_layout
    >>> class_layout(torch.tensor([7, 5, 7, 9, 5])).groups
    (tensor([[3]]), tensor([[1, 4],
            [0, 2]]))
    """
    ordered, order = torch.sort(labels, stable=True)
    if len(labels) == 0:
        # An empty batch has one group, of no classes.
        return ClassLayout((order.view(0, 1),), labels)
    changes = ordered[1:] != ordered[:-1]
    num_classes = int(changes.sum()) + 1
    size, rest = divmod(len(labels), num_classes)
    if rest == 0 and bool(changes[size - 1 :: size].all()):
        # Balanced, the usual case: nothing to pick and choose.
        return ClassLayout((order.view(num_classes, size),), labels)
    sizes = torch.unique_consecutive(ordered, return_counts=True)[1]
    starts = sizes.cumsum(0) - sizes
    groups = []
    for size in torch.unique(sizes).tolist():
        chosen = (sizes == size).nonzero()
        groups.append(order[starts[chosen] + torch.arange(size, device=order.device)])
    return ClassLayout(tuple(groups), labels)


def balanced_layout(labels: Tensor, samples_per_class: int) -> ClassLayout:
    """As class_layout, of a batch that is known to be balanced; never asks the device.

    Args:
        labels: shape (B,), each of them samples_per_class times.
        samples_per_class: m, which divides B.
    """
    order = torch.argsort(labels, stable=True)
    return ClassLayout((order.view(-1, samples_per_class),), labels)


def is_balanced(labels: Tensor, samples_per_class: int) -> Tensor:
    """Shape (), bool: whether each label is there samples_per_class times.

    >>> is_balanced(torch.tensor([4, 1, 1, 4]), 2)
    tensor(True)
    >>> is_balanced(torch.tensor([1, 1, 1, 1]), 2)
    tensor(False)
    """
    classes = torch.sort(labels).values.view(-1, samples_per_class)
    same = (classes == classes[:, :1]).all()
    return same & (classes[1:, 0] != classes[:-1, 0]).all()
