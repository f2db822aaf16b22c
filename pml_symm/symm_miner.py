"""SymmMiner: the hardest point of every other class, originals and synthetic alike."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from .class_hardness import Gram, hardest_points
from .class_layout import ClassLayout, class_layout, other_classes
from .functional import at_least_float32, class_pair_hardness
from .pml import IndicesTuple, positive_pairs, similarity_from
from .symm_synthesizer import SymmSynthesizer, synthesizer_or_default
from .synthetic_batch import SyntheticBatch
from .validation import (
    Hardness,
    check_batch,
    check_choice,
    check_hardness,
    rank_of,
)


class SymmMiner(BaseMiner):
    """Mines, for every embedding and every other class, the hardest of its points.

    Returns a 4-tuple (a1, p, a2, n): every positive pair, always two originals, and
    for every embedding a2 and every other class the point n of that class that is
    hardest for it by self.distance. A synthetic winner is reported as its axis, the
    nearer of its two originals, so that the indices fit what the miner was given.

    Args:
        hardness: "hardest"; an int k for the k-th hardest point of each class, or the
            easiest where there are fewer; "semihard" for triplets (a, p, n) instead:
            for every positive pair and every other class the hardest point farther
            from a than p is, where there is one.
        synthesizer: a SymmSynthesizer; by default SymmSynthesizer().
        index_space: "batch", or "pool" to let n point into the synthesizer's pool
            (originals first, then synthetic points).
        **kwargs: PML's BaseMiner's: distance, collect_stats. With collect_stats the
            miner records synthetic_ratio, the share of negatives that are synthetic.

    Raises:
        ValueError: an unknown hardness or index_space.
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
        self.synthesizer = synthesizer_or_default(synthesizer)
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
            ref_labels: shape (R,), given exactly where ref_emb is.

        Returns:
            (a1, p, a2, n), or (a, p, n) for hardness="semihard"; int64 tensors.

        Raises:
            TypeError: embeddings that are not floating.
            ValueError: shapes that do not fit.
        """
        check_batch(embeddings, labels, ref_emb, ref_labels)
        return super().forward(embeddings, labels, ref_emb, ref_labels)

    @torch.no_grad()
    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> IndicesTuple:
        """PML's hook: mine with every positive pair."""
        if not Gram.supports(self.distance, self.synthesizer, self.hardness):
            pairs = positive_pairs(None, labels, ref_labels)
            pool = self.synthesizer(ref_emb, ref_labels)
            return self.mine_pool(pool, pairs, embeddings, labels)
        layout = class_layout(ref_labels)
        if ref_labels is labels:
            pairs = layout.positive_pairs()
            order = torch.argsort(pairs[0], stable=True)
            pairs = pairs[0][order], pairs[1][order]
        else:
            pairs = positive_pairs(None, labels, ref_labels)
        made_of = None
        if self.index_space == "pool":
            made_of = self.synthesizer.source_and_axis(ref_labels)
        return self._mine_gram(pairs, embeddings, labels, ref_emb, layout, made_of)

    @torch.no_grad()
    def mine_pool(
        self,
        pool: SyntheticBatch,
        pairs: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
    ) -> IndicesTuple:
        """Mine a pool that is made already, with the given positive pairs.

        Args:
            pool: the points to mine, of this miner's synthesizer, from a whole batch.
            pairs: anchors, indices into embeddings, and positives, into the pool.
            embeddings: shape (B, D), floating.
            labels: shape (B,), on the device of embeddings.

        Returns:
            As forward.
        """
        if Gram.supports(self.distance, self.synthesizer, self.hardness):
            layout = class_layout(pool.labels[: pool.num_originals])
            made_of = pool.source, pool.axis
            originals = pool.embeddings[: pool.num_originals]
            return self._mine_gram(pairs, embeddings, labels, originals, layout, made_of)
        anchors, positives = pairs
        classes, column_classes = torch.unique(pool.labels, return_inverse=True)
        with torch.autocast(embeddings.device.type, enabled=False):
            matrix = self.distance(
                at_least_float32(embeddings), at_least_float32(pool.embeddings)
            )
        similarity = similarity_from(self.distance, matrix)
        hardest = class_pair_hardness(
            similarity,
            torch.arange(len(embeddings), device=embeddings.device),
            column_classes,
            (len(embeddings), len(classes)),
            self.hardness,
            anchors,
            similarity[anchors, positives],
        )
        row_labels = labels[anchors] if self.hardness == "semihard" else labels
        keep = hardest.found & (row_labels.unsqueeze(1) != classes)
        row, column = torch.where(keep)
        negatives = hardest.column[row, column]
        if self.collect_stats:
            self.synthetic_ratio = pool.synthetic_ratio(negatives)
        if self.index_space == "batch":
            negatives = pool.nearest_original[negatives]
        if self.hardness == "semihard":
            return anchors[row], positives[row], negatives
        return anchors, positives, row, negatives

    def _mine_gram(
        self,
        pairs: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        layout: ClassLayout,
        made_of: tuple[Tensor, Tensor] | None,
    ) -> IndicesTuple:
        """As forward, for distances that dot products of originals are enough for.

        Args:
            pairs: the positive pairs.
            embeddings: shape (B, D).
            labels: shape (B,).
            ref_emb: shape (R, D).
            layout: of its labels.
            made_of: sources and axes of the pool's synthetic points, for
                index_space="pool".
        """
        gram = Gram(self.distance, self.synthesizer, rank_of(self.hardness))
        gram.record_norms(embeddings, ref_emb)
        in_pool = made_of if self.index_space == "pool" else None
        with torch.autocast(embeddings.device.type, enabled=False):
            axis, source = hardest_points(
                gram,
                at_least_float32(embeddings),
                at_least_float32(ref_emb),
                layout,
                sources=self.collect_stats or in_pool is not None,
            )
        if labels is layout.row_labels:
            # Each row has as many negatives: no mask to search, a third of the memory.
            other = other_classes(axis.shape[1], axis.device)
            other = other.index_select(0, layout.class_of)
            axis = axis.gather(1, other).flatten()
            source = None if source is None else source.gather(1, other).flatten()
            num_others = other.shape[1]
            del other  # as large as what is made next
            anchors = torch.arange(len(labels), device=axis.device)
            anchors = anchors.repeat_interleave(num_others)
        else:
            anchors, column = torch.where(labels.unsqueeze(1) != layout.labels)
            axis = axis[anchors, column]
            source = None if source is None else source[anchors, column]
        if source is None:
            return *pairs, anchors, axis
        is_synthetic = source != axis
        if self.collect_stats and len(anchors) > 0:
            self.synthetic_ratio = is_synthetic.float().mean().item()
        if in_pool is None:
            return *pairs, anchors, axis
        # Both kinds of pairing list the synthetic points by source, then by axis.
        made_of_rows = in_pool[0] * len(ref_emb) + in_pool[1]
        place = torch.searchsorted(made_of_rows, source * len(ref_emb) + axis)
        return *pairs, anchors, torch.where(is_synthetic, len(ref_emb) + place, axis)
