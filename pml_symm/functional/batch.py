"""A checked batch: points to compare, their classes, and the positive pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..validation import checked_pairs
from .class_groups import ClassGroups, class_groups, is_balanced


class PositivePairs(NamedTuple):
    """The positive pairs that a loss works on."""

    anchor: Tensor  # (P,), int64, rows of embeddings
    positive: Tensor  # (P,), int64, rows of the reference
    # (P,), int64, rows of the reference: a pair competes with this row's class alone.
    drawn: Tensor | None = None
    # Whether they are the pairs of ClassGroups.positive_pairs, where each also stands for
    # the pair (positive, anchor), which has the same loss.
    within_groups: bool = False


class Batch(NamedTuple):
    """What a loss compares."""

    embeddings: Tensor  # (B, D), in float32 or better
    reference: Tensor  # (R, D); the embeddings again where there is no reference
    groups: ClassGroups  # of the reference
    pairs: PositivePairs

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compare: no pair, or no other class."""
        return len(self.pairs.anchor) == 0 or self.groups.num_classes < 2

    @property
    def is_one_pair_a_class(self) -> bool:
        """Whether the classes are the positive pairs."""
        return self.pairs.within_groups and self.groups.are_pairs


def make_batch(
    embeddings: Tensor,
    labels: Tensor,
    reference: Tensor | None,
    reference_labels: Tensor | None,
    chosen: tuple[Tensor, Tensor] | None = None,
    *,
    symmetric: bool = False,
    samples_per_class: int | None = None,
    one_pair_a_class: bool = False,
    name: str = "indices_tuple",
) -> Batch:
    """Find the classes and the positive pairs: the chosen ones, each once, or all.

    symmetric says that two points have the same distance in both orders, and
    one_pair_a_class that the classes are reduced to the first pair of each that has one,
    or to the chosen pairs, which then must be of different classes. In messages, the
    chosen pairs are called name.
    """
    points = embeddings if reference is None else reference
    of_reference = labels if reference_labels is None else reference_labels
    groups = class_groups(of_reference, samples_per_class)
    if one_pair_a_class:
        ends = groups.first_pairs() if chosen is None else torch.stack(chosen, dim=1)
        pairs = PositivePairs(ends[:, 0], ends[:, 1], within_groups=True)
        groups = ClassGroups((ends,), of_reference)
    elif chosen is not None:
        both = torch.stack(checked_pairs(chosen, labels, of_reference, name))
        anchors, positives = torch.unique(both, dim=1)
        pairs = PositivePairs(anchors, positives)
    elif reference is None and symmetric:
        pairs = PositivePairs(*groups.positive_pairs(), within_groups=True)
    else:
        same = labels.unsqueeze(1) == of_reference
        if reference is None:
            same.fill_diagonal_(False)
        anchors, positives = same.nonzero(as_tuple=True)
        pairs = PositivePairs(anchors, positives)
    return Batch(embeddings, points, groups, pairs)


def promise_kept(labels: Tensor, samples_per_class: int | None) -> Tensor | None:
    """Whether labels keep the promise, shape (); None if there is nothing to check.

    Raises:
        ValueError: they do not, and that can be told without waiting for a GPU.
    """
    if samples_per_class is None or len(labels) == 0:
        return None
    broken = (
        f"labels must name every class samples_per_class={samples_per_class} times, got"
    )
    if len(labels) % samples_per_class != 0:
        raise ValueError(f"{broken} {len(labels)} labels")
    kept = is_balanced(labels, samples_per_class)
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return kept
    if not kept:
        counts = torch.unique(labels, return_counts=True)[1].unique().tolist()
        raise ValueError(f"{broken} counts {counts}")
    return None
