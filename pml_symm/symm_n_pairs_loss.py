"""SymmNPairsLoss: N-pairs on the hardest of the pairs' original and synthetic points."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import NPairsLoss
from torch import Tensor

from .class_groups import ClassGroups
from .official import four_points, n_pairs_candidates
from .pml import IndicesTuple, c_f, similarity_from
from .symm_mixin import CandidatesMixin, PositivePairs


class SymmNPairsLoss(CandidatesMixin, NPairsLoss):
    """N-pairs loss in which every pair of classes contributes its hardest negative.

    With one pair (a, p) for each class, chosen as PML's NPairsLoss does, and Z_u the
    pair and its two synthetic points:

        L_u = log(1 + sum_{v != u} exp(H(u, v) - a.p))

    Args:
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the (usually 16)
            candidates; "semihard" for the hardest less similar than a and p, dropping
            the term where there is none.
        candidates: "all", or "official" for exactly the authors' released loss: six
            of the sixteen pairs, and the maximum on the diagonal too.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        **kwargs: arguments of PML's NPairsLoss: distance, reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: hardness or candidates is unknown, or "official" has a hardness
            other than "hardest".

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

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict:
        """PML's hook: one term for each class with a pair."""
        c_f.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
        pairs = self.one_pair_a_class(indices_tuple, labels)
        self.num_pairs = len(pairs)
        if self.num_pairs == 0:
            return self.zero_losses()
        anchors, positives = pairs.unbind(1)
        if self.candidates == "official":
            logits = self.official_logits(embeddings[anchors], embeddings[positives])
        else:
            values, negatives = self.compare(
                PositivePairs(anchors, positives, within_groups=True),
                embeddings,
                embeddings,
                ClassGroups((pairs,), labels),
            )
            logits = similarity_from(self.distance, negatives.hardness)
            if self.hardness == "semihard":
                logits = logits.masked_fill(~negatives.keep, -torch.inf)
            logits = logits.diagonal_scatter(similarity_from(self.distance, values))
        classes = torch.arange(self.num_pairs, device=embeddings.device)
        return {
            "loss": {
                "losses": self.cross_entropy(logits, classes),
                "indices": anchors,
                "reduction_type": "element",
            }
        }

    def official_logits(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """Shape (n, n): the released loss's maximum over six kinds of pairs."""
        candidates = n_pairs_candidates(
            four_points(anchors, positives, self.synthesizer.reflect),
            lambda x, y: similarity_from(self.distance, self.distance(x, y)),
        )
        others = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
        # The first of the six is (a, p); the others have a synthetic end.
        self.record_synthetic_ratio(candidates.argmax(-1) > 0, others)
        return candidates.amax(-1)
