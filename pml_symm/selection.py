"""The hardest points of classes as a PML distance compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pytorch_metric_learning.distances import (
    BaseDistance,
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
)
from torch import Tensor

from .class_groups import ClassGroups
from .hardest_pair import HardestPair, hardest_pair
from .point_weights import Points, class_points
from .symm_synthesizer import SymmSynthesizer

_EPS = 1e-12  # as torch.nn.functional.normalize has it


class Scores:
    """Computes the values of a distance from dot products of points.

    The score of two points is their dot product, for a similarity; for a Euclidean
    distance d it is -d^2 / 2, or 1 - d^2 / 2 if that normalizes.

    Args:
        distance: a PML distance that `supports` accepts.
        synthesizer: of the points.
        *embeddings: all that will be compared, shape (B, D) each.
    """

    def __init__(
        self, distance: BaseDistance, synthesizer: SymmSynthesizer, *embeddings: Tensor
    ) -> None:
        self.distance, self.synthesizer = distance, synthesizer
        self.normalized = bool(distance.normalize_embeddings)
        self.euclidean = not distance.is_inverted
        self.unit: Tensor | None = None
        if self.euclidean and not self.normalized:
            self.unit = _unit_of_length(embeddings)

    @staticmethod
    def supports(distance: BaseDistance, synthesizer: SymmSynthesizer) -> bool:
        """Whether dot products are enough: else the points have to be computed.

        A subclass may compute anything, so it is not supported. Near alpha = 1 a synthetic
        point nearly vanishes, and its length is mostly rounding error.
        """
        if type(synthesizer) is not SymmSynthesizer or distance.p != 2:
            return False
        needs_length = distance.normalize_embeddings or not distance.is_inverted
        if needs_length and abs(synthesizer.alpha - 1) < 0.1:
            return False
        if type(distance) is LpDistance:
            return distance.power > 0
        is_product = type(distance) in (DotProductSimilarity, CosineSimilarity)
        return is_product and distance.power == 1

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Embeddings as they are compared: normalized, or in a safe unit of length.

        Points are mirrored after this, so a mirror image must stay a mirror image.
        """
        if self.unit is not None:
            return embeddings / self.unit
        if not self.normalized:
            return embeddings
        # As torch.nn.functional.normalize, with a backward pass in half the time.
        squared = torch.linalg.vecdot(embeddings, embeddings).clamp_min(_EPS**2)
        return embeddings * squared.rsqrt().unsqueeze(-1)

    def points(self, members: Tensor, pairing: str | None = None) -> Points:
        """The points of classes of one size.

        Args:
            members: shape (C, m, D), prepared.
            pairing: instead of the synthesizer's.
        """
        made_by = self.synthesizer
        return class_points(
            members,
            made_by.alpha,
            made_by.beta,
            pairing or made_by.pairing,
            self.normalized,
            self.euclidean,
        )

    def points_of_classes(self, embeddings: Tensor, groups: ClassGroups) -> list[Points]:
        """The points of each group's classes, from embeddings before prepare."""
        return [
            self.points(self.prepare(rows_of(embeddings, group))) for group in groups.groups
        ]

    def values(self, scores: Tensor) -> Tensor:
        """Convert scores to the distance's own values."""
        if not self.euclidean:
            return scores
        squared = 2 * (float(self.normalized) - scores)
        # The root has no gradient at 0: send none there, as torch.cdist does.
        return self._power(squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt())

    def of_values(self, values: Tensor) -> Tensor:
        """Convert the distance's own values to scores."""
        if not self.euclidean:
            return values
        root = values if self.distance.power == 1 else values ** (1 / self.distance.power)
        if self.unit is not None:
            root = root / self.unit
        return float(self.normalized) - root**2 / 2

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        """The distance's values of rows of prepared embeddings, shapes (..., D)."""
        if not self.euclidean:
            return torch.linalg.vecdot(query, reference)
        # Not from the dot product, which cannot tell near points from equal ones.
        return self._power(torch.linalg.vector_norm(query - reference, dim=-1))

    def within_classes(self, points: Sequence[Points]) -> Tensor:
        """The distance's values of the pairs of ClassGroups.positive_pairs, shape (P,)."""
        values = []
        for members, gram in ((x.members, x.gram) for x in points):
            m = members.shape[1]
            first, second = torch.triu_indices(m, m, offset=1, device=members.device)
            if self.euclidean:
                first, second = (members.index_select(1, x) for x in (first, second))
                value = self.pairwise(first, second)
            else:
                value = gram.flatten(1).index_select(1, first * m + second)
            values.append(value.flatten())
        return torch.cat(values)

    def _power(self, root: Tensor) -> Tensor:
        if self.unit is not None:
            root = root * self.unit
        return root if self.distance.power == 1 else root**self.distance.power

    def record_norms(self, embeddings: Tensor, ref_emb: Tensor) -> None:
        """Record what the distance records when it is called, if stats are on."""
        self.distance.reset_stats()
        if self.distance.collect_stats:
            self.distance.set_default_stats(
                embeddings,
                ref_emb,
                self.distance.maybe_normalize(embeddings),
                self.distance.maybe_normalize(ref_emb),
            )


