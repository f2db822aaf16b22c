"""SymmTripletMarginLoss: the triplet margin loss on the hardest points of each class."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor

from .mixins import SymmMixin
from .pml import IndicesTuple, lmu, positive_pairs


class SymmTripletMarginLoss(SymmMixin, TripletMarginLoss):
    """Triplet margin loss with one triplet for each positive pair and other class.

    With Z_u all points of class u, originals and synthetic:

        L_ijv = max(0, d(i, j) - H(u, v) + margin)    every positive pair (i, j), v != u

    for a distance; for a similarity the difference is the other way round.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none.
        **kwargs: PML's TripletMarginLoss's: margin, smooth_loss, triplets_per_anchor
            (an int: that many random terms for each anchor), distance, reducer,
            embedding_regularizer, embedding_reg_weight, collect_stats; and swap, which
            changes nothing, because H(u, v) already is the hardest from either end.

    Raises:
        ValueError: an unknown hardness.

    Default distance: LpDistance(normalize_embeddings=True, p=2, power=1). Default
    reducer: AvgNonZeroReducer.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

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
        if indices_tuple is None and self.triplets_per_anchor != "all":
            anchors, positives, drawn = lmu.convert_to_triplets(
                None, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
            )
        else:
            anchors, positives = positive_pairs(indices_tuple, labels, ref_labels)
            drawn = None
        if len(anchors) == 0:
            return self.zero_losses()
        positive_values, negatives = self.compare(
            (anchors, positives), embeddings, ref_emb, ref_labels
        )
        row = negatives.row
        if drawn is None and self.hardness != "semihard":
            # One term for every pair and other class: no need to look which.
            pair, other = _every_other_class(row, len(negatives.classes))
        else:
            keep = negatives.keep[row]
            if drawn is not None:
                keep = keep & (negatives.classes == ref_labels[drawn].unsqueeze(1))
            pair, other = torch.where(keep)
        if len(pair) == 0:
            return self.zero_losses()
        violation = self.margin + self.distance.margin(
            positive_values[pair], negatives.hardness[row[pair], other]
        )
        activation = torch.nn.functional.softplus if self.smooth_loss else torch.relu
        return {
            "loss": {
                "losses": activation(violation),
                "indices": (
                    anchors[pair],
                    positives[pair],
                    negatives.original[row[pair], other],
                ),
                "reduction_type": "triplet",
            }
        }


def _every_other_class(row: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The pair and the class of every term; pairs compete with all classes but row."""
    other = torch.arange(num_classes - 1, device=row.device)
    other = other + (other >= row.unsqueeze(1)).long()
    pair = torch.arange(len(row), device=row.device).unsqueeze(1).expand_as(other)
    return pair.flatten(), other.flatten()
