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
        given, drawn = None, None
        if indices_tuple is not None:
            given = positive_pairs(indices_tuple, labels, ref_labels)
        elif self.triplets_per_anchor != "all":
            *given, drawn = lmu.convert_to_triplets(
                None, labels, ref_labels, t_per_anchor=self.triplets_per_anchor
            )
        (anchors, positives), values, negatives = self.compare(
            given, embeddings, labels, ref_emb, ref_labels
        )
        row = negatives.row
        if drawn is None and self.hardness != "semihard":
            # One term for every pair and other class: no need to look which.
            other = _other_classes(len(negatives.classes), row.device)
            hardness = negatives.hardness.gather(1, other).index_select(0, row)
            original = negatives.original.gather(1, other).index_select(0, row)
            values = values.unsqueeze(1).expand_as(hardness)
            anchors = anchors.unsqueeze(1).expand_as(original)
            positives = positives.unsqueeze(1).expand_as(original)
        else:
            keep = negatives.keep[row]
            if drawn is not None:
                keep = keep & (negatives.classes == ref_labels[drawn].unsqueeze(1))
            pair, other = torch.where(keep)
            hardness = negatives.hardness[row[pair], other]
            original = negatives.original[row[pair], other]
            values, anchors, positives = values[pair], anchors[pair], positives[pair]
        if hardness.numel() == 0:
            return self.zero_losses()
        violation = self.margin + self.distance.margin(values, hardness).flatten()
        activation = torch.nn.functional.softplus if self.smooth_loss else torch.relu
        return {
            "loss": {
                "losses": activation(violation),
                "indices": (anchors.flatten(), positives.flatten(), original.flatten()),
                "reduction_type": "triplet",
            }
        }


def _other_classes(num_classes: int, device: torch.device) -> Tensor:
    """Shape (C, C - 1): for every class the others."""
    other = torch.arange(max(num_classes - 1, 0), device=device)
    own = torch.arange(num_classes, device=device).unsqueeze(1)
    return other + (other >= own).long()