def _unit_of_length(embeddings: Sequence[Tensor]) -> Tensor | None:
    """A unit of length in which squares do not overflow, and distances may be small."""
    largest = [x.detach().abs().amax() for x in embeddings if x.numel() > 0]
    if not largest:
        return None
    # Powers of two are exact. Smaller than the largest value, for gradients use it too.
    exponent = (torch.frexp(torch.stack(largest).amax()).exponent - 32).clamp_min(-64)
    return torch.ldexp(torch.ones_like(largest[0]), exponent)


class Selected(NamedTuple):
    """The selected pair of points for every row class and column class.

    Attributes:
        blocks: for each group of rows, and each group of columns, what was found.
        rows: the points of each group's row classes.
        columns: the points of each group's column classes.
    """

    blocks: list[list[HardestPair]]
    rows: Sequence[Points]
    columns: Sequence[Points]

    @property
    def score(self) -> Tensor:
        """Shape (R, C), as HardestPair has it, with gradients."""
        return _assemble([[found.score for found in row] for row in self.blocks])

    def column_point(self) -> Tensor:
        """Shape (R, C), int64: the column's point.

        Its number among all points of all column classes, class after class.
        """
        numbers, first = [], 0
        for points in self.columns:
            size, num_points = points.weights.shape[:2]
            device = points.weights.device
            numbers.append(torch.arange(size, device=device) * num_points + first)
            first += size * num_points
        return _assemble(
            [
                [found.selected[1] + x for found, x in zip(row, numbers, strict=True)]
                for row in self.blocks
            ]
        )

    def is_synthetic(self) -> Tensor:
        """Shape (R, C), bool: whether either point has a synthetic part."""
        return _assemble(
            [
                [
                    (found.selected[0] >= row.num_originals)
                    | (found.selected[1] >= column.num_originals)
                    for found, column in zip(of_row, self.columns, strict=True)
                ]
                for of_row, row in zip(self.blocks, self.rows, strict=True)
            ]
        )


def select(
    rows: Sequence[Points],
    columns: Sequence[Points],
    rank: int = 1,
    ceiling: Tensor | None = None,
) -> Selected:
    """H(u, v) of the classes of several groups.

    Args:
        rows: the points of each group's row classes.
        columns: the points of each group's column classes. If they are the rows, without
            a ceiling, H is symmetric, and its diagonal undefined.
        rank: which candidate to select, 1 for the hardest.
        ceiling: shape (R,), as hardest_pair takes it.
    """
    symmetric = rows is columns and ceiling is None
    ceilings: Sequence[Tensor | None] = [None] * len(rows)
    if ceiling is not None:
        ceilings = ceiling.split([len(row.members) for row in rows])
    blocks: list[list[HardestPair]] = []
    for g, row in enumerate(rows):
        blocks.append([])
        for h, column in enumerate(columns):
            if symmetric and h < g:
                score, selected = blocks[h][g]
                turned = selected.flip(0).transpose(1, 2)
                blocks[g].append(HardestPair(score.t(), turned))
            else:
                blocks[g].append(hardest_pair(row, column, rank, ceilings[g]))
    return Selected(blocks, rows, columns)


def _assemble(blocks: Sequence[Sequence[Tensor]]) -> Tensor:
    if len(blocks) == 1 and len(blocks[0]) == 1:
        return blocks[0][0]
    return torch.cat([torch.cat(list(row), dim=1) for row in blocks])


def rows_of(embeddings: Tensor, index: Tensor) -> Tensor:
    """embeddings[index], with a far cheaper backward pass."""
    rows = embeddings.index_select(0, index.flatten())
    return rows if index.ndim == 1 else rows.unflatten(0, index.shape)
