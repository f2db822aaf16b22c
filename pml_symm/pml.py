"""Everything that this package uses of PML besides its public classes.

A port to another PML version mostly changes this file.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from pytorch_metric_learning.utils.accuracy_calculator import (
    maybe_get_avg_of_avgs,
    nan_accuracy,
    try_getting_not_lone_labels,
)
from pytorch_metric_learning.utils.module_with_records import ModuleWithRecords
from torch import Tensor

from .validation import check_positive_pairs

__all__ = [
    "ModuleWithRecords",
    "c_f",
    "is_self_comparison",
    "lmu",
    "maybe_get_avg_of_avgs",
    "nan_accuracy",
    "positive_pairs",
    "similarity_from",
    "try_getting_not_lone_labels",
]

IndicesTuple = tuple[Tensor, ...]


def similarity_from(distance: BaseDistance, matrix: Tensor) -> Tensor:
    """Convert a distance's values to similarities (larger is more similar), or back."""
    return matrix if distance.is_inverted else -matrix


def is_self_comparison(x: Tensor, reference: Tensor) -> bool:
    """Whether there is no reference: PML then passes the batch itself in its place.

    Args:
        x: embeddings or labels.
        reference: ref_emb or ref_labels, as PML's hooks get them.
    """
    return reference is x


def positive_pairs(
    indices_tuple: IndicesTuple | None, labels: Tensor, ref_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The anchors and positives that a loss or the synthesizer works on.

    Args:
        indices_tuple: what a PML tuple miner returned, 3 or 4 tensors, or None for
            every positive pair of the batch. A pair that is named several times, as
            in triplets with several negatives, counts once.
        labels: shape (B,).
        ref_labels: shape (R,); the same object as labels where there is no reference.

    Returns:
        Anchors, indices into labels, and positives, indices into ref_labels.

    Raises:
        ValueError: indices_tuple does not hold 3 or 4 tensors, an index is out of range,
            or anchor and positive of a pair have different labels.
    """
    if indices_tuple is None:
        anchors, positives, _, _ = lmu.get_all_pairs_indices(labels, ref_labels)
        return anchors, positives
    check_indices_tuple(indices_tuple)
    anchors, positives = (
        x.to(labels.device) for x in lmu.pos_pairs_from_tuple(indices_tuple)
    )
    check_positive_pairs(anchors, positives, labels, ref_labels)
    anchors, positives = torch.unique(
        torch.stack([anchors.long(), positives.long()]), dim=1
    )
    return anchors, positives


def check_indices_tuple(indices_tuple: object) -> None:
    """Raise ValueError unless indices_tuple is a tuple or list of 3 or 4 tensors."""
    if (
        c_f.is_list_or_tuple(indices_tuple)
        and len(indices_tuple) in (3, 4)  # type: ignore[arg-type]
        and all(isinstance(x, Tensor) for x in indices_tuple)  # type: ignore[attr-defined]
    ):
        return
    shown = (
        f"{len(indices_tuple)} values"  # type: ignore[arg-type]
        if c_f.is_list_or_tuple(indices_tuple)
        else type(indices_tuple).__name__
    )
    raise ValueError(
        "indices_tuple must be 3 tensors (anchors, positives, negatives) or 4 tensors "
        f"(anchors, positives, anchors, negatives), got {shown}"
    )
