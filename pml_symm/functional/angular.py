"""The angular loss on the hardest points of a pair and a class."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..validation import check_positive
from .batch import Batch
from .comparison import Compared, Comparison, Scores, rows_of
from .distances import DotProduct
from .loss import Options, Terms, evaluate
from .points import sums_of_two
from .search import compare_groups


def compare_sums(
    batch: Batch, comparison: Comparison, squared_tangent: float | Tensor
) -> Compared:
    """x_i.x_j of every pair, and the selected (X + Y).z for it and every class."""
    scores = Scores(comparison, batch.embeddings, batch.reference)
    classes = scores.classes(batch.reference, batch.groups)
    positive, row_class = scores.of_pairs(batch, classes), None
    if batch.is_one_pair_a_class and not scores.made:
        of_pairs = classes.points[0]
    else:
        anchors = rows_of(batch.embeddings, batch.pairs.anchor)
        of_pairs = scores.pairs(anchors, rows_of(batch.reference, batch.pairs.positive))
        row_class = classes.class_of(batch.pairs.positive)
    limits = None
    if callable(scores.rule):
        # Where f_v is as large as the positive term.
        ratio = (1 + squared_tangent) / (2 * squared_tangent)
        limits = [(ratio * positive.detach()).unsqueeze(1)]
    own = [sums_of_two(of_pairs)], classes.points, scores.distance, scores.rule
    selected = compare_groups(*own, limits)
    return Compared(positive, selected.score, classes, selected, None, row_class)


def angular_terms(
    batch: Batch, comparison: Comparison, squared_tangent: float | Tensor
) -> Terms:
    """L_ij = log(1 + sum_v exp(f_v - 2 (1 + tan^2 alpha) x_i.x_j))."""
    compared = compare_sums(batch, comparison, squared_tangent)
    positive = 2 * (1 + squared_tangent) * compared.positive.unsqueeze(1)
    exponents = 4 * squared_tangent * compared.negative - positive
    exponents = exponents.masked_fill(~compared.keep, -torch.inf)
    losses = pad(exponents, (0, 1)).logsumexp(dim=1)
    return Terms.of_pairs(losses, batch.pairs, compared)


def angular_loss(
    embeddings: Tensor, labels: Tensor, alpha: float = 40, **options: Any
) -> Any:
    """Angular loss with one negative term for each other class.

    With X and Y two of the pair's four points (the pair and its two synthetic points),
    Z_v all points of class v, originals and synthetic:

        f_v  = max 4 tan^2(alpha) (X + Y).z            over X != Y and z of Z_v
        L_ij = log(1 + sum_{v != u} exp(f_v - 2 (1 + tan^2(alpha)) x_i.x_j))

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        alpha: the angle, in degrees; positive.
        **options: of Options; distance is DotProduct(), or DotProduct(normalize=False).

    Returns:
        The mean of the terms; or Terms, whose indices are anchors and positives.

    Raises:
        TypeError: embeddings are not floating-point, or an option is unknown.
        ValueError: shapes do not match, or an option has a wrong value.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import angular_loss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> angular_loss(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(2.6840)
    """
    chosen = Options(**{"distance": DotProduct(), **options})
    if not isinstance(chosen.distance, DotProduct):
        raise ValueError(f"distance must be a DotProduct, got {chosen.distance!r}")

    check_positive(alpha=alpha)
    squared_tangent = math.tan(math.radians(alpha)) ** 2
    terms = partial(angular_terms, squared_tangent=squared_tangent)
    return evaluate(terms, 2, embeddings, labels, chosen)
