"""SymmNPairsLoss: N-pairs on the hardest of the pairs' original and synthetic points."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.losses import NPairsLoss

from . import official
from .functional.batch import Batch
from .functional.loss import Terms
from .functional.n_pairs import n_pairs_terms
from .symm_mixin import CandidatesMixin


class SymmNPairsLoss(CandidatesMixin, NPairsLoss):
    """N-pairs loss in which every pair of classes contributes its hardest negative.

    With one pair (a, p) for each class, chosen as PML's NPairsLoss does, and Z_u the
    pair and its two synthetic points:

        L_u = log(1 + sum_{v != u} exp(H(u, v) - a.p))

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the (usually 16)
            candidates; "semihard" for the hardest less similar than a and p, dropping
            the term where there is none; or a rule, a function of functional.Candidates.
        candidates: "all", or "official" for exactly the authors' released loss: six
            of the sixteen pairs, and the maximum on the diagonal too.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph, but in the
            cases that functional.Options names.
        **kwargs: arguments of PML's NPairsLoss: distance, reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: hardness or candidates is unknown, or "official" has a hardness
            other than "hardest", or a synthesizer without synthetic points.
        TypeError: synthesizer is not a SymmSynthesizer.

    Default distance: DotProductSimilarity(), which normalizes. The paper uses
    DotProductSimilarity(normalize_embeddings=False). Default reducer: MeanReducer.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmNPairsLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> SymmNPairsLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.7763)
    """

    one_pair_a_class = True

    def batch(self, *inputs: Any) -> Batch:
        """As of SymmMixin; sets num_pairs, as PML's NPairsLoss does."""
        batch = super().batch(*inputs)
        self.num_pairs = len(batch.pairs.anchor)
        return batch

    def terms(self, batch: Batch) -> Terms:
        """One for each class with a pair."""
        if self.candidates == "all":
            return n_pairs_terms(batch, self.comparison)
        anchors, positives = (batch.embeddings[x] for x in batch.pairs[:2])
        points = official.four_points(anchors, positives, self.synthesizer.reflect)
        found = official.n_pairs(points, self.distance)
        return Terms(found.losses, (batch.pairs.anchor,), found)
