"""SymmNPairsLoss: N-pairs on the hardest of the pairs' original and synthetic points."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import NPairsLoss
from torch import Tensor

from .class_hardness import Gram
from .mixins import CandidatesMixin
from .pml import IndicesTuple, c_f, similarity_from
from .released import four_kinds, n_pairs_candidates


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
        candidates: "all", or "official" for the authors' released loss, exactly: six
            of the sixteen pairs, and the maximum on the diagonal too.
        **kwargs: PML's NPairsLoss's: distance, reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: an unknown hardness or candidates, or "official" with another
            hardness than "hardest".

    Default distance: DotProductSimilarity(), which normalizes. The paper uses
    DotProductSimilarity(normalize_embeddings=False). Default reducer: MeanReducer.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

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
        anchors, positives = self.one_pair_a_class(indices_tuple, labels)
        self.num_pairs = len(anchors)
        if self.num_pairs == 0:
            return self.zero_losses()
        classes = torch.arange(self.num_pairs, device=embeddings.device)
        pair = (
            embeddings.index_select(0, anchors),
            embeddings.index_select(0, positives),
        )
        if self.candidates == "official":
            logits = self.official_logits(*pair)
        else:
            logits = self.logits(*pair, classes)
        return {
            "loss": {
                "losses": self.cross_entropy(logits, classes),
                "indices": anchors,
                "reduction_type": "element",
            }
        }

    def logits(self, anchors: Tensor, positives: Tensor, classes: Tensor) -> Tensor:
        """Shape (n, n): a.p on the diagonal, H(u, v) elsewhere, -inf where dropped."""
        if not Gram.supports(self.distance, self.synthesizer, self.hardness):
            return self._logits_of_points(anchors, positives, classes)
        gram = Gram(self.distance, self.synthesizer, self.rank)
        gram.record_norms(anchors, positives)
        selected = gram.hardest_within(
            torch.stack([anchors, positives]), keep_kinds=self.collect_stats
        )
        if selected.kinds is not None:
            # The first two kinds are the originals.
            is_synthetic = (selected.kinds >= 2).any(0)
            self.record_synthetic_ratio(is_synthetic, classes != classes.unsqueeze(1))
        positive_values = gram.within(selected.within)[: len(classes)]
        values = torch.diagonal_scatter(gram.values(selected.similarity), positive_values)
        return similarity_from(self.distance, values)

    def _logits_of_points(
        self, anchors: Tensor, positives: Tensor, classes: Tensor
    ) -> Tensor:
        """As logits, for distances that need the synthetic points themselves."""
        pool = self.synthesizer(torch.cat([anchors, positives]), classes.repeat(2))
        matrix = self.distance(pool.embeddings)
        positive_values = matrix[classes, classes + len(classes)]
        negatives = self.select_negatives(pool, matrix, classes, classes, positive_values)
        logits = similarity_from(self.distance, negatives.hardness)
        logits = logits.masked_fill(~negatives.keep, -torch.inf)
        return torch.diagonal_scatter(
            logits, similarity_from(self.distance, positive_values)
        )

    def official_logits(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """Shape (n, n): the released loss's maximum over six kinds of pairs."""
        candidates = n_pairs_candidates(
            four_kinds(anchors, positives, self.synthesizer.reflect),
            lambda x, y: similarity_from(self.distance, self.distance(x, y)),
        )
        others = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
        # The first of the six is (a, p); the others have a synthetic end.
        self.record_synthetic_ratio(candidates.argmax(-1) > 0, others)
        return candidates.amax(-1)
