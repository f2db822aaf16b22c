"""A loss on plain tensors: checks, precision and the reduction around its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..validation import (
    Hardness,
    check_batch,
    check_choice,
    check_samples_per_class,
    whole_labels,
)
from .batch import Batch, PositivePairs, make_batch, promise_kept
from .comparison import Compared, Comparison
from .distances import Distance
from .precision import at_least_float32, finite_or_nan
from .rules import Rule
from .synthesis import Synthesis

# Of the reference, in messages.
NAMES = "reference", "reference_labels"


def check_pairs(pairs: object) -> None:
    """Raise ValueError unless pairs are None or two tensors."""
    is_two = isinstance(pairs, tuple | list) and len(pairs) == 2
    if pairs is None or (is_two and all(isinstance(x, Tensor) for x in pairs)):  # type: ignore[attr-defined]
        return
    raise ValueError(
        "pairs must be two tensors, anchors and positives, got "
        f"{f'{len(pairs)} values' if isinstance(pairs, tuple | list) else pairs!r}"
    )


class Terms(NamedTuple):
    """The terms of a loss.

    Attributes:
        losses: shape (T,).
        indices: shape (T,), int64, each: the anchors; anchors and positives; or anchors,
            positives and negatives.
        compared: what they are made of, with the share of synthetic negatives.
    """

    losses: Tensor
    indices: tuple[Tensor, ...]
    compared: Compared | None = None

    @classmethod
    def of_pairs(cls, losses: Tensor, pairs: PositivePairs, *compared: Any) -> Terms:
        """A term for each positive pair, in the orders that it stands for.

        >>> pair = torch.tensor([0]), torch.tensor([1])
        >>> Terms.of_pairs(torch.ones(1), PositivePairs(*pair, both_ways=True)).indices
        (tensor([0, 1]), tensor([1, 0]))
        """
        anchor, positive = pairs[:2]
        if pairs.both_ways:
            losses = losses.repeat(2)
            anchor, positive = torch.cat(pairs[:2]), torch.cat(pairs[1::-1])
        return cls(losses, (anchor, positive), *compared)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments that all losses take.

    Attributes:
        distance: of two points; by default the loss's own.
        synthesis: which mirror images the points of a class have; by default Synthesis().
        hardness: "hardest"; an int for that rank; "semihard" for the hardest candidate
            that is farther apart than the positive pair; or a rule, a function of
            Candidates.
        reference: shape (R, D): positives and the classes' points come from here if given.
        reference_labels: shape (R,), required with reference.
        pairs: the positive pairs: anchors, rows of embeddings, and positives, rows of the
            reference, int64 of shape (P,) each; by default all.
        samples_per_class: a promise that every class has so many samples: the loss then
            never waits for a GPU.
        reduction: "mean" for a loss of shape (), 0 without any terms; "none" for Terms.
    """

    distance: Distance
    synthesis: Synthesis | None = None
    hardness: Hardness | Rule = "hardest"
    reference: Tensor | None = None
    reference_labels: Tensor | None = None
    pairs: tuple[Tensor, Tensor] | None = None
    samples_per_class: int | None = None
    reduction: Literal["mean", "none"] = "mean"


def evaluate(
    terms: Callable[[Batch, Comparison], Terms],
    embeddings: Tensor,
    labels: Tensor,
    options: Options,
    mean: Callable[[Tensor], Tensor] = torch.mean,
) -> Any:
    """Check the inputs, compute the terms in float32 or better, and reduce them.

    Args:
        terms: of a checked batch.
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        options: of the loss.
        mean: of the losses, where there are some.

    Raises:
        TypeError: embeddings are not floating-point.
        ValueError: shapes do not match, or an option is unknown.
    """
    check_choice("reduction", options.reduction, ("mean", "none"))
    check_samples_per_class(options.samples_per_class)
    reference, ref_labels = options.reference, options.reference_labels
    check_batch(embeddings, labels, reference, ref_labels, NAMES)
    check_pairs(options.pairs)
    labels, ref_labels = whole_labels(labels, ref_labels, embeddings.device)
    of_reference = labels if ref_labels is None else ref_labels
    kept = promise_kept(of_reference, options.samples_per_class)
    comparison = Comparison(
        options.distance, options.synthesis or Synthesis(), options.hardness
    )
    points = at_least_float32(embeddings)
    others = None if reference is None else at_least_float32(reference)
    with torch.autocast(embeddings.device.type, enabled=False):
        given = None if others is None or ref_labels is None else (others, ref_labels)
        batch = make_batch(
            *(points, labels, given, options.pairs),
            *(comparison.symmetric, options.samples_per_class, "pairs"),
        )
        found = terms(batch, comparison)
    loss = found.losses
    if options.reduction == "mean":
        loss = mean(loss) if len(loss) else (points * 0).sum()
    loss = finite_or_nan(loss, points, others)
    if kept is not None:
        loss = loss * torch.where(kept, 1.0, torch.nan)
    return loss if options.reduction == "mean" else found._replace(losses=loss)
