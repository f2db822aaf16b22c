"""SymmMiner: the hardest original or synthetic point of every other class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from .functional.mining import mine_points
from .functional.rules import Hardness
from .functional.synthetic_batch import SyntheticBatch
from .pml import IndicesTuple, core_distance, given_reference, record_norms
from .symm_synthesizer import SymmSynthesizer
from .validation import check_batch, check_choice, check_hardness, check_kind


class SymmMiner(BaseMiner):
    """Mines, for every embedding and every other class, the hardest of its points.

    Returns a 4-tuple (a1, p, a2, n): every positive pair, always two originals, and
    for every embedding a2 and every other class the point n of that class that is
    hardest for it by self.distance. A selected synthetic point is returned as its axis,
    so that every index is a row of the miner's input. The axis is the nearer of its two
    originals if these are of equal length and less than 120 degrees apart.

    Args:
        hardness: "hardest"; an int k for the k-th hardest point of each class, or the
            easiest where there are fewer; "semihard" for triplets (a, p, n) instead:
            for every positive pair and every other class the hardest point farther
            from a than p is, where there is one; or a rule, a function of
            functional.Candidates, for triplets likewise.
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        index_space: "batch", or "pool" to let n point into the synthesizer's pool
            (originals first, then synthetic points). Then pass the pool to the loss as
            ref_emb and ref_labels; without it PML raises an IndexError.
        **kwargs: arguments of PML's BaseMiner: distance, collect_stats. With collect_stats
            the miner records synthetic_ratio, the share of negatives that are synthetic.

    Raises:
        ValueError: hardness or index_space is unknown.
        TypeError: synthesizer is not a SymmSynthesizer.

    Default distance: LpDistance(normalize_embeddings=True, p=2, power=1).

    Source: docs/mathematics.md, "The miner".

    Examples:
        >>> import torch
        >>> from pml_symm import SymmMiner
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> a1, p, a2, n = SymmMiner()(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> n
        tensor([3, 3, 1, 1])
    """

    def __init__(
        self,
        hardness: Hardness = "hardest",
        synthesizer: SymmSynthesizer | None = None,
        index_space: str = "batch",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_hardness(hardness)
        check_choice("index_space", index_space, ("batch", "pool"))
        self.hardness = hardness
        self.synthesizer = SymmSynthesizer() if synthesizer is None else synthesizer
        check_kind("synthesizer", self.synthesizer, SymmSynthesizer)
        self.index_space = index_space
        self.add_to_recordable_attributes(name="synthetic_ratio", is_stat=True)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> IndicesTuple:
        """Mine a batch.

        Args:
            embeddings: shape (B, D), floating.
            labels: shape (B,).
            ref_emb: shape (R, D): positives and negatives come from here if given.
            ref_labels: shape (R,), required with ref_emb and not allowed without.

        Returns:
            (a1, p, a2, n), or (a, p, n) for "semihard" and for rules; int64 tensors.

        Raises:
            TypeError: embeddings are not floating-point.
            ValueError: shapes do not match.
        """
        ref_emb, ref_labels = given_reference(embeddings, labels, ref_emb, ref_labels)
        labels, ref_labels = check_batch(embeddings, labels, ref_emb, ref_labels)
        return super().forward(embeddings, labels, ref_emb, ref_labels)

    def mine(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        pairs: tuple[Tensor, Tensor] | None = None,
        pool: SyntheticBatch | None = None,
    ) -> IndicesTuple:
        """PML's hook, which also takes the positive pairs; by default all.

        A pool that the synthesizer made of the reference is used instead of another one.
        """
        reference = given_reference(embeddings, labels, ref_emb, ref_labels)
        distance = core_distance(self.distance)
        comparison = self.synthesizer.comparison(distance, self.hardness)
        if pool is not None and comparison.pool is not None:
            comparison = replace(comparison, pool=lambda *_: pool)
        mined = mine_points(embeddings, labels, *reference, comparison, pairs)
        record_norms(self.distance, embeddings, ref_emb)
        if self.collect_stats and len(mined.point) > 0:
            is_synthetic = mined.within("pool")[-1] >= len(ref_emb)
            self.synthetic_ratio = is_synthetic.float().mean().item()
        return mined.within(self.index_space)
