"""A checked batch: points to compare, their classes, and the positive pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..validation import check_divides, check_positive_pairs
from .class_groups import ClassGroups, class_groups, is_balanced


class PositivePairs(NamedTuple):
    """The positive pairs that a loss works on.

    Attributes:
        anchor: shape (P,), int64, rows of embeddings.
        positive: shape (P,), int64, rows of the reference.
        both_ways: whether each also stands for the pair (positive, anchor), which has
            the same loss.
        within_groups: whether they are the pairs of ClassGroups.positive_pairs.
    """

    anchor: Tensor
    positive: Tensor
    both_ways: bool = False
    within_groups: bool = False


class Batch(NamedTuple):
    """What a loss compares.

    Attributes:
        embeddings: shape (B, D), in float32 or better.
        reference: shape (R, D); the embeddings again where there is no reference.
        groups: the classes of the reference.
        pairs: the positive pairs.
    """

    embeddings: Tensor
    reference: Tensor
    groups: ClassGroups
    pairs: PositivePairs

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compare: no pair, or no other class."""
        return len(self.pairs.anchor) == 0 or self.groups.num_classes < 2


def one_pair_a_class(embeddings: Tensor, groups: ClassGroups, pairs: Tensor) -> Batch:
    """A batch of these pairs alone, shape (n, 2), of different classes."""
    within = PositivePairs(pairs[:, 0], pairs[:, 1], within_groups=True)
    groups = ClassGroups((pairs,), groups.row_labels)
    return Batch(embeddings, embeddings, groups, within)


def make_batch(
    embeddings: Tensor,
    labels: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    chosen: tuple[Tensor, Tensor] | None = None,
    symmetric: bool = False,
    samples_per_class: int | None = None,
    name: str = "indices_tuple",
) -> Batch:
    """Find the classes and the positive pairs: the chosen ones, each once, or all.

    Args:
        embeddings: shape (B, D).
        labels: shape (B,).
        reference: points, shape (R, D), and labels, shape (R,), or None.
        chosen: anchors, rows of labels, and positives, rows of the reference; or None.
        symmetric: whether two points have the same distance in both orders.
        samples_per_class: a promise, which avoids a wait for the GPU.
        name: of the chosen pairs, for messages.

    Raises:
        ValueError: a chosen index is out of range, or anchor and positive of a pair have
            different labels.
        TypeError: they are no integers.
    """
    points, of_reference = reference or (embeddings, labels)
    groups = class_groups(of_reference, samples_per_class)
    if chosen is not None:
        anchors, positives = (x.to(labels.device) for x in chosen)
        check_positive_pairs(anchors, positives, labels, of_reference, name)
        both = torch.stack([anchors.long(), positives.long()])
        anchors, positives = torch.unique(both, dim=1)
        pairs = PositivePairs(anchors, positives)
    elif reference is None and symmetric:
        pairs = PositivePairs(*groups.positive_pairs(), True, True)
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
    if samples_per_class is None:
        return None
    check_divides(samples_per_class, labels)
    kept = is_balanced(labels, samples_per_class)
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return kept
    if not kept:
        raise ValueError(
            f"labels must name every class samples_per_class={samples_per_class} times, "
            f"got counts {torch.unique(labels, return_counts=True)[1].unique().tolist()}"
        )
    return None
