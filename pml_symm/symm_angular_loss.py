"""SymmAngularLoss: the angular loss on the hardest points of pair and class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from pytorch_metric_learning.distances import (
    BaseDistance,
    DotProductSimilarity,
    LpDistance,
)
from pytorch_metric_learning.losses import AngularLoss
from torch import Tensor

from .class_hardness import (
    ClassHardness,
    Gram,
    hardest_sums,
    hardest_sums_of_classes,
    rows_of,
)
from .functional import class_pair_hardness
from .mixins import CandidatesMixin
from .pml import IndicesTuple, c_f, lmu, positive_pairs
from .released import angular_candidates, four_kinds
from .synthetic_batch import SyntheticBatch
from .validation import rank_of


class SymmAngularLoss(CandidatesMixin, AngularLoss):
    """Angular loss with one negative term for each other class.

    With X and Y two of the pair's four points (the pair and its two synthetic points),
    Z_v all points of class v, originals and synthetic:

        f_v  = max 4 tan^2(alpha) (X + Y).z            over X != Y and z of Z_v
        L_ij = log(1 + sum_{v != u} exp(f_v - 2 (1 + tan^2(alpha)) x_i.x_j))

    Every point is normalized, or none is, as the distance says. (PML's AngularLoss
    normalizes the pair and leaves the negatives as they are.)

    Args:
        alpha: the angle, in degrees.
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates, six
            pairs {X, Y} times the points of the class; "semihard" for the hardest one
            below the positive term 2 (1 + tan^2(alpha)) x_i.x_j, dropping the term
            where there is none.
        candidates: "all", or "official" for the authors' released loss, exactly: one
            pair for each class, (X_i + Y_i).Y_j over the twelve ordered pairs of
            different kinds, and the maximum on the diagonal too.
        samples_per_class: m, as PML's MPerClassSampler has it, as a promise that every
            batch has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        distance: LpDistance(p=2) or DotProductSimilarity; only whether it normalizes
            matters.
        **kwargs: PML's AngularLoss's: reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: an unknown hardness or candidates, "official" with another hardness
            than "hardest", or a distance of another kind.

    Default distance: LpDistance(p=2, power=1, normalize_embeddings=True). The paper
    does not normalize. Default reducer: MeanReducer.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmAngularLoss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> SymmAngularLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(2.6840)
    """

    def __init__(
        self, alpha: float = 40, distance: BaseDistance | None = None, **kwargs: Any
    ) -> None:
        # PML's constructor refuses distances that do not normalize: it gets its default.
        super().__init__(alpha=alpha, **kwargs)
        if distance is not None:
            is_euclidean = isinstance(distance, LpDistance) and distance.power == 1
            is_dot_product = isinstance(distance, DotProductSimilarity)
            if distance.p != 2 or not (is_euclidean or is_dot_product):
                raise ValueError(
                    "distance must be LpDistance(p=2, power=1) or DotProductSimilarity, "
                    f"got {type(distance).__name__}(p={distance.p}, "
                    f"power={distance.power})"
                )
            self.distance = distance

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> dict:
        """PML's hook: one term for each positive pair."""
        official = self.candidates == "official"
        # The loss of a pair is the same both ways.
        both_ways = indices_tuple is None and ref_emb is embeddings and not official
        layout = self.layout(ref_labels)
        if official:
            c_f.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
            anchors, positives = self.one_pair_a_class(indices_tuple, labels).unbind(1)
        elif both_ways:
            anchors, positives = layout.positive_pairs(both_ways=False)
        else:
            anchors, positives = positive_pairs(indices_tuple, labels, ref_labels)
        if len(anchors) == 0 or sum(len(group) for group in layout.groups) == 1:
            return self.zero_losses()
        if self.collect_stats:
            self.set_stats(
                self.distance.maybe_normalize(embeddings[anchors]),
                self.distance.maybe_normalize(ref_emb[positives]),
                embeddings,
                ref_emb,
                labels[anchors].unsqueeze(1) != ref_labels,
            )
        gram_distance = DotProductSimilarity(
            normalize_embeddings=self.distance.normalize_embeddings
        )
        pairs = anchors, positives
        if official:
            losses = self.official_losses(self.four_kinds(*pairs, embeddings, ref_emb))
        elif Gram.supports(gram_distance, self.synthesizer, self.hardness):
            gram = Gram(gram_distance, self.synthesizer, rank_of(self.hardness))
            selected = None
            if both_ways:
                selected = hardest_sums_of_classes(
                    gram, embeddings, layout, self.collect_stats
                )
            if selected is None:
                points = torch.stack(
                    [rows_of(embeddings, anchors), rows_of(ref_emb, positives)], dim=1
                )
                selected = hardest_sums(gram, points, ref_emb, layout, self.collect_stats)
            losses = self.gram_losses(selected, labels[anchors, None] == layout.labels)
        else:
            classes, ref_classes = torch.unique(ref_labels, return_inverse=True)
            pool = self.synthesizer(ref_emb, ref_classes)
            kinds = self.four_kinds(*pairs, embeddings, ref_emb)
            losses = self.pair_losses(kinds, ref_classes[positives], pool, len(classes))
        if both_ways:
            losses = losses.repeat(2)
            anchors, positives = (
                torch.cat([anchors, positives]),
                torch.cat([positives, anchors]),
            )
        return {
            "loss": {
                "losses": losses,
                "indices": (anchors, positives),
                "reduction_type": "pos_pair",
            }
        }

    def four_kinds(
        self, anchors: Tensor, positives: Tensor, embeddings: Tensor, ref_emb: Tensor
    ) -> list[Tensor]:
        """The pairs' originals and synthetic points, as the distance compares them."""
        kinds = four_kinds(
            rows_of(embeddings, anchors),
            rows_of(ref_emb, positives),
            self.synthesizer.reflect,
        )
        return [self.distance.maybe_normalize(x) for x in kinds]

    def gram_losses(self, selected: ClassHardness, own: Tensor) -> Tensor:
        """Shape (P,): L_ij by the Gram matrix.

        Args:
            selected: as hardest_sums gives it.
            own: shape (P, C), bool: the class of each pair.
        """
        squared_tangent = torch.tan(self.alpha) ** 2
        self.record_synthetic_ratio(selected.is_synthetic, ~own)
        positive_term = 2 * (1 + squared_tangent) * selected.within[0][:, :1]
        terms = 4 * squared_tangent * selected.similarity - positive_term
        # In the place of the pair's own class stands the one of the logarithm.
        return torch.logsumexp(terms.masked_fill(own, 0), dim=1)

    def pair_losses(
        self,
        kinds: Sequence[Tensor],
        pair_classes: Tensor,
        pool: SyntheticBatch,
        num_classes: int,
    ) -> Tensor:
        """Shape (P,): L_ij of pairs whose four points are in kinds, (P, D) each."""
        squared_tangent = torch.tan(self.alpha) ** 2
        points = self.distance.maybe_normalize(pool.embeddings)
        products = [x @ points.t() for x in kinds]
        two_of_four = list(combinations(range(len(kinds)), 2))
        sums = torch.stack([products[x] + products[y] for x, y in two_of_four], dim=1)
        positive_term = 2 * (1 + squared_tangent) * (kinds[0] * kinds[1]).sum(1)
        pair = torch.arange(len(pair_classes), device=points.device)
        selected = class_pair_hardness(
            (4 * squared_tangent * sums).flatten(0, 1),
            pair.repeat_interleave(len(two_of_four)),
            pool.labels,
            (len(pair), num_classes),
            self.hardness,
            pair,
            positive_term,
        )
        classes = torch.arange(num_classes, device=points.device)
        keep = selected.found & (classes != pair_classes.unsqueeze(1))
        # The first two of the four are the originals.
        with_synthetic = selected.row % len(two_of_four) > 0
        is_synthetic = with_synthetic | (selected.column >= pool.num_originals)
        self.record_synthetic_ratio(is_synthetic, keep)
        return lmu.logsumexp(
            selected.similarity - positive_term.unsqueeze(1),
            keep_mask=keep,
            add_one=True,
        ).squeeze(1)

    def official_losses(self, kinds: Sequence[Tensor]) -> Tensor:
        """Shape (n,): the released loss's softmax over twelve kinds of pairs."""
        candidates = angular_candidates(kinds, torch.tan(self.alpha) ** 2)
        others = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
        winner = candidates.argmax(-1)
        # Of the twelve, the first is (a, p) and the fourth (p, a).
        self.record_synthetic_ratio((winner != 0) & (winner != 3), others)
        targets = torch.arange(len(candidates), device=candidates.device)
        return torch.nn.functional.cross_entropy(
            candidates.amax(-1), targets, reduction="none"
        )
