"""What the four losses share: arguments, precision, and PML's terms."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import pml
from .functional.batch import Batch, make_batch
from .functional.comparison import Comparison
from .functional.loss import Terms, checked
from .functional.rules import Hardness
from .symm_synthesizer import SymmSynthesizer
from .validation import (
    check_choice,
    check_hardness,
    check_kind,
    check_samples_per_class,
    checked_pairs,
)

_REDUCTIONS = "already_reduced", "element", "pos_pair", "triplet"


class SymmMixin:
    """Comes before a PML loss among the base classes of the four Symm losses."""

    # Of PML's losses.
    distance: Any
    collect_stats: bool
    zero_losses: Any

    # Whether the classes are reduced to one pair each, as in PML's NPairsLoss.
    one_pair_a_class = False

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
        self.synthesizer = SymmSynthesizer() if synthesizer is None else synthesizer
        check_kind("synthesizer", self.synthesizer, SymmSynthesizer)
        self.add_to_recordable_attributes(  # type: ignore[attr-defined]
            name="synthetic_ratio", is_stat=True
        )

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: pml.IndicesTuple | None = None,
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
        pml.c_f.labels_required(labels)
        assert labels is not None
        given = pml.given_reference(embeddings, labels, ref_emb, ref_labels)

        def compute(points: Tensor, labels: Tensor, *reference: Tensor | None) -> Any:
            return super(SymmMixin, self).forward(  # type: ignore[misc]
                points, labels, indices_tuple, *reference
            )

        return checked(compute, embeddings, labels, *given, self.samples_per_class)

    def compute_loss(self, *inputs: Any) -> dict:
        """PML's hook: its dictionary of the terms; records synthetic_ratio."""
        batch = self.batch(*inputs)
        terms = None if batch.is_empty else self.terms(batch)
        # Last, for a distance also records the norms of points that the terms compare.
        embeddings, _, _, ref_emb, _ = inputs
        pml.record_norms(self.distance, embeddings, ref_emb)
        if terms is None:
            return self.zero_losses()
        losses, indices, compared = terms
        if self.collect_stats and (ratio := compared.synthetic_ratio) is not None:
            self.synthetic_ratio = ratio
        if losses.numel() == 0:
            return self.zero_losses()
        return {
            "loss": {
                "losses": losses,
                "indices": indices[0] if len(indices) == 1 else indices or None,
                "reduction_type": _REDUCTIONS[len(indices)],
            }
        }

    def batch(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: pml.IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> Batch:
        """The arguments of PML's hook, with classes and positive pairs."""
        chosen = pml.pairs_of_tuple(indices_tuple)
        if self.one_pair_a_class:
            pml.c_f.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
            if chosen is not None:
                pairs = checked_pairs(chosen, labels, labels)
                four = *pairs, *pairs  # PML's function does not look at the negatives
                chosen = pml.lmu.convert_to_pos_pairs_with_unique_labels(four, labels)
        return make_batch(
            embeddings,
            labels,
            *pml.given_reference(embeddings, labels, ref_emb, ref_labels),
            chosen,
            symmetric=self.comparison.symmetric,
            samples_per_class=self.samples_per_class,
            one_pair_a_class=self.one_pair_a_class,
        )

    def terms(self, batch: Batch) -> Terms:
        """The terms of a batch in which there is something to compare."""
        raise NotImplementedError

    @property
    def comparison(self) -> Comparison:
        """How the loss compares points."""
        return self.synthesizer.comparison(pml.core_distance(self.distance), self.hardness)


class CandidatesMixin(SymmMixin):
    """Adds candidates="official" to the losses whose code the authors released."""

    def __init__(self, *args: Any, candidates: str = "all", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_choice("candidates", candidates, ("all", "official"))
        self.candidates = candidates
        if candidates == "all":
            return
        released = 'candidates="official" reproduces the released code, which'
        if self.hardness != "hardest":
            raise ValueError(
                f'{released} knows only hardness="hardest", got hardness={self.hardness!r}'
            )
        if self.synthesizer.pairing == "none":
            raise ValueError(
                f"{released} always synthesizes, got a synthesizer with pairing='none'"
            )
