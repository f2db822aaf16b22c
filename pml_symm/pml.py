"""Everything that this package uses of PML besides its public classes.

A port to another PML version mostly changes this file.
"""

from __future__ import annotations

from pytorch_metric_learning.distances import (
    BaseDistance,
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
)
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from pytorch_metric_learning.utils.module_with_records import ModuleWithRecords
from torch import Tensor

from .functional.distances import ByFunction, Distance, DotProduct, Euclidean
from .validation import check_kind

__all__ = ["ModuleWithRecords", "c_f", "lmu"]  # of PML

IndicesTuple = tuple[Tensor, ...]


def given_reference(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None,
    ref_labels: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The reference; none where it is the batch itself.

    For PML, only the very same tensors are the batch.
    """
    if ref_emb is embeddings and ref_labels is labels:
        return None, None
    return ref_emb, ref_labels


def core_distance(distance: BaseDistance) -> Distance:
    """The distance of pml_symm.functional that compares points as a PML distance does.

    A subclass may compute anything, so its matrix is used.
    """
    check_kind("distance", distance, BaseDistance)
    normalize = bool(distance.normalize_embeddings)
    if type(distance) is LpDistance and distance.p == 2 and distance.power > 0:
        return Euclidean(normalize, distance.power)
    is_product = type(distance) in (DotProductSimilarity, CosineSimilarity)
    if is_product and distance.p == 2 and distance.power == 1:
        return DotProduct(normalize)
    return ByFunction(distance, distance.is_inverted)


def record_norms(distance: BaseDistance, embeddings: Tensor, ref_emb: Tensor) -> None:
    """Record what the distance records when it is called, if stats are on."""
    distance.reset_stats()
    if distance.collect_stats:
        distance.set_default_stats(
            embeddings,
            ref_emb,
            distance.maybe_normalize(embeddings),
            distance.maybe_normalize(ref_emb),
        )


def pairs_of_tuple(indices_tuple: IndicesTuple | None) -> tuple[Tensor, Tensor] | None:
    """The anchors and positives of what a PML tuple miner returned; None for None.

    Raises:
        ValueError: indices_tuple does not hold 3 or 4 tensors.
    """
    if indices_tuple is None:
        return None
    is_tuple = c_f.is_list_or_tuple(indices_tuple)
    are_tensors = is_tuple and all(isinstance(x, Tensor) for x in indices_tuple)
    if are_tensors and len(indices_tuple) in (3, 4):
        return lmu.pos_pairs_from_tuple(indices_tuple)
    shown = f"{len(indices_tuple)} values" if is_tuple else type(indices_tuple).__name__
    raise ValueError(
        "indices_tuple must be 3 tensors (anchors, positives, negatives) or 4 tensors "
        f"(anchors, positives, anchors, negatives), got {shown}"
    )
