"""The N-pairs loss on the hardest points of pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .batch import Batch
from .comparison import Comparison, compare
from .distances import DotProduct
from .loss import Options, Terms, evaluate


def n_pairs_terms(batch: Batch, comparison: Comparison) -> Terms:
    """L_u = log(1 + sum_{v != u} exp(H(u,v) - a.p)), for pairs of different classes."""
    compared = compare(batch, comparison)
    similarity = comparison.distance.similarity
    logits, positive = similarity(compared.negative), similarity(compared.positive)
    if not compared.all_found:
        logits = logits.masked_fill(~compared.keep, -torch.inf)
    logits, classes = compared.of_pairs(logits), compared.class_of_pairs
    logits = logits.scatter(1, classes.unsqueeze(1), positive.unsqueeze(1))
    losses = cross_entropy(logits, classes, reduction="none")
    return Terms(losses, (batch.pairs.anchor,), compared)


def n_pairs_loss(embeddings: Tensor, labels: Tensor, **options: Any) -> Any:
    """N-pairs loss in which every pair of classes contributes its hardest negative.

    With the first pair (a, p) of each class that has one, and Z_u the pair and its two
    synthetic points:

        L_u = log(1 + sum_{v != u} exp(H(u, v) - a.p))

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        **options: of Options, without reference and pairs; distance is DotProduct().

    Returns:
        The mean of the terms; or Terms, whose indices are the anchors.

    Raises:
        TypeError: embeddings are not floating-point, or an option is unknown.
        ValueError: shapes do not match, or an option has a wrong value.

    Source: Gu & Ko, AAAI 2020; docs/mathematics.md, "Losses".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import n_pairs_loss
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> n_pairs_loss(embeddings, torch.tensor([0, 0, 1, 1]))
        tensor(0.7763)
    """
    chosen = Options(**{"distance": DotProduct(), **options})
    for name in ("reference", "reference_labels", "pairs"):
        if getattr(chosen, name) is not None:
            raise ValueError(f"{name} is not supported by the N-pairs loss")

    return evaluate(n_pairs_terms, 1, embeddings, labels, chosen, one_pair_a_class=True)
