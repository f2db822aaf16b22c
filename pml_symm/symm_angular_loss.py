"""SymmAngularLoss: the angular loss on the hardest points of a pair and a class."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import (
    BaseDistance,
    DotProductSimilarity,
    LpDistance,
)
from pytorch_metric_learning.losses import AngularLoss
from torch import Tensor
from torch.nn.functional import pad

from .class_groups import ClassGroups
from .functional import class_pair_hardness
from .official import angular_candidates, four_points
from .pml import IndicesTuple, c_f
from .point_weights import sums_of_two
from .selection import Scores, rows_of, select
from .symm_mixin import CandidatesMixin, PositivePairs
from .validation import rank_of


class SymmAngularLoss(CandidatesMixin, AngularLoss):
    """Angular loss with one negative term for each other class.

    With X and Y two of the pair's four points (the pair and its two synthetic points),
    Z_v all points of class v, originals and synthetic:

        f_v  = max 4 tan^2(alpha) (X + Y).z            over X != Y and z of Z_v
        L_ij = log(1 + sum_{v != u} exp(f_v - 2 (1 + tan^2(alpha)) x_i.x_j))

    The distance decides whether all points are normalized, or none. (PML's AngularLoss
    normalizes the pair, but not the negatives.)

    Args:
        alpha: the angle, in degrees.
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates, six
            pairs {X, Y} times the points of the class; "semihard" for the hardest one
            below the positive term 2 (1 + tan^2(alpha)) x_i.x_j, dropping the term
            where there is none.
        candidates: "all", or "official" for exactly the authors' released loss: one
            pair for each class, (X_i + Y_i).Y_j over the twelve ordered pairs of
            different kinds, and the maximum on the diagonal too.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph.
        distance: LpDistance(p=2) or DotProductSimilarity; only whether it normalizes
            matters.
        **kwargs: arguments of PML's AngularLoss: reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: hardness or candidates is unknown, "official" has a hardness other
            than "hardest", or distance is of another kind.

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
        # PML's constructor rejects distances that do not normalize: set them after it.
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
        groups = self.class_groups(ref_labels)
        if self.candidates == "official":
            c_f.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
            anchors, positives = self.one_pair_a_class(indices_tuple, labels).unbind(1)
            pairs = PositivePairs(anchors, positives)
        else:
            pairs = self.positive_pairs(indices_tuple, labels, ref_labels, groups)
        if len(pairs.anchor) == 0 or groups.num_classes == 1:
            return self.zero_losses()
        if self.collect_stats:
            self.set_stats(
                self.distance.maybe_normalize(embeddings[pairs.anchor]),
                self.distance.maybe_normalize(ref_emb[pairs.positive]),
                embeddings,
                ref_emb,
                labels[pairs.anchor].unsqueeze(1) != ref_labels,
            )
        squared_tangent = torch.tan(self.alpha) ** 2
        if self.candidates == "official":
            losses = self.official_losses(pairs, embeddings, squared_tangent)
            return pairs.loss_dictionary(losses)
        # x_i.x_j, and the largest (X + Y).z
        positive, negative, keep = self.compare_sums(
            pairs,
            embeddings,
            ref_emb,
            groups,
            (1 + squared_tangent) / (2 * squared_tangent),
        )
        positive = 2 * (1 + squared_tangent) * positive.unsqueeze(1)
        exponents = (4 * squared_tangent * negative - positive).masked_fill(
            ~keep, -torch.inf
        )
        losses = torch.logsumexp(pad(exponents, (0, 1)), dim=1)
        return pairs.loss_dictionary(losses)

    def compare_sums(
        self,
        pairs: PositivePairs,
        embeddings: Tensor,
        ref_emb: Tensor,
        groups: ClassGroups,
        ceiling: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_i.x_j of every pair, and the selected (X + Y).z for it and every class.

        Args:
            pairs: the positive pairs.
            embeddings: shape (B, D).
            ref_emb: shape (R, D).
            groups: the classes of ref_emb.
            ceiling: semi-hard candidates are below this times x_i.x_j.

        Returns:
            Shapes (P,), (P, C), and (P, C), bool: False at the pair's own class and
            where no candidate is semi-hard.
        """
        normalize = self.distance.normalize_embeddings
        product = DotProductSimilarity(normalize_embeddings=normalize)
        if not Scores.supports(product, self.synthesizer):
            return self._compare_made_sums(pairs, embeddings, ref_emb, groups, ceiling)
        scores = Scores(product, self.synthesizer)
        columns = scores.points_of_classes(ref_emb, groups)
        if pairs.within_groups and groups.are_pairs:
            of_pairs = columns[0]
        else:
            members = rows_of(embeddings, pairs.anchor), rows_of(ref_emb, pairs.positive)
            of_pairs = scores.points(scores.prepare(torch.stack(members, dim=1)))
        positive = of_pairs.gram[:, 0, 1]
        selected = select(
            [sums_of_two(of_pairs)],
            columns,
            rank_of(self.hardness),
            ceiling * positive.detach() if self.hardness == "semihard" else None,
        )
        classes = torch.arange(groups.num_classes, device=positive.device)
        keep = groups.class_of[pairs.positive].unsqueeze(1) != classes
        score = selected.score
        if self.hardness == "semihard":
            keep = keep & (score != -torch.inf)
        if self.collect_stats:
            self.record_synthetic_ratio(selected.is_synthetic(), keep)
        return positive, score, keep

    def _compare_made_sums(
        self,
        pairs: PositivePairs,
        embeddings: Tensor,
        ref_emb: Tensor,
        groups: ClassGroups,
        ceiling: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As compare_sums, where the synthetic points have to be computed."""
        class_of = groups.class_of
        pool = self.synthesizer(ref_emb, class_of)
        points = self.distance.maybe_normalize(pool.embeddings)
        numbers = torch.arange(len(pairs.anchor), device=class_of.device)
        of_pairs = self.synthesizer(
            torch.cat([embeddings[pairs.anchor], ref_emb[pairs.positive]]),
            numbers.repeat(2),
        )
        x = self.distance.maybe_normalize(of_pairs.embeddings)
        positive = (x[: len(numbers)] * x[len(numbers) : 2 * len(numbers)]).sum(dim=1)
        # Every two of the points of a pair, the two originals first.
        of_each = torch.argsort(of_pairs.labels, stable=True).view(len(numbers), -1)
        num_points = of_each.shape[1]
        first, second = torch.triu_indices(
            num_points, num_points, offset=1, device=class_of.device
        )
        products = (x @ points.t())[of_each]
        sums = products[:, first] + products[:, second]
        selected = class_pair_hardness(
            sums.flatten(0, 1),
            numbers.repeat_interleave(len(first)),
            pool.labels,
            (len(numbers), groups.num_classes),
            self.hardness,
            numbers,
            ceiling * positive,
        )
        classes = torch.arange(groups.num_classes, device=class_of.device)
        keep = selected.found & (class_of[pairs.positive].unsqueeze(1) != classes)
        is_synthetic = (selected.row % len(first) > 0) | (
            selected.column >= pool.num_originals
        )
        self.record_synthetic_ratio(is_synthetic, keep)
        return positive, selected.similarity, keep

    def official_losses(
        self, pairs: PositivePairs, embeddings: Tensor, squared_tangent: Tensor
    ) -> Tensor:
        """Shape (n,): the released loss's softmax over twelve kinds of pairs."""
        points = four_points(
            embeddings[pairs.anchor], embeddings[pairs.positive], self.synthesizer.reflect
        )
        candidates = angular_candidates(
            [self.distance.maybe_normalize(x) for x in points], squared_tangent
        )
        others = ~torch.eye(len(candidates), dtype=torch.bool, device=candidates.device)
        winner = candidates.argmax(-1)
        # Of the twelve, the first is (a, p) and the fourth (p, a).
        self.record_synthetic_ratio((winner != 0) & (winner != 3), others)
        targets = torch.arange(len(candidates), device=candidates.device)
        return torch.nn.functional.cross_entropy(
            candidates.amax(-1), targets, reduction="none"
        )
