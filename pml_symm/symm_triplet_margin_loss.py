"""SymmTripletMarginLoss: the triplet margin loss on the hardest points of each class."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MultipleReducers
from torch import Tensor
from torch.nn.functional import softplus

from .pml import IndicesTuple, lmu
from .symm_mixin import PositivePairs, SymmMixin


class SymmTripletMarginLoss(SymmMixin, TripletMarginLoss):
    """Triplet margin loss with one triplet for each positive pair and other class.

    With Z_u all points of class u, originals and synthetic:

        L_ijv = max(0, d(i, j) - H(u, v) + margin)    every positive pair (i, j), v != u

    for a distance; for a similarity the difference changes sign.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        **kwargs: arguments of PML's TripletMarginLoss: margin, smooth_loss,
            triplets_per_anchor (an int: that many random terms for each anchor),
            distance, reducer, embedding_regularizer, embedding_reg_weight,
            collect_stats; and swap, which has no effect, because H(u, v) is the hardest
            pair in both directions.

    Raises:
        ValueError: hardness is unknown.

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

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict:
        """PML's hook: one term for each positive pair and other class."""
        groups = self.class_groups(ref_labels)
        pairs = self.positive_pairs(indices_tuple, labels, ref_labels, groups)
        drawn = None
        if indices_tuple is None and self.triplets_per_anchor != "all":
            *given, drawn = lmu.convert_to_triplets(
                None, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
            )
            pairs = PositivePairs(*given)
        if len(pairs.anchor) == 0 or groups.num_classes == 1:
            return self.zero_losses()
        only_mean = self._only_mean()
        values, negatives = self.compare(
            pairs, embeddings, ref_emb, groups, originals=not only_mean
        )
        violation = self.margin + self.distance.margin(
            values.unsqueeze(1), negatives.of_pairs(negatives.hardness)
        )
        keep = negatives.of_pairs(negatives.keep)
        if drawn is not None:
            keep = keep & (groups.labels == ref_labels[drawn].unsqueeze(1))
        violation = violation.masked_fill(~keep, -torch.inf)
        losses = softplus(violation) if self.smooth_loss else torch.relu(violation)
        if only_mean:
            return {
                "loss": {
                    "losses": losses.sum() / torch.count_nonzero(losses).clamp_min(1),
                    "indices": None,
                    "reduction_type": "already_reduced",
                }
            }
        pair, other = torch.where(keep)
        if len(pair) == 0:
            return self.zero_losses()
        losses = losses[pair, other]
        anchor, positive = pairs.anchor[pair], pairs.positive[pair]
        negative = negatives.of_pairs(negatives.original)[pair, other]
        if pairs.both_ways:
            losses, negative = losses.repeat(2), negative.repeat(2)
            anchor, positive = (
                torch.cat([anchor, positive]),
                torch.cat([positive, anchor]),
            )
        return {
            "loss": {
                "losses": losses,
                "indices": (anchor, positive, negative),
                "reduction_type": "triplet",
            }
        }

    def _only_mean(self) -> bool:
        """Whether the reducer needs only the mean of the terms above zero.

        Then no list of triplets is needed, and each pair counts in one order only: the
        mean over both orders is the same.
        """
        reducer = self.reducer
        if isinstance(reducer, MultipleReducers):
            reducer = reducer.reducers["loss"]
        return type(reducer) is AvgNonZeroReducer and not reducer.collect_stats
