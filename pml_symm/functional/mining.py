"""The hardest original or synthetic point of every other class, as indices."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..validation import check_batch, check_choice, whole_labels
from .batch import make_batch
from .comparison import Comparison, Scores, limits_of, rows_of, select
from .distances import Euclidean
from .loss import NAMES, check_pairs
from .precision import at_least_float32
from .rules import asks_for_pairs


class Mined(NamedTuple):
    """What the miner finds.

    Attributes:
        indices: (a1, p, a2, n), or (a, p, n) where the choice depends on positive pairs;
            n counts in the pool: originals first, then synthetic points.
        nearest_original: of every point of the pool, int64: each original itself, and
            each synthetic point's axis.
    """

    indices: tuple[Tensor, ...]
    nearest_original: Tensor

    def in_batch(self) -> tuple[Tensor, ...]:
        """The indices with originals alone."""
        return *self.indices[:-1], self.nearest_original[self.indices[-1]]


@torch.no_grad()
def mine_points(
    embeddings: Tensor,
    labels: Tensor,
    reference: tuple[Tensor, Tensor] | None,
    comparison: Comparison,
    chosen: tuple[Tensor, Tensor] | None = None,
    name: str = "indices_tuple",
) -> Mined:
    """Find the hardest points of other classes; the arguments are checked already.

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,), int64 or floating.
        reference: points, shape (R, D), and labels, shape (R,), or None.
        comparison: how points are compared.
        chosen: anchors and positives, or None for all pairs.
        name: of the chosen pairs, for messages.
    """
    query = at_least_float32(embeddings)
    others = None if reference is None else (at_least_float32(reference[0]), reference[1])
    with torch.autocast(embeddings.device.type, enabled=False):
        batch = make_batch(query, labels, others, chosen, name=name)
        scores = Scores(comparison, query, batch.reference)
        classes = scores.classes(batch.reference, batch.groups)
        anchor, positive = batch.pairs[:2]
        of_rows = in_row = None
        if asks_for_pairs(comparison.hardness):
            values = scores.of_values(scores.of_pairs(batch, classes))
            of_rows, in_row, _ = limits_of(values, anchor, [len(labels)])
        rows = [scores.originals(query)]
        selected = select(rows, classes.points, comparison, of_rows, with_score=False)
    number = torch.arange(batch.groups.num_classes, device=labels.device)
    point = selected.column_points
    if in_row is not None:
        # A row for each positive pair.
        point, own = point[in_row], classes.class_of[positive]
        keep = selected.found[in_row] & (own.unsqueeze(1) != number)
        row, column = torch.where(keep)
        indices: tuple[Tensor, ...] = anchor[row], positive[row]
    elif reference is None:
        # All rows have the same number of negatives, so no mask is needed.
        del selected
        row = torch.arange(len(labels), device=labels.device)
        row = row.repeat_interleave(max(0, len(number) - 1))
        column = number[:-1].repeat(len(labels))
        column = column + (column >= classes.class_of[row])
        indices = anchor, positive, row
    else:
        row, column = torch.where(labels.unsqueeze(1) != classes.groups.labels)
        indices = anchor, positive, row
    found = rows_of(classes.numbers, point[row, column])
    return Mined((*indices, found), classes.nearest_original)


def mine(
    embeddings: Tensor,
    labels: Tensor,
    *,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
    pairs: tuple[Tensor, Tensor] | None = None,
    index_space: Literal["batch", "pool"] = "batch",
    **compared: Any,
) -> tuple[Tensor, ...]:
    """Mine, for every embedding and every other class, the hardest of its points.

    Args:
        embeddings: shape (B, D), floating.
        labels: shape (B,).
        reference: shape (R, D): positives and negatives come from here if given.
        reference_labels: shape (R,), required with reference.
        pairs: anchors and positives, int64 of shape (P,) each; by default every pair.
        index_space: "batch": a synthetic point is returned as its axis; "pool": n counts
            in what synthesize returns.
        **compared: distance, synthesis and hardness, as in Options; the distance is
            Euclidean().

    Returns:
        (a1, p, a2, n), or (a, p, n) for "semihard" and for rules; int64.

    Raises:
        TypeError: embeddings are not floating-point, or an option is unknown.
        ValueError: shapes do not match, or an option has a wrong value.

    Source: docs/mathematics.md, "The miner".

    Examples:
        >>> import torch
        >>> from pml_symm.functional import mine
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> a1, p, a2, n = mine(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> n
        tensor([3, 3, 1, 1])
    """
    comparison = Comparison(**{"distance": Euclidean(), **compared})
    check_choice("index_space", index_space, ("batch", "pool"))
    check_batch(embeddings, labels, reference, reference_labels, NAMES)
    check_pairs(pairs)
    labels, reference_labels = whole_labels(labels, reference_labels, embeddings.device)
    given = None
    if reference is not None and reference_labels is not None:
        given = reference, reference_labels
    mined = mine_points(embeddings, labels, given, comparison, pairs, "pairs")
    return mined.indices if index_space == "pool" else mined.in_batch()
