"""The methods that can be compared, by the name that tables and figures give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_metric_learning import losses
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.regularizers import LpRegularizer

from pml_symm import SymmNPairsLoss, SymmTripletMarginLoss

TRIPLET_MARGIN = 0.1


def _as_in_the_paper() -> dict[str, Any]:
    # Un-normalized dot products, held together by the mean squared norm with the
    # weight of the authors' code: a quarter of 0.002, for anchors and for positives.
    return {
        "distance": DotProductSimilarity(normalize_embeddings=False),
        "embedding_regularizer": LpRegularizer(p=2, power=2),
        "embedding_reg_weight": 2 * 0.25 * 0.002,
    }


METHODS: dict[str, Callable[[], losses.BaseMetricLossFunction]] = {
    "N-pairs": lambda: losses.NPairsLoss(**_as_in_the_paper()),
    "Symm + N-pairs": lambda: SymmNPairsLoss(collect_stats=True, **_as_in_the_paper()),
    "Triplet": lambda: losses.TripletMarginLoss(margin=TRIPLET_MARGIN),
    "Symm + Triplet": lambda: SymmTripletMarginLoss(
        margin=TRIPLET_MARGIN, collect_stats=True
    ),
}
"""Name -> a function that makes the loss. A name that starts with "Symm + " is compared
with the method named by the rest."""

SYMM = "Symm + "
