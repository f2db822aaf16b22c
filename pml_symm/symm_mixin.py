"""What the four losses share: arguments, precision, and the selected negatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .class_hardness import ClassHardness, Gram, class_hardness
from .class_layout import ClassLayout, balanced_layout, class_layout, is_balanced
from .functional import (
    at_least_float32,
    class_pair_hardness,
    finite_or_nan,
)
from .pml import IndicesTuple, c_f, lmu, positive_pairs, similarity_from
from .symm_synthesizer import SymmSynthesizer, synthesizer_or_default
from .synthetic_batch import SyntheticBatch
from .validation import (
    Hardness,
    check_batch,
    check_choice,
    check_divides,
    check_hardness,
    check_samples_per_class,
    rank_of,
)


class Negatives(NamedTuple):
    """What P positive pairs compete with in each of C classes.

    Pairs of one class often compete with the same: then they share a row.

    Attributes:
        hardness: shape (U, C), H(u, v) in the distance's own values, with gradients.
        keep: shape (U, C), bool, False at the pair's own class and where no candidate
            is semi-hard.
        original: shape (U, C), int64, the original nearest to the selected point of v;
            may be empty where it was not asked for.
        row: shape (P,), int64, the row of each pair.
        classes: shape (C,), the labels of the classes.
    """

    hardness: Tensor
    keep: Tensor
    original: Tensor
    row: Tensor
    classes: Tensor


class SymmMixin:
    """Comes before a PML loss among the base classes of the four Symm losses."""

    def __init__(
        self,
        *args: Any,
        synthesizer: SymmSynthesizer | None = None,
        hardness: Hardness = "hardest",
        samples_per_class: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_hardness(hardness)
        check_samples_per_class(samples_per_class)
        self.hardness = hardness
        self.samples_per_class = samples_per_class
        self.synthesizer = synthesizer_or_default(synthesizer)
        self.add_to_recordable_attributes(  # type: ignore[attr-defined]
            name="synthetic_ratio", is_stat=True
        )

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss, in float32 or better whatever the dtype or autocast.

        Args:
            embeddings: shape (B, D), floating.
            labels: shape (B,).
            indices_tuple: selects the positive pairs; the negatives are Symm's own.
            ref_emb: shape (R, D): positives and the classes' points come from here if
                given.
            ref_labels: shape (R,), given exactly where ref_emb is.

        Returns:
            What the reducer returns, usually a scalar; not a number where embeddings
            or ref_emb are not finite, or where the labels on a GPU, or in compiled code,
            break the promise of samples_per_class.

        Raises:
            TypeError: embeddings that are not floating.
            ValueError: shapes that do not fit, no labels, an unusable tuple, or labels
                that break the promise of samples_per_class.
        """
        c_f.labels_required(labels)
        check_batch(embeddings, labels, ref_emb, ref_labels)
        kept = self._promise_kept(labels if ref_labels is None else ref_labels)
        points = at_least_float32(embeddings)
        reference = None if ref_emb is None else at_least_float32(ref_emb)
        if ref_emb is embeddings:
            reference = points
        with torch.autocast(embeddings.device.type, enabled=False):
            loss = super().forward(  # type: ignore[misc]
                points, labels, indices_tuple, reference, ref_labels
            )
        loss = finite_or_nan(loss, points, reference)
        if kept is None or not isinstance(loss, Tensor):
            return loss
        return loss * torch.where(kept.to(loss.device), 1.0, torch.nan)

    def _promise_kept(self, labels: Tensor) -> Tensor | None:
        """Shape (), bool; None if nothing was promised, or it was looked at already."""
        if self.samples_per_class is None:
            return None
        check_divides(self.samples_per_class, labels)
        kept = is_balanced(labels, self.samples_per_class)
        if labels.device.type != "cpu" or torch.compiler.is_compiling():
            return kept
        if not kept:
            raise ValueError(
                "labels must name every class samples_per_class="
                f"{self.samples_per_class} times, got counts "
                f"{torch.unique(labels, return_counts=True)[1].unique().tolist()}"
            )
        return None

    def layout(self, ref_labels: Tensor) -> ClassLayout:
        """Which rows belong to which class, without a look if that was promised."""
        if self.samples_per_class is None:
            return class_layout(ref_labels)
        return balanced_layout(ref_labels, self.samples_per_class)

    def class_hardness(
        self, embeddings: Tensor, layout: ClassLayout, originals: bool
    ) -> tuple[Gram, ClassHardness]:
        """H(u, v) by the Gram matrix.

        Args:
            embeddings: shape (B, D).
            layout: of their labels.
            originals: tell which originals they are.
        """
        gram = Gram(self.distance, self.synthesizer, rank_of(self.hardness))  # type: ignore[attr-defined]
        details = originals or self.collect_stats  # type: ignore[attr-defined]
        return gram, class_hardness(gram, embeddings, layout, details)

    def compare(
        self,
        pairs: tuple[Tensor, Tensor] | None,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
        originals: bool = True,
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Negatives]:
        """Positive pairs, the distance's values of them, and what they compete with.

        Args:
            pairs: anchors and positives, or None for all.
            embeddings: shape (B, D).
            labels: shape (B,).
            ref_emb: shape (R, D).
            ref_labels: shape (R,).
            originals: tell which originals the negatives are.
        """
        distance = self.distance  # type: ignore[attr-defined]
        if not Gram.supports(distance, self.synthesizer, self.hardness):
            if pairs is None:
                pairs = positive_pairs(None, labels, ref_labels)
            return pairs, *self._compare_points(pairs, embeddings, ref_emb, ref_labels)
        layout = self.layout(ref_labels)
        gram, selected = self.class_hardness(ref_emb, layout, originals)
        gram.record_norms(embeddings, ref_emb)
        if pairs is None and ref_emb is embeddings:
            anchors, positives = layout.positive_pairs()
            values = torch.cat([x.flatten() for x in selected.within])
        else:
            anchors, positives = pairs or positive_pairs(None, labels, ref_labels)
            values = gram.pairwise(embeddings[anchors], ref_emb[positives])
        row, classes = layout.class_of[positives], layout.labels
        keep = ~torch.eye(len(classes), dtype=torch.bool, device=ref_emb.device)
        self.record_synthetic_ratio(selected.is_synthetic, keep, row)
        negatives = Negatives(
            gram.values(selected.similarity), keep, selected.original, row, classes
        )
        return (anchors, positives), values, negatives

    def _compare_points(
        self,
        pairs: tuple[Tensor, Tensor],
        embeddings: Tensor,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> tuple[Tensor, Negatives]:
        """As compare, for distances that need the synthetic points themselves."""
        anchors, positives = pairs
        classes, ref_classes = torch.unique(ref_labels, return_inverse=True)
        pool = self.synthesizer(ref_emb, ref_classes)
        distance = self.distance  # type: ignore[attr-defined]
        matrix = distance(pool.embeddings)
        from_batch = matrix if embeddings is ref_emb else distance(embeddings, ref_emb)
        positive_values = from_batch[anchors, positives]
        negatives = self.select_negatives(
            pool, matrix, classes, ref_classes[positives], positive_values
        )
        return positive_values, negatives

    def select_negatives(
        self,
        pool: SyntheticBatch,
        matrix: Tensor,
        labels: Tensor,
        pair_classes: Tensor,
        positive_values: Tensor,
    ) -> Negatives:
        """H(u, v) for every positive pair's class u and every class v of the pool.

        Args:
            pool: the classes' points, N in all; pool.labels number the classes from 0.
            matrix: shape (N, N), the distance's values of these points.
            labels: shape (C,), of the classes.
            pair_classes: shape (P,), the class u of each positive pair.
            positive_values: shape (P,), the distance's values of the positive pairs.
        """
        distance = self.distance  # type: ignore[attr-defined]
        classes = torch.arange(len(labels), device=labels.device)
        selected = class_pair_hardness(
            similarity_from(distance, matrix),
            pool.labels,
            pool.labels,
            (len(labels), len(labels)),
            self.hardness,
            pair_classes,
            similarity_from(distance, positive_values),
        )
        if self.hardness == "semihard":
            row_classes = pair_classes
            row = torch.arange(len(pair_classes), device=labels.device)
        else:
            row_classes, row = classes, pair_classes
        keep = selected.found & (classes != row_classes.unsqueeze(1))
        is_synthetic = torch.maximum(selected.row, selected.column) >= pool.num_originals
        self.record_synthetic_ratio(is_synthetic, keep, row)
        return Negatives(
            similarity_from(distance, selected.similarity),
            keep,
            pool.nearest_original[selected.column],
            row,
            labels,
        )

    def record_synthetic_ratio(
        self, is_synthetic: Tensor, keep: Tensor, row: Tensor | None = None
    ) -> None:
        """Record the share of kept negatives with a synthetic end, if stats are on."""
        if not self.collect_stats:  # type: ignore[attr-defined]
            return
        if row is not None:
            is_synthetic, keep = is_synthetic[row], keep[row]
        if keep.any():
            self.synthetic_ratio = is_synthetic[keep].float().mean().item()


class CandidatesMixin(SymmMixin):
    """Adds candidates="official" to the losses whose code the authors released."""

    def __init__(self, *args: Any, candidates: str = "all", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_choice("candidates", candidates, ("all", "official"))
        if candidates == "official" and self.hardness != "hardest":
            raise ValueError(
                'candidates="official" reproduces the released code, which knows only '
                f'hardness="hardest", got hardness={self.hardness!r}'
            )
        self.candidates = candidates

    def one_pair_a_class(
        self, indices_tuple: IndicesTuple | None, labels: Tensor
    ) -> Tensor:
        """Shape (n, 2): anchor and positive of each class with a pair, as PML has it."""
        if indices_tuple is None:
            return self.layout(labels).first_pairs()
        positive_pairs(indices_tuple, labels, labels)  # for its errors
        return torch.stack(
            lmu.convert_to_pos_pairs_with_unique_labels(indices_tuple, labels), dim=1
        )
