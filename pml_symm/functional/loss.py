"""A loss on plain tensors: checks, precision and the reduction around its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..validation import check_batch, check_choice, check_pairs, check_samples_per_class
from .batch import Batch, PositivePairs, make_batch, promise_kept
from .comparison import Comparison
from .distances import Distance
from .precision import finite_or_nan, in_one_precision
from .rules import Hardness
from .synthesis import Synthesis

# Of the reference, in messages.
NAMES = "reference", "reference_labels"


class Terms(NamedTuple):
    """The terms of a loss.

    Attributes:
        losses: shape (T,).
        indices: shape (T,), int64, each: the anchors; anchors and positives; or anchors,
            positives and negatives.
        compared: what they are made of; has the share of negatives with a synthetic end.
    """

    losses: Tensor
    indices: tuple[Tensor, ...]
    compared: Any = None

    @classmethod
    def of_pairs(cls, losses: Tensor, pairs: PositivePairs, *compared: Any) -> Terms:
        """A term for each positive pair, in the orders that it stands for.

        >>> pair = torch.tensor([0]), torch.tensor([1])
        >>> Terms.of_pairs(torch.ones(1), PositivePairs(*pair, within_groups=True)).indices
        (tensor([0, 1]), tensor([1, 0]))
        """
        anchor, positive = pairs[:2]
        if pairs.within_groups:
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
            never waits for a GPU, except, for more than two samples, with "semihard" or a
            rule; with a ByFunction, or a subclass of Synthesis; and with alpha from 0.9 to
            1.1, unless products are not normalized.
        reduction: "mean" for a loss of shape (), 0 without any terms; "none" for Terms.
    """

    distance: Distance
    synthesis: Synthesis | None = None  # torch.compile takes no instance as a default
    hardness: Hardness = "hardest"
    reference: Tensor | None = None
    reference_labels: Tensor | None = None
    pairs: tuple[Tensor, Tensor] | None = None
    samples_per_class: int | None = None
    reduction: Literal["mean", "none"] = "mean"

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, ("mean", "none"))
        check_samples_per_class(self.samples_per_class)
        check_pairs(self.pairs)


def checked(
    compute: Callable[..., Any],
    embeddings: Tensor,
    labels: Tensor,
    reference: Tensor | None,
    reference_labels: Tensor | None,
    samples_per_class: int | None,
    names: tuple[str, str] = ("ref_emb", "ref_labels"),
) -> Any:
    """What compute gives for checked inputs, a loss or Terms, in float32 or better.

    The loss is NaN for embeddings that are not finite, and for a broken promise.
    """
    labels, of_reference = check_batch(
        embeddings, labels, reference, reference_labels, names
    )
    kept = promise_kept(labels if of_reference is None else of_reference, samples_per_class)
    points, others = in_one_precision(embeddings, reference)
    with torch.autocast(embeddings.device.type, enabled=False):
        device = embeddings.device
        of_reference = None if of_reference is None else of_reference.to(device)
        found = compute(points, labels.to(device), others, of_reference)
    loss = found.losses if isinstance(found, Terms) else found
    if not isinstance(loss, Tensor):  # it has not been reduced
        return found
    loss = finite_or_nan(loss, points, others)
    if kept is not None:
        loss = loss * torch.where(kept.to(loss.device), 1.0, torch.nan)
    return found._replace(losses=loss) if isinstance(found, Terms) else loss


def evaluate(
    terms: Callable[[Batch, Comparison], Terms],
    num_indices: int,
    embeddings: Tensor,
    labels: Tensor,
    options: Options,
    mean: Callable[[Tensor], Tensor] = torch.mean,
    one_pair_a_class: bool = False,
) -> Any:
    """A loss as a function: the mean of the terms, which have so many indices each."""
    synthesis = Synthesis() if options.synthesis is None else options.synthesis
    comparison = Comparison(options.distance, synthesis, options.hardness)

    def compute(
        points: Tensor,
        labels: Tensor,
        reference: Tensor | None,
        of_reference: Tensor | None,
    ) -> Tensor | Terms:
        batch = make_batch(
            points,
            labels,
            reference,
            of_reference,
            options.pairs,
            symmetric=comparison.symmetric,
            samples_per_class=options.samples_per_class,
            one_pair_a_class=one_pair_a_class,
            name="pairs",
        )
        if batch.is_empty:
            nothing = batch.pairs.anchor[:0]
            found = Terms(points.flatten()[:0], (nothing,) * num_indices)
        else:
            found = terms(batch, comparison)
        if options.reduction == "none":
            return found
        return mean(found.losses) if len(found.losses) else (points * 0).sum()

    return checked(
        *(compute, embeddings, labels, options.reference, options.reference_labels),
        *(options.samples_per_class, NAMES),
    )
