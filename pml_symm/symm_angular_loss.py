"""SymmAngularLoss: the angular loss on the hardest points of a pair and a class."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance, DotProductSimilarity, LpDistance
from pytorch_metric_learning.losses import AngularLoss

from . import official
from .functional.angular import angular_terms
from .functional.batch import Batch
from .functional.comparison import Comparison
from .functional.distances import DotProduct
from .functional.loss import Terms
from .symm_mixin import CandidatesMixin
from .validation import check_positive


class SymmAngularLoss(CandidatesMixin, AngularLoss):
    """Angular loss with one negative term for each other class.

    With X and Y two of the pair's four points (the pair and its two synthetic points),
    Z_v all points of class v, originals and synthetic:

        f_v  = max 4 tan^2(alpha) (X + Y).z            over X != Y and z of Z_v
        L_ij = log(1 + sum_{v != u} exp(f_v - 2 (1 + tan^2(alpha)) x_i.x_j))

    The distance decides whether all points are normalized, or none. (PML's AngularLoss
    normalizes the pair, but not the negatives.)

    Args:
        alpha: the angle, in degrees; positive.
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        hardness: "hardest"; an int k for the k-th hardest of the candidates, six
            pairs {X, Y} times the points of the class; "semihard" for the hardest one
            below the positive term, dropping the term where there is none; or a rule.
        candidates: "all", or "official" for exactly the authors' released loss: one
            pair for each class, (X_i + Y_i).Y_j over the twelve ordered pairs of
            different kinds, and the maximum on the diagonal too.
        samples_per_class: the m of PML's MPerClassSampler: a promise that every batch
            has m samples of each of its classes, in any order. The loss then never
            waits for a GPU, and can be compiled and captured in a CUDA graph, but in the
            cases that functional.Options names.
        distance: LpDistance or DotProductSimilarity with p=2 and power=1; only whether
            it normalizes matters.
        **kwargs: arguments of PML's AngularLoss: reducer, embedding_regularizer,
            embedding_reg_weight, collect_stats.

    Raises:
        ValueError: an argument is unknown, or does not fit the others.
        TypeError: synthesizer is not a SymmSynthesizer.

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
        check_positive(alpha=alpha)
        # PML's constructor rejects distances that do not normalize: set them after it.
        super().__init__(alpha=alpha, **kwargs)
        if distance is not None:
            is_known = isinstance(distance, (LpDistance, DotProductSimilarity))
            if not is_known or distance.p != 2 or distance.power != 1:
                own = [f"{x}={getattr(distance, x, None)}" for x in ("p", "power")]
                raise ValueError(
                    "distance must be LpDistance or DotProductSimilarity with p=2 and "
                    f"power=1, got {type(distance).__name__}({', '.join(own)})"
                )
            self.distance = distance
        self.one_pair_a_class = self.candidates == "official"

    def terms(self, batch: Batch) -> Terms:
        """One for each positive pair."""
        (anchor, positive, *_), of_reference = batch.pairs, batch.groups.row_labels
        ends = batch.embeddings[anchor], batch.reference[positive]
        normalize, squared_tangent = (
            self.distance.maybe_normalize,
            torch.tan(self.alpha) ** 2,
        )
        if self.collect_stats:
            others = of_reference[positive].unsqueeze(1) != of_reference
            # PML's takes its distance's values for lengths: ours need not be lengths.
            stats = AngularLoss(collect_stats=True)
            pair = map(normalize, ends)
            stats.set_stats(*pair, batch.embeddings, batch.reference, others)
            self.average_angle = stats.average_angle
        if self.candidates == "all":
            return angular_terms(batch, self.comparison, squared_tangent)
        points = official.four_points(*ends, self.synthesizer.reflect)
        found = official.angular(points, normalize, squared_tangent)
        return Terms(found.losses, (anchor, positive), found)

    @property
    def comparison(self) -> Comparison:
        """How the loss compares points: by dot products."""
        product = DotProduct(bool(self.distance.normalize_embeddings))
        return self.synthesizer.comparison(product, self.hardness)
