"""ClassGroups: which rows of a batch belong to which class, grouped by class size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def point_places(num_members: int, pairing: str, device: torch.device) -> Tensor:
    """Which of a class's m x m points there are, int64 of shape (K,).

    Place i * m + j is member i mirrored about member j, or for i = j the member itself.

    >>> point_places(3, "ring", torch.device("cpu"))
    tensor([0, 4, 8, 1, 5, 6])
    """
    if pairing == "all":
        return torch.arange(num_members**2, device=device)
    member = torch.arange(num_members, device=device)
    itself = member * (num_members + 1)
    if pairing == "none" or num_members == 1:
        return itself
    about_next = member * num_members + (member + 1) % num_members
    return torch.cat([itself, about_next])


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """As torch.cat, without a copy of a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


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
    def rows(self) -> Tensor:
        """Shape (B,), int64: the rows, class after class."""
        return joined([group.flatten() for group in self.groups])

    @property
    def labels(self) -> Tensor:
        """Shape (C,), the label of each class."""
        first = joined([group[:, 0] for group in self.groups])
        return self.row_labels.index_select(0, first)

    @property
    def class_of(self) -> Tensor:
        """Shape (B,), int64: each row's class; undefined for rows in no group."""
        class_of = torch.empty_like(self.row_labels, dtype=torch.long)
        numbers = torch.arange(self.num_classes, device=class_of.device)
        of_groups = numbers.split([len(group) for group in self.groups])
        for group, number in zip(self.groups, of_groups, strict=True):
            class_of[group] = number.unsqueeze(1).expand_as(group)
        return class_of

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
        return joined(anchors), joined(positives)

    def first_pairs(self) -> Tensor:
        """Shape (n, 2), int64: the first two rows of every class that has two.

        They are the pairs that PML's convert_to_pos_pairs_with_unique_labels chooses.
        """
        first = [group[:, :2] for group in self.groups if group.shape[1] > 1]
        return joined(first or [self.groups[0].new_empty(0, 2)])

    def ends_of_points(self, pairing: str) -> tuple[Tensor, Tensor]:
        """The rows of source and axis of every point, an original being its own axis.

        Class after class, each with its points in the order of point_places.
        """
        sources, axes = [], []
        for group in self.groups:
            m = group.shape[1]
            place = point_places(m, pairing, group.device)
            sources.append(group.index_select(1, place // m).flatten())
            axes.append(group.index_select(1, place % m).flatten())
        return joined(sources), joined(axes)

    def source_and_axis(self, pairing: str) -> tuple[Tensor, Tensor]:
        """The rows that are mirrored, and about which, by source, then by axis."""
        source, axis = self.ends_of_points(pairing)
        order = (source * len(self.row_labels) + axis).argsort()
        order = order[(source != axis)[order]]
        return source[order], axis[order]

    def point_numbers(self, pairing: str) -> Tensor:
        """The number of every point in the pool, in the order of ends_of_points.

        In the pool are first the rows of the batch, then those of source_and_axis.
        """
        source, axis = self.ends_of_points(pairing)
        key = source * len(self.row_labels) + axis
        synthetic = source != axis
        number = torch.searchsorted(key[synthetic].sort().values, key)
        return torch.where(synthetic, len(self.row_labels) + number, source)


def class_groups(labels: Tensor, samples_per_class: int | None = None) -> ClassGroups:
    """Group the rows of a batch by class, and the classes by size.

    Args:
        labels: shape (B,).
        samples_per_class: a promise that each label occurs so many times, which avoids a
            wait for the device.

    >>> class_groups(torch.tensor([7, 5, 7, 9, 5])).groups
    (tensor([[3]]), tensor([[1, 4],
            [0, 2]]))
    """
    if samples_per_class is not None:
        order = torch.argsort(labels, stable=True)
        return ClassGroups((order.view(-1, samples_per_class),), labels)
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


def is_balanced(labels: Tensor, samples_per_class: int) -> Tensor:
    """Shape (), bool: whether each label occurs samples_per_class times.

    >>> is_balanced(torch.tensor([4, 1, 1, 4]), 2)
    tensor(True)
    >>> is_balanced(torch.tensor([1, 1, 1, 1]), 2)
    tensor(False)
    """
    ordered, m = torch.sort(labels).values, samples_per_class
    changes = ordered[1:] != ordered[:-1]
    return (changes.sum() == len(labels) // m - 1) & changes[m - 1 :: m].all()
