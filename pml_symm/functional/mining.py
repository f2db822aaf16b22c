"""The hardest original or synthetic point of every other class, as indices."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..validation import check_batch, check_choice, check_pairs
from .batch import make_batch
from .comparison import Classes, Comparison, Scores, limits_of, rows_of
from .distances import Euclidean
from .loss import NAMES
from .precision import in_one_precision
from .search import compare_groups


class Mined(NamedTuple):
    """What the miner finds."""

    indices: tuple[Tensor, ...]  # (a1, p, a2), or (a, p) if the choice depends on pairs
    point: Tensor  # of each negative, int64: counted class after class
    classes: Classes  # of the negatives

    def within(self, index_space: str) -> tuple[Tensor, ...]:
        """With the negatives' numbers in the "pool", or their axes, rows of the "batch"."""
        is_pool, classes = index_space == "pool", self.classes
        number = classes.numbers if is_pool else classes.nearest_original
        return *self.indices, rows_of(number, self.point)


@torch.no_grad()
def mine_points(
    embeddings: Tensor,
    labels: Tensor,
    reference: Tensor | None,
    reference_labels: Tensor | None,
    comparison: Comparison,
    chosen: tuple[Tensor, Tensor] | None = None,
    name: str = "indices_tuple",
) -> Mined:
    """Find the hardest points of other classes; arguments as for make_batch, checked."""
    query, others = in_one_precision(embeddings, reference)
    with torch.autocast(embeddings.device.type, enabled=False):
        batch = make_batch(query, labels, others, reference_labels, chosen, name=name)
        scores = Scores(comparison, query, batch.reference)
        classes = scores.classes(batch.reference, batch.groups)
        anchor, positive = batch.pairs[:2]
        limits = in_row = None
        if callable(scores.rule):
            values = scores.of_values(scores.of_pairs(batch, classes))
            limits, in_row, _ = limits_of(values, anchor, [len(labels)])
        own = [scores.originals(query)], classes.points, scores.distance, scores.rule
        selected = compare_groups(*own, limits, with_score=False)
    point = selected.column_point
    if in_row is None:
        keep = labels.unsqueeze(1) != classes.groups.labels
        row = torch.arange(len(labels), device=labels.device)
        row = row.repeat_interleave(keep.sum(1))
        return Mined((anchor, positive, row), point.masked_select(keep), classes)
    keep = labels[anchor].unsqueeze(1) != classes.groups.labels
    pair, column = torch.where(keep & (selected.row >= 0)[in_row])
    point = point[in_row[pair], column]
    return Mined((anchor[pair], positive[pair]), point, classes)


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
    check_pairs(pairs)
    labels, of_reference = check_batch(
        embeddings, labels, reference, reference_labels, NAMES
    )
    device = embeddings.device
    of_reference = None if of_reference is None else of_reference.to(device)
    given = embeddings, labels.to(device), reference, of_reference
    return mine_points(*given, comparison, pairs, "pairs").within(index_space)
