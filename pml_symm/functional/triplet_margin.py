"""The triplet margin loss on the hardest points of each class."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .batch import Batch
from .comparison import Comparison, compare
from .distances import Euclidean
from .loss import Options, Terms, evaluate


def triplet_margin_terms(
    batch: Batch,
    comparison: Comparison,
    margin: float,
    smooth: bool = False,
    listed: bool = True,
) -> Terms:
    """L_ijv = [ d(i,j) - H(u,v) + margin ]_+.

    Unless listed with their indices, the terms have shape (P, C), with zeros where there
    is none, each for one order of the pair.
    """
    compared = compare(batch, comparison)
    negative, keep = map(compared.of_pairs, (compared.negative, compared.keep))
    if batch.pairs.drawn is not None:
        drawn = compared.classes.class_of(batch.pairs.drawn).unsqueeze(1)
        keep = keep & (torch.arange(keep.shape[1], device=keep.device) == drawn)
    violation = comparison.distance.margin(compared.positive.unsqueeze(1), negative)
    violation = (violation + margin).masked_fill(~keep, -torch.inf)
    losses = softplus(violation) if smooth else torch.relu(violation)
    if not listed:
        return Terms(losses, (), compared)
    pair, other = torch.where(keep)
    ends = batch.pairs._replace(
        anchor=batch.pairs.anchor[pair], positive=batch.pairs.positive[pair]
    )
    losses, indices, _ = Terms.of_pairs(losses[pair, other], ends)
    negative = compared.of_pairs(compared.nearest_originals)[pair, other]
    negative = negative.repeat(len(losses) // max(1, len(pair)))
    return Terms(losses, (*indices, negative), compared)


def mean_above_zero(losses: Tensor) -> Tensor:
    """The mean of the terms above zero, shape (), without a list of them."""
    return losses.sum() / torch.count_nonzero(losses).clamp_min(1)


def triplet_margin_loss(
    embeddings: Tensor,
    labels: Tensor,
    margin: float = 0.05,
    smooth_loss: bool = False,
    **options: Any,
) -> Any:
    """Triplet margin loss with one triplet for each positive pair and other class.

    With Z_u all points of class u, originals and synthetic:

        L_ijv = max(0, d(i, j) - H(u, v) + margin)    every positive pair (i, j), v != u

    for a distance; for a similarity the difference changes sign.

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        margin: of the violation.
        smooth_loss: softplus instead of the positive part.
        **options: of Options; distance is Euclidean().

    Returns:
        The mean of the terms above zero; or Terms, whose indices are anchors, positives
        and negatives: the selected originals, and the axes of the selected others.

    Raises:
        TypeError: embeddings are not floating-point, or an option is unknown.
        ValueError: shapes do not match, or an option has a wrong value.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import triplet_margin_loss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> triplet_margin_loss(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.2)
        tensor(0.5496)
    """
    chosen = Options(**{"distance": Euclidean(), **options})

    terms = partial(
        triplet_margin_terms,
        margin=margin,
        smooth=smooth_loss,
        listed=chosen.reduction == "none",
    )
    return evaluate(terms, 3, embeddings, labels, chosen, mean_above_zero)
