"""What the four losses share: arguments, precision, and PML's terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import pml
from .functional.batch import Batch, make_batch, one_pair_a_class, promise_kept
from .functional.class_groups import class_groups
from .functional.comparison import Comparison
from .functional.loss import Terms
from .functional.precision import at_least_float32, finite_or_nan
from .functional.rules import Rule
from .symm_synthesizer import SymmSynthesizer, synthesizer_or_default
from .validation import (
    Hardness,
    check_batch,
    check_choice,
    check_hardness,
    check_samples_per_class,
    whole_labels,
)

_REDUCTIONS = {1: "element", 2: "pos_pair", 3: "triplet"}


class SymmMixin:
    """Comes before a PML loss among the base classes of the four Symm losses."""

    # Of PML's losses.
    distance: Any
    collect_stats: bool

    def __init__(
        self,
        *args: Any,
        synthesizer: SymmSynthesizer | None = None,
        hardness: Hardness | Rule = "hardest",
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
        check_batch(embeddings, labels, ref_emb, ref_labels)
        if ref_emb is embeddings:  # for PML, too, the batch itself is no reference
            ref_emb = ref_labels = None
        labels, ref_labels = whole_labels(labels, ref_labels)
        kept = self._promise_kept(labels if ref_labels is None else ref_labels)
        points = at_least_float32(embeddings)
        reference = None if ref_emb is None else at_least_float32(ref_emb)
        with torch.autocast(embeddings.device.type, enabled=False):
            loss = super().forward(  # type: ignore[misc]
                points, labels, indices_tuple, reference, ref_labels
            )
        loss = finite_or_nan(loss, points, reference)
        if kept is None or not isinstance(loss, Tensor):
            return loss
        return loss * torch.where(kept.to(loss.device), 1.0, torch.nan)

    def _promise_kept(self, labels: Tensor) -> Tensor | None:
        return promise_kept(labels, self.samples_per_class)

    @property
    def comparison(self) -> Comparison:
        """How the loss compares points."""
        return self.synthesizer.comparison(pml.core_distance(self.distance), self.hardness)

    def batch(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: pml.IndicesTuple | None,
        ref_emb: Tensor,
        ref_labels: Tensor,
    ) -> Batch:
        """The arguments of PML's hook, with classes and positive pairs."""
        pml.record_norms(self.distance, embeddings, ref_emb)
        reference = pml.given_reference(embeddings, ref_emb, ref_labels)
        pairs = pml.pairs_of_tuple(indices_tuple)
        symmetric, promised = self.comparison.symmetric, self.samples_per_class
        return make_batch(embeddings, labels, reference, pairs, symmetric, promised)

    def one_pair_a_class(self, *inputs: Any) -> Batch:
        """As batch, with the pairs of different classes that PML's NPairsLoss has."""
        embeddings, labels, indices_tuple, ref_emb, ref_labels = inputs
        pml.c_f.ref_not_supported(embeddings, labels, ref_emb, ref_labels)
        if indices_tuple is None:
            pml.record_norms(self.distance, embeddings, ref_emb)
            groups = class_groups(labels, self.samples_per_class)
            return one_pair_a_class(embeddings, groups, groups.first_pairs())
        groups = self.batch(*inputs).groups
        pairs = pml.lmu.convert_to_pos_pairs_with_unique_labels(indices_tuple, labels)
        return one_pair_a_class(embeddings, groups, torch.stack(pairs, dim=1))

    def loss_dictionary(self, terms: Terms) -> dict:
        """PML's loss dictionary; records synthetic_ratio if stats are on."""
        if self.collect_stats and terms.compared is not None:
            ratio = terms.compared.synthetic_ratio
            self.synthetic_ratio = (
                getattr(self, "synthetic_ratio", 0) if ratio is None else ratio
            )
        indices, count = terms.indices, len(terms.indices)
        return {
            "loss": {
                "losses": terms.losses,
                "indices": (indices[0] if count == 1 else indices) if count else None,
                "reduction_type": _REDUCTIONS.get(count, "already_reduced"),
            }
        }


class CandidatesMixin(SymmMixin):
    """Adds candidates="official" to the losses whose code the authors released."""

    def __init__(self, *args: Any, candidates: str = "all", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_choice("candidates", candidates, ("all", "official"))
        released = 'candidates="official" reproduces the released code, which'
        if candidates == "official" and self.hardness != "hardest":
            raise ValueError(
                f'{released} knows only hardness="hardest", got hardness={self.hardness!r}'
            )
        if candidates == "official" and self.synthesizer.pairing == "none":
            raise ValueError(
                f"{released} always synthesizes, got a synthesizer with pairing='none'"
            )
        self.candidates = candidates
