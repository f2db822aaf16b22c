"""SymmMiner: the hardest original or synthetic point of every other class."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from .class_groups import ClassGroups, class_groups, other_classes
from .functional import at_least_float32, class_pair_hardness
from .pml import IndicesTuple, is_self_comparison, positive_pairs, similarity_from
from .selection import Scores, rows_of, select
from .symm_synthesizer import SymmSynthesizer, synthesizer_or_default
from .synthetic_batch import SyntheticBatch
from .validation import (
    Hardness,
    check_batch,
    check_choice,
    check_hardness,
    rank_of,
    whole_labels,
)


class SymmMiner(BaseMiner):
    """Mines, for every embedding and every other class, the hardest of its points.

    Returns a 4-tuple (a1, p, a2, n): every positive pair, always two originals, and
    for every embedding a2 and every other class the point n of that class that is
    hardest for it by self.distance. A selected synthetic point is returned as its axis,
    the nearer of its two originals, so that every index is a row of the miner's input.

    Args:
        hardness: "hardest"; an int k for the k-th hardest point of each class, or the
            easiest where there are fewer; "semihard" for triplets (a, p, n) instead:
            for every positive pair and every other class the hardest point farther
            from a than p is, where there is one.
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
            ref_labels: shape (R,), required with ref_emb and not allowed without.

        Returns:
            (a1, p, a2, n), or (a, p, n) for hardness="semihard"; int64 tensors.

        Raises:
            TypeError: embeddings are not floating-point.
            ValueError: shapes do not match.
        """
        check_batch(embeddings, labels, ref_emb, ref_labels)
        labels, ref_labels = whole_labels(labels, ref_labels)
        return super().forward(embeddings, labels, ref_emb, ref_labels)

    @torch.no_grad()
    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> IndicesTuple:
        """PML's hook: mine with every positive pair."""
        if not Scores.supports(self.distance, self.synthesizer):
            pool = self.synthesizer(ref_emb, ref_labels)
            pairs = positive_pairs(None, labels, ref_labels)
            return self.mine_pool(pool, pairs, embeddings, labels)
        groups = class_groups(ref_labels)
        if is_self_comparison(labels, ref_labels):
            first, second = groups.positive_pairs()
            pairs = torch.cat([first, second]), torch.cat([second, first])
            order = torch.argsort(pairs[0] * len(labels) + pairs[1])
            pairs = pairs[0][order], pairs[1][order]
        else:
            pairs = positive_pairs(None, labels, ref_labels)
        made_of = None
        if self.index_space == "pool":
            made_of = self.synthesizer.source_and_axis(ref_labels)
        return self._mine_scores(pairs, embeddings, labels, ref_emb, groups, made_of)

    @torch.no_grad()
    def mine_pool(
        self,
        pool: SyntheticBatch,
        pairs: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
    ) -> IndicesTuple:
        """Mine an existing pool with the given positive pairs.

        Args:
            pool: the points to mine, made by this miner's synthesizer from a whole batch.
            pairs: anchors, indices into embeddings, and positives, into the pool.
            embeddings: shape (B, D), floating.
            labels: shape (B,), on the device of embeddings.

        Returns:
            As forward.
        """
        if Scores.supports(self.distance, self.synthesizer):
            originals = pool.embeddings[: pool.num_originals]
            groups = class_groups(pool.labels[: pool.num_originals])
            made_of = pool.source, pool.axis
            return self._mine_scores(pairs, embeddings, labels, originals, groups, made_of)
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
        return self._tuple(pairs, row, negatives)

    def _mine_scores(
        self,
        pairs: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        groups: ClassGroups,
        made_of: tuple[Tensor, Tensor] | None,
    ) -> IndicesTuple:
        """As forward, where Scores supports the distance and the synthesizer.

        Args:
            pairs: the positive pairs.
            embeddings: shape (B, D).
            labels: shape (B,).
            ref_emb: shape (R, D).
            groups: the classes of ref_emb.
            made_of: sources and axes of the pool's synthetic points, for
                index_space="pool".
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            query, reference = at_least_float32(embeddings), at_least_float32(ref_emb)
            scores = Scores(self.distance, self.synthesizer, query, reference)
            scores.record_norms(query, reference)
            query, ceiling = scores.prepare(query), None
            if self.hardness == "semihard":
                query, labels = query[pairs[0]], labels[pairs[0]]
                positives = scores.prepare(reference[pairs[1]])
                ceiling = scores.of_values(scores.pairwise(query, positives))
            selected = select(
                [scores.points(query.unsqueeze(1), pairing="none")],
                scores.points_of_classes(reference, groups),
                rank_of(self.hardness),
                ceiling,
            )
        if labels is groups.row_labels:
            # All rows have the same number of negatives, so no mask is needed. Each of
            # these tensors is as large as the result, so delete each after its last use.
            point = selected.column_point()
            del selected
            other = other_classes(groups.num_classes, labels.device)[groups.class_of]
            num_others = other.shape[1]
            point = point.gather(1, other).flatten()
            del other
            row = torch.arange(len(labels), device=labels.device)
            row = row.repeat_interleave(num_others)
        else:
            keep = labels.unsqueeze(1) != groups.labels
            if ceiling is not None:
                keep &= selected.score != -torch.inf
            row, column = torch.where(keep)
            point = selected.column_point()[row, column]
        source, axis = groups.source_and_axis(self.synthesizer.pairing)
        if self.collect_stats and len(row) > 0:
            is_synthetic = rows_of(source != axis, point)
            self.synthetic_ratio = is_synthetic.float().mean().item()
        if self.index_space == "pool" and made_of is not None:
            # Every pairing sorts the synthetic points by source, then by axis.
            in_pool = torch.searchsorted(
                made_of[0] * len(ref_emb) + made_of[1], source * len(ref_emb) + axis
            )
            axis = torch.where(source == axis, axis, len(ref_emb) + in_pool)
        return self._tuple(pairs, row, rows_of(axis, point))

    def _tuple(
        self, pairs: tuple[Tensor, Tensor], row: Tensor, negatives: Tensor
    ) -> IndicesTuple:
        """The mined tuple; row indexes embeddings, or positive pairs if "semihard"."""
        if self.hardness == "semihard":
            return pairs[0][row], pairs[1][row], negatives
        return *pairs, row, negatives
