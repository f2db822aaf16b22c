"""SymmLiftedStructureLoss: lifted structure on the hardest points of each class."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import LiftedStructureLoss
from torch import Tensor

from .mixins import SymmMixin
from .pml import IndicesTuple, lmu, positive_pairs


class SymmLiftedStructureLoss(SymmMixin, LiftedStructureLoss):
    """Lifted structure loss with one negative term for each other class.

    With Z_u all points of class u, originals and synthetic:

        J_ij = log sum_{v != u} exp(neg_margin - H(u, v)) + d(i, j) - pos_margin
        L_ij = max(0, J_ij)^2 / 2                              every positive pair (i, j)

    for a distance; for a similarity the differences are the other way round.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none. Without any term L_ij is zero.
        samples_per_class: m, as PML's MPerClassSampler has it, as a promise that every
            batch has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        **kwargs: PML's LiftedStructureLoss's: neg_margin, pos_margin, distance,
            reducer, embedding_regularizer, embedding_reg_weight, collect_stats.

    Raises:
        ValueError: an unknown hardness.

    Default distance: LpDistance(normalize_embeddings=True, p=2, power=1). Default
    reducer: MeanReducer.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmLiftedStructureLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> SymmLiftedStructureLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.9107)
    """

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict:
        """PML's hook: one term for each positive pair."""
        given = None
        if indices_tuple is not None:
            given = positive_pairs(indices_tuple, labels, ref_labels)
        pairs, positive_values, negatives = self.compare(
            given, embeddings, labels, ref_emb, ref_labels, originals=False
        )
        if len(pairs[0]) == 0:
            return self.zero_losses()
        terms = self.distance.margin(self.neg_margin, negatives.hardness)
        attraction = self.distance.margin(positive_values, self.pos_margin)
        if self.hardness != "semihard" and len(negatives.classes) > 1:
            repulsion = terms.masked_fill(~negatives.keep, -torch.inf).logsumexp(dim=1)
            losses = torch.relu(repulsion[negatives.row] + attraction) ** 2 / 2
        else:
            # A sum may be empty: PML's logsumexp has 0 there, not minus infinity.
            repulsion = lmu.logsumexp(terms, keep_mask=negatives.keep, add_one=False)
            losses = torch.relu(repulsion[negatives.row, 0] + attraction) ** 2 / 2
            losses = torch.where(negatives.keep.any(dim=1)[negatives.row], losses, 0)
        return {
            "loss": {
                "losses": losses,
                "indices": pairs,
                "reduction_type": "pos_pair",
            }
        }
