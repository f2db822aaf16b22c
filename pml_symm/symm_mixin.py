"""What the four losses share: arguments, precision, and the selected negatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .class_groups import ClassGroups, balanced_class_groups, class_groups, is_balanced
from .functional import at_least_float32, class_pair_hardness, finite_or_nan
from .pml import (
    IndicesTuple,
    c_f,
    is_self_comparison,
    lmu,
    positive_pairs,
    similarity_from,
)
from .selection import Scores, rows_of, select
from .symm_synthesizer import SymmSynthesizer, synthesizer_or_default
from .validation import (
    Hardness,
    check_batch,
    check_choice,
    check_divides,
    check_hardness,
    check_samples_per_class,
    rank_of,
    whole_labels,
)


class PositivePairs(NamedTuple):
    """The positive pairs that a loss works on.

    Attributes:
        anchor: shape (P,), int64, rows of embeddings.
        positive: shape (P,), int64, rows of ref_emb.
        both_ways: whether each also stands for the pair (positive, anchor), which has
            the same loss.
        within_groups: whether they are the pairs of ClassGroups.positive_pairs.
    """

    anchor: Tensor
    positive: Tensor
    both_ways: bool = False
    within_groups: bool = False

    def loss_dictionary(self, losses: Tensor) -> dict:
        """PML's loss dictionary, from the losses of the pairs, shape (P,).

        >>> pair = torch.tensor([0]), torch.tensor([1])
        >>> PositivePairs(*pair, both_ways=True).loss_dictionary(torch.ones(1))["loss"]
        {'losses': tensor([1., 1.]), 'indices': (tensor([0, 1]), tensor([1, 0])), \
'reduction_type': 'pos_pair'}
        """
        indices = self.anchor, self.positive
        if self.both_ways:
            losses = losses.repeat(2)
            indices = torch.cat(indices), torch.cat(indices[::-1])
        return {
            "loss": {"losses": losses, "indices": indices, "reduction_type": "pos_pair"}
        }


class Negatives(NamedTuple):
    """What P positive pairs compete with in each of C classes.

    Pairs of one class often compete with the same negatives: then they share a row.

    Attributes:
        hardness: shape (U, C), H(u, v) in the distance's own values, with gradients.
        keep: shape (U, C), bool, False at the pair's own class and where no candidate
            is semi-hard.
        original: shape (U, C), int64, the original nearest to the selected point of v;
            empty where it was not asked for.
        row: shape (P,), int64, the row of each pair; None where each has its own.
    """

    hardness: Tensor
    keep: Tensor
    original: Tensor
    row: Tensor | None

    def of_pairs(self, x: Tensor) -> Tensor:
        """The row of each pair, shape (P, ...), from x of shape (U, ...)."""
        return x if self.row is None else rows_of(x, self.row)


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
            ref_labels: shape (R,), required with ref_emb and not allowed without.

        Returns:
            What the reducer returns, usually a scalar; NaN where embeddings
            or ref_emb are not finite, or where the labels on a GPU, or in compiled code,
            break the promise of samples_per_class.

        Raises:
            TypeError: embeddings that are not floating.
            ValueError: shapes do not match, no labels, an unusable tuple, or labels
                that break the promise of samples_per_class.
        """
        c_f.labels_required(labels)
        check_batch(embeddings, labels, ref_emb, ref_labels)
        labels, ref_labels = whole_labels(labels, ref_labels)
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
        """Whether labels keep the promise, shape (); None if there is nothing to check."""
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

    def class_groups(self, ref_labels: Tensor) -> ClassGroups:
        """Which rows belong to which class; samples_per_class avoids a wait for the GPU."""
        if self.samples_per_class is None:
            return class_groups(ref_labels)
        return balanced_class_groups(ref_labels, self.samples_per_class)

    def positive_pairs(
        self,
        indices_tuple: IndicesTuple | None,
        labels: Tensor,
        ref_labels: Tensor,
        groups: ClassGroups,
    ) -> PositivePairs:
        """The pairs of the tuple, or all.

        Args:
            indices_tuple: as forward takes it.
            labels: shape (B,).
            ref_labels: shape (R,); the same object where there is no reference.
            groups: of ref_labels.
        """
        # Unsupported distances may depend on which of two points comes first.
        is_symmetric = Scores.supports(self.distance, self.synthesizer)  # type: ignore[attr-defined]
        is_whole = indices_tuple is None and is_self_comparison(labels, ref_labels)
        if is_whole and is_symmetric:
            return PositivePairs(*groups.positive_pairs(), True, True)
        return PositivePairs(*positive_pairs(indices_tuple, labels, ref_labels))

    def compare(
        self,
        pairs: PositivePairs,
        embeddings: Tensor,
        ref_emb: Tensor,
        groups: ClassGroups,
        originals: bool = False,
    ) -> tuple[Tensor, Negatives]:
        """The distance's values of positive pairs, and what the pairs compete with.

        Args:
            pairs: the positive pairs.
            embeddings: shape (B, D).
            ref_emb: shape (R, D).
            groups: of its labels.
            originals: tell which originals the negatives are.
        """
        distance = self.distance  # type: ignore[attr-defined]
        if not Scores.supports(distance, self.synthesizer):
            return self._compare_made_points(pairs, embeddings, ref_emb, groups)
        scores = Scores(distance, self.synthesizer, embeddings, ref_emb)
        scores.record_norms(embeddings, ref_emb)
        points = scores.points_of_classes(ref_emb, groups)
        classes = torch.arange(groups.num_classes, device=ref_emb.device)
        if pairs.within_groups:
            values = scores.within_classes(points)
        else:
            values = scores.pairwise(
                scores.prepare(rows_of(embeddings, pairs.anchor)),
                scores.prepare(rows_of(ref_emb, pairs.positive)),
            )
        row = None
        if not (pairs.within_groups and groups.are_pairs):
            row = groups.class_of[pairs.positive]
        if self.hardness == "semihard":
            # Each pair is a row of its own, where only what is less similar competes.
            pair_classes = classes if row is None else row
            row_classes, order = torch.sort(pair_classes, stable=True)
            row = torch.argsort(order)
            rows = [
                x.rows(index)
                for x, index in zip(points, groups.split(row_classes), strict=True)
            ]
            selected = select(
                rows, points, ceiling=scores.of_values(values.detach()[order])
            )
        else:
            row_classes = classes
            selected = select(points, points, rank_of(self.hardness))
        score = selected.score
        keep = classes != row_classes.unsqueeze(1)
        if self.hardness == "semihard":
            keep = keep & (score != -torch.inf)
            score = score.masked_fill(~keep, 0)
        if self.collect_stats:  # type: ignore[attr-defined]
            self.record_synthetic_ratio(selected.is_synthetic(), keep, row)
        original = row_classes.new_empty(0)
        if originals:
            _, axis = groups.source_and_axis(self.synthesizer.pairing)
            original = rows_of(axis, selected.column_point())
        return values, Negatives(scores.values(score), keep, original, row)

    def _compare_made_points(
        self,
        pairs: PositivePairs,
        embeddings: Tensor,
        ref_emb: Tensor,
        groups: ClassGroups,
    ) -> tuple[Tensor, Negatives]:
        """As compare, for distances that need the synthetic points themselves."""
        distance = self.distance  # type: ignore[attr-defined]
        rows = torch.cat([group.flatten() for group in groups.groups]).sort().values
        class_of = groups.class_of
        pool = self.synthesizer(ref_emb[rows], class_of[rows])
        matrix = distance(pool.embeddings)
        if is_self_comparison(embeddings, ref_emb):
            first, second = (torch.searchsorted(rows, x.contiguous()) for x in pairs[:2])
            values = matrix[first, second]
        else:
            values = distance(embeddings, ref_emb)[pairs.anchor, pairs.positive]
        classes = torch.arange(groups.num_classes, device=ref_emb.device)
        row_classes = pair_classes = class_of[pairs.positive]
        selected = class_pair_hardness(
            similarity_from(distance, matrix),
            pool.labels,
            pool.labels,
            (groups.num_classes, groups.num_classes),
            self.hardness,
            pair_classes,
            similarity_from(distance, values),
        )
        if self.hardness == "semihard":
            row = torch.arange(len(pair_classes), device=classes.device)
        else:
            row_classes, row = classes, pair_classes
        keep = selected.found & (classes != row_classes.unsqueeze(1))
        is_synthetic = torch.maximum(selected.row, selected.column) >= pool.num_originals
        self.record_synthetic_ratio(is_synthetic, keep, row)
        hardness = similarity_from(distance, selected.similarity)
        original = rows[pool.nearest_original[selected.column]]
        return values, Negatives(hardness, keep, original, row)

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
        if candidates == "official" and self.synthesizer.pairing == "none":
            raise ValueError(
                'candidates="official" reproduces the released code, which always '
                "synthesizes, got a synthesizer with pairing='none'"
            )
        self.candidates = candidates

    def one_pair_a_class(
        self, indices_tuple: IndicesTuple | None, labels: Tensor
    ) -> Tensor:
        """Shape (n, 2): anchor and positive of each class with a pair, as PML has it."""
        if indices_tuple is None:
            return self.class_groups(labels).first_pairs()
        positive_pairs(indices_tuple, labels, labels)  # for its errors
        return torch.stack(
            lmu.convert_to_pos_pairs_with_unique_labels(indices_tuple, labels), dim=1
        )
