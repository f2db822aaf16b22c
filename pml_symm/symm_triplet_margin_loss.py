"""SymmTripletMarginLoss: the triplet margin loss on the hardest points of each class."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MultipleReducers

from .functional.batch import Batch, PositivePairs
from .functional.loss import Terms
from .functional.triplet_margin import mean_above_zero, triplet_margin_terms
from .pml import lmu
from .symm_mixin import SymmMixin


class SymmTripletMarginLoss(SymmMixin, TripletMarginLoss):
    """Triplet margin loss with one triplet for each positive pair and other class.

    With Z_u all points of class u, originals and synthetic:

        L_ijv = max(0, d(i, j) - H(u, v) + margin)    every positive pair (i, j), v != u

    for a distance; for a similarity the difference changes sign.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none; or a rule, a function of
            functional.Candidates.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph, but in the
            cases that functional.Options names.
        **kwargs: arguments of PML's TripletMarginLoss: margin, smooth_loss,
            triplets_per_anchor (an int: that many random terms for each anchor),
            distance, reducer, embedding_regularizer, embedding_reg_weight,
            collect_stats; and swap, which has no effect, because H(u, v) is the hardest
            pair in both directions.

    Raises:
        ValueError: hardness is unknown.
        TypeError: synthesizer is not a SymmSynthesizer.

    Default distance: LpDistance(normalize_embeddings=True, p=2, power=1). Default
    reducer: AvgNonZeroReducer. Unless statistics are collected, its average is computed
    without a list of all triplets, and without waiting for a GPU.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmTripletMarginLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> SymmTripletMarginLoss(margin=0.2)(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.5496)
    """

    def batch(self, *inputs: Any) -> Batch:
        """As of SymmMixin; draws triplets_per_anchor."""
        _, labels, indices_tuple, _, ref_labels = inputs
        batch = super().batch(*inputs)
        if indices_tuple is not None or self.triplets_per_anchor == "all":
            return batch
        triplets = lmu.convert_to_triplets(
            None, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
        )
        return batch._replace(pairs=PositivePairs(*triplets))

    def terms(self, batch: Batch) -> Terms:
        """One for each positive pair and other class, or their mean."""
        own = self.margin, self.smooth_loss, not self._only_mean()
        terms = triplet_margin_terms(batch, self.comparison, *own)
        if terms.indices:
            return terms
        return terms._replace(losses=mean_above_zero(terms.losses))

    def _only_mean(self) -> bool:
        """Whether the reducer needs only the mean of the terms above zero.

        Then no list of triplets is needed, and each pair counts in one order only: the
        mean over both orders is the same.
        """
        reducer = self.reducer
        if isinstance(reducer, MultipleReducers):
            # A ModuleDict has no get.
            named = dict(reducer.reducers.items())
            reducer = named.get("loss", reducer.default_reducer)
        is_plain = type(reducer) is AvgNonZeroReducer and not reducer.collect_stats
        return is_plain and reducer.low == 0 and reducer.high is None
