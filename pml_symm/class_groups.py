"""ClassGroups: which rows of a batch belong to which class, grouped by class size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .point_weights import count_points, source_and_axis


class ClassGroups(NamedTuple):
    """The rows of a batch class by class, in groups of classes of equal size.

    Classes are numbered group by group, and within a group in the order of their labels.
    The groups may hold only a part of the batch, such as first_pairs.

    Attributes:
        groups: for each group, shape (C_g, m), int64: row u holds the rows of the
            group's class u, in batch order.
        row_labels: shape (B,), the labels of the batch.
    """

    groups: tuple[Tensor, ...]
    row_labels: Tensor

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return sum(len(group) for group in self.groups)

    @property
    def are_pairs(self) -> bool:
        """Whether each class has two members, and so one positive pair."""
        return [group.shape[1] for group in self.groups] == [2]

    @property
    def labels(self) -> Tensor:
        """Shape (C,), the label of each class."""
        first = torch.cat([group[:, 0] for group in self.groups])
        return self.row_labels.index_select(0, first)

    @property
    def class_of(self) -> Tensor:
        """Shape (B,), int64: each row's class; undefined for rows in no group."""
        class_of = torch.empty_like(self.row_labels, dtype=torch.long)
        first = 0
        for group in self.groups:
            numbers = torch.arange(first, first + len(group), device=group.device)
            class_of[group] = numbers.unsqueeze(1).expand_as(group)
            first += len(group)
        return class_of

    def split(self, classes: Tensor) -> list[Tensor]:
        """Split sorted class numbers by group; in each group they count from 0."""
        if len(self.groups) == 1:
            return [classes]
        ends = torch.tensor([len(group) for group in self.groups]).cumsum(0)
        places = torch.searchsorted(classes, ends[:-1].to(classes.device))
        parts = classes.tensor_split(places.cpu())
        return [
            part - end + len(group)
            for part, end, group in zip(parts, ends, self.groups, strict=True)
        ]

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """Anchors and positives, shape (P,) each: every pair of a class's rows, once.

        Pairs are sorted by class. The anchor comes before the positive in the batch.
        """
        anchors, positives = [], []
        for group in self.groups:
            m = group.shape[1]
            first, second = torch.triu_indices(m, m, offset=1, device=group.device)
            anchors.append(group.index_select(1, first).flatten())
            positives.append(group.index_select(1, second).flatten())
        return torch.cat(anchors), torch.cat(positives)

    def first_pairs(self) -> Tensor:
        """Shape (n, 2), int64: the first two rows of every class that has two.

        They are the pairs that PML's convert_to_pos_pairs_with_unique_labels chooses.
        """
        first = [group[:, :2] for group in self.groups if group.shape[1] > 1]
        return torch.cat([self.groups[0].new_empty(0, 2), *first])

    def source_and_axis(self, pairing: str) -> tuple[Tensor, Tensor]:
        """The rows of source and axis of every class's points, int64 of shape (N,).

        Args:
            pairing: as for SymmSynthesizer.
        """
        sources, axes = [], []
        for group in self.groups:
            m = group.shape[1]
            source, axis = source_and_axis(count_points(m, pairing), m, group.device)
            sources.append(group.index_select(1, source).flatten())
            axes.append(group.index_select(1, axis).flatten())
        return torch.cat(sources), torch.cat(axes)


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


def class_groups(labels: Tensor) -> ClassGroups:
    """Group the rows of a batch by class, and the classes by size.

    Args:
        labels: shape (B,).

    >>> import torch
    >>> from pml_symm.class_groups import class_groups
    >>> class_groups(torch.tensor([7, 5, 7, 9, 5])).groups
    (tensor([[3]]), tensor([[1, 4],
            [0, 2]]))
    """
    ordered, order = torch.sort(labels, stable=True)
    if len(labels) == 0:
        # An empty batch has one group, of no classes.
        return ClassGroups((order.view(0, 1),), labels)
    changes = ordered[1:] != ordered[:-1]
    num_classes = int(changes.sum()) + 1
    size, rest = divmod(len(labels), num_classes)
    if rest == 0 and bool(changes[size - 1 :: size].all()):
        # Balanced, the usual case: all classes form one group.
        return ClassGroups((order.view(num_classes, size),), labels)
    sizes = torch.unique_consecutive(ordered, return_counts=True)[1]
    starts = sizes.cumsum(0) - sizes
    groups = []
    for size in map(int, torch.unique(sizes)):  # .tolist() fails in old torch.func
        chosen = (sizes == size).nonzero()
        groups.append(order[starts[chosen] + torch.arange(size, device=order.device)])
    return ClassGroups(tuple(groups), labels)


def balanced_class_groups(labels: Tensor, samples_per_class: int) -> ClassGroups:
    """The same as class_groups for a balanced batch, without waiting for the device.

    Args:
        labels: shape (B,), each label samples_per_class times.
        samples_per_class: m, which divides B.
    """
    order = torch.argsort(labels, stable=True)
    return ClassGroups((order.view(-1, samples_per_class),), labels)


def is_balanced(labels: Tensor, samples_per_class: int) -> Tensor:
    """Shape (), bool: whether each label occurs samples_per_class times.

    >>> is_balanced(torch.tensor([4, 1, 1, 4]), 2)
    tensor(True)
    >>> is_balanced(torch.tensor([1, 1, 1, 1]), 2)
    tensor(False)
    """
    classes = torch.sort(labels).values.view(-1, samples_per_class)
    same = (classes == classes[:, :1]).all()
    return same & (classes[1:, 0] != classes[:-1, 0]).all()
