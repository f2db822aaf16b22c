"""The lifted structure loss on the hardest points of each class."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .batch import Batch
from .comparison import Comparison, compare
from .distances import Euclidean
from .loss import Options, Terms, evaluate


def lifted_structure_terms(
    batch: Batch, comparison: Comparison, neg_margin: float, pos_margin: float
) -> Terms:
    """L_ij = [J_ij]_+^2 / 2.

    J_ij = log sum_{v != u} exp(neg_margin - H(u,v)) + d(i,j) - pos_margin
    """
    compared, margin = compare(batch, comparison), comparison.distance.margin
    repulsion = margin(neg_margin, compared.negative)
    repulsion = repulsion.masked_fill(~compared.keep, -torch.inf).logsumexp(dim=1)
    attraction = margin(compared.positive, pos_margin)
    losses = torch.relu(compared.of_pairs(repulsion) + attraction) ** 2 / 2
    return Terms.of_pairs(losses, batch.pairs, compared)


def lifted_structure_loss(
    embeddings: Tensor,
    labels: Tensor,
    neg_margin: float = 1.0,
    pos_margin: float = 0.0,
    **options: Any,
) -> Any:
    """Lifted structure loss with one negative term for each other class.

    With Z_u all points of class u, originals and synthetic:

        J_ij = log sum_{v != u} exp(neg_margin - H(u, v)) + d(i, j) - pos_margin
        L_ij = max(0, J_ij)^2 / 2                              every positive pair (i, j)

    for a distance; for a similarity the differences change sign.

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        neg_margin: of negatives.
        pos_margin: of positive pairs.
        **options: of Options; distance is Euclidean().

    Returns:
        The mean of the terms; or Terms, whose indices are anchors and positives.

    Raises:
        TypeError: embeddings are not floating-point, or an option is unknown.
        ValueError: shapes do not match, or an option has a wrong value.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import lifted_structure_loss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> lifted_structure_loss(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.9107)
    """
    options = {"distance": Euclidean(), **options}
    terms = partial(lifted_structure_terms, neg_margin=neg_margin, pos_margin=pos_margin)
    return evaluate(terms, 2, embeddings, labels, Options(**options))
