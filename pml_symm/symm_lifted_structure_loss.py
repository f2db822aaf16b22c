"""SymmLiftedStructureLoss: lifted structure on the hardest points of each class."""

from __future__ import annotations

from pytorch_metric_learning.losses import LiftedStructureLoss

from .functional.batch import Batch
from .functional.lifted_structure import lifted_structure_terms
from .functional.loss import Terms
from .symm_mixin import SymmMixin


class SymmLiftedStructureLoss(SymmMixin, LiftedStructureLoss):
    """Lifted structure loss with one negative term for each other class.

    With Z_u all points of class u, originals and synthetic:

        J_ij = log sum_{v != u} exp(neg_margin - H(u, v)) + d(i, j) - pos_margin
        L_ij = max(0, J_ij)^2 / 2                              every positive pair (i, j)

    for a distance; for a similarity the differences change sign.

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates
            Z_u x Z_v; "semihard" for the hardest one farther apart than i and j,
            dropping the term where there is none; or a rule, a function of
            functional.Candidates. Without any term L_ij is zero.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph, but in the
            cases that functional.Options names.
        **kwargs: arguments of PML's LiftedStructureLoss: neg_margin, pos_margin, distance,
            reducer, embedding_regularizer, embedding_reg_weight, collect_stats.

    Raises:
        ValueError: hardness is unknown.
        TypeError: synthesizer is not a SymmSynthesizer.

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

    def terms(self, batch: Batch) -> Terms:
        """One for each positive pair."""
        margins = self.neg_margin, self.pos_margin
        return lifted_structure_terms(batch, self.comparison, *margins)
