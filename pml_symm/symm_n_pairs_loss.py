"""SymmNPairsLoss: N-pairs on the hardest of the pairs' original and synthetic points."""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import NPairsLoss
from torch import Tensor

from .class_hardness import Gram, rows_of
from .kinds import look_up, winners
from .mixins import CandidatesMixin
from .pml import IndicesTuple, c_f, similarity_from
from .released import four_kinds, n_pairs_candidates
from .validation import rank_of


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
        samples_per_class: m, as PML's MPerClassSampler has it, as a promise that every
            batch has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        **kwargs: PML's NPairsLoss's: distance, reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: an unknown hardness or candidates, or "official" with another
            hardness than "hardest".

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
        classes = torch.arange(self.num_pairs, device=embeddings.device)
        if self.candidates == "official":
            logits = self.official_logits(*rows_of(embeddings, pairs.t()))
        else:
            logits = self.logits(embeddings, pairs, classes)
        return {
            "loss": {
                "losses": self.cross_entropy(logits, classes),
                "indices": pairs[:, 0],
                "reduction_type": "element",
            }
        }

    def logits(self, embeddings: Tensor, pairs: Tensor, classes: Tensor) -> Tensor:
        """Shape (n, n): a.p on the diagonal, H(u, v) elsewhere, -inf where dropped.

        Args:
            embeddings: shape (B, D).
            pairs: shape (n, 2), int64, the rows of anchor and positive.
            classes: shape (n,), their numbers.
        """
        if not Gram.supports(self.distance, self.synthesizer, self.hardness):
            anchors, positives = rows_of(embeddings, pairs.t())
            return self._logits_of_points(anchors, positives, classes)
        gram = Gram(self.distance, self.synthesizer, rank_of(self.hardness))
        if self.distance.collect_stats:
            gram.record_norms(*rows_of(embeddings, pairs.t()))
        selected = gram.hardest_within(
            gram.scaled(embeddings), pairs, keep_winners=self.collect_stats
        )
        if self.collect_stats:
            kinds = gram.kinds(2)
            table = winners(kinds, kinds, pairs.device).is_synthetic
            others = classes != classes.unsqueeze(1)
            self.record_synthetic_ratio(look_up(table, selected.winner.int()), others)
        if gram.pairs_on_diagonal:
            return selected.similarity
        values = torch.diagonal_scatter(
            gram.values(selected.similarity), selected.within[:, 0]
        )
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
