"""What positive pairs compete with: a distance as scores, and one answer for a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..validation import Hardness, check_hardness
from .batch import Batch
from .class_groups import ClassGroups, class_groups
from .distances import ByFunction, Distance, DotProduct, Euclidean
from .points import AnyPoints, MadePoints, Points, class_points
from .rules import Rule, asks_for_pairs
from .search import Winners, compare_groups
from .synthesis import Synthesis
from .synthetic_batch import SyntheticBatch

# Distances whose values follow from dot products; they are symmetric.
_BY_PRODUCTS = DotProduct, Euclidean


@dataclass(frozen=True)
class Comparison:
    """How a loss or the miner compares points.

    Args:
        distance: of two points.
        synthesis: the mirror images of a class.
        hardness: "hardest", "semihard", a rank, or a rule.
        pool: makes the points of embeddings and labels in another way than synthesis.

    Raises:
        ValueError: hardness is unknown.
        TypeError: distance or synthesis is of another type.
    """

    distance: Distance
    synthesis: Synthesis = field(default_factory=Synthesis)
    hardness: Hardness | Rule = "hardest"
    pool: Callable[[Tensor, Tensor], SyntheticBatch] | None = None

    def __post_init__(self) -> None:
        check_hardness(self.hardness)
        kinds = {"distance": Distance, "synthesis": Synthesis}
        for name, kind in kinds.items():
            if not isinstance(found := getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be a {kind.__name__}, got {type(found).__name__}"
                )

    @property
    def symmetric(self) -> bool:
        """Whether two points have the same distance in both orders."""
        return type(self.distance) in _BY_PRODUCTS

    @property
    def makes_points(self) -> bool:
        """Whether points have to be made as tensors, and weights are not enough.

        A subclass may compute anything. Near alpha = 1 a synthetic point nearly vanishes,
        and its length is mostly rounding error.
        """
        is_known = self.symmetric and type(self.synthesis) is Synthesis
        if self.pool is not None or not is_known:
            return True
        needs_length = self.distance.normalize or isinstance(self.distance, Euclidean)
        return needs_length and abs(self.synthesis.alpha - 1) < 0.1


class Classes(NamedTuple):
    """The points of the classes of a reference, group by group.

    Attributes:
        points: of each group of classes of equal size.
        groups: the rows of each class, of the reference or of the pool.
        pairing: of the synthesis.
        pool: of made points.
        rows: the rows of the reference that the pool is made of.
    """

    points: Sequence[AnyPoints]
    groups: ClassGroups
    pairing: str
    pool: SyntheticBatch | None = None
    rows: Tensor | None = None

    @property
    def class_of(self) -> Tensor:
        """The class of each row of the reference, int64; undefined for rows in none."""
        if self.pool is None or self.rows is None:
            return self.groups.class_of
        class_of = self.rows.new_zeros(int(self.rows.max()) + 1 if len(self.rows) else 0)
        class_of[self.rows] = self.groups.class_of[: len(self.rows)]
        return class_of

    @property
    def numbers(self) -> Tensor:
        """The number in the pool of every point, class after class, int64."""
        if self.pool is None:
            return self.groups.point_numbers(self.pairing)
        return torch.cat([group.flatten() for group in self.groups.groups])

    @property
    def nearest_original(self) -> Tensor:
        """Each original of the pool itself, and each synthetic point's axis, int64."""
        if self.pool is not None and self.rows is not None:
            return self.rows[self.pool.nearest_original]
        labels = self.groups.row_labels
        rows = torch.arange(len(labels), device=labels.device)
        return torch.cat([rows, self.groups.source_and_axis(self.pairing)[1]])


class Scores:
    """Makes points, and converts a distance's values to their scores and back.

    The score of two points is their dot product, for a similarity; for a Euclidean
    distance d it is -d^2 / 2, or 1 - d^2 / 2 if that normalizes; for made points it is
    the distance's value, negated for a distance.

    Args:
        comparison: how points are compared.
        *embeddings: all that will be compared, shape (B, D) each.
    """

    def __init__(self, comparison: Comparison, *embeddings: Tensor) -> None:
        self.comparison, self.distance = comparison, comparison.distance
        self.made = comparison.makes_points
        self.euclidean = isinstance(self.distance, Euclidean) and not self.made
        self.unit: Tensor | None = None
        if self.euclidean and not self.distance.normalize:
            self.unit = _unit_of_length(embeddings)

    def prepared(self, x: Tensor) -> Tensor:
        """Points as they are compared: normalized, or in a safe unit of length.

        Points are mirrored after this, so a mirror image must stay a mirror image.
        """
        return self.distance.prepared(x) if self.unit is None else x / self.unit

    def classes(self, x: Tensor, groups: ClassGroups) -> Classes:
        """The points of the classes of x, shape (R, D)."""
        pairing = self.comparison.synthesis.pairing
        if not self.made:
            members = [self.prepared(rows_of(x, group)) for group in groups.groups]
            synthesis = self.comparison.synthesis
            return Classes([self._weighted(x, synthesis) for x in members], groups, pairing)
        rows = torch.cat([group.flatten() for group in groups.groups]).sort().values
        points, groups, pool = self._made(x[rows], groups.row_labels[rows])
        return Classes(points, groups, pairing, pool, rows)

    def pairs(self, first: Tensor, second: Tensor) -> AnyPoints:
        """The points of P classes of two members each, of shape (P, D) both."""
        if not self.made:
            members = self.prepared(torch.stack([first, second], dim=1))
            return self._weighted(members, self.comparison.synthesis)
        number = torch.arange(len(first), device=first.device)
        ((points,), *_) = self._made(torch.cat([first, second]), number.repeat(2))
        return points

    def originals(self, x: Tensor) -> AnyPoints:
        """Classes of one original each, shape (C, D)."""
        members = self.prepared(x).unsqueeze(1)
        if not self.made:
            return self._weighted(members, Synthesis(pairing="none"))
        return MadePoints(members, members.new_zeros(len(x), 1, dtype=torch.bool))

    def _weighted(self, members: Tensor, synthesis: Synthesis) -> Points:
        return class_points(members, synthesis, self.distance.normalize, self.euclidean)

    def _made(
        self, x: Tensor, labels: Tensor
    ) -> tuple[list[AnyPoints], ClassGroups, SyntheticBatch]:
        pool = (self.comparison.pool or self.comparison.synthesis.pool)(x, labels)
        groups, points = class_groups(pool.labels), self.prepared(pool.embeddings)
        made = [MadePoints(points[x], x >= pool.num_originals) for x in groups.groups]
        return [*made], groups, pool

    def values(self, scores: Tensor) -> Tensor:
        """Convert scores to the distance's own values."""
        if not self.euclidean:
            return self.distance.similarity(scores)
        squared = 2 * (float(self.distance.normalize) - scores)
        # The root has no gradient at 0: send none there, as torch.cdist does.
        return self._power(squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt())

    def of_values(self, values: Tensor) -> Tensor:
        """Convert the distance's own values to scores."""
        if not isinstance(self.distance, Euclidean) or self.made:
            return self.distance.similarity(values)
        power = self.distance.power
        root = values if power == 1 else values ** (1 / power)
        root = root if self.unit is None else root / self.unit
        return float(self.distance.normalize) - root**2 / 2

    def _power(self, root: Tensor) -> Tensor:
        assert isinstance(self.distance, Euclidean)
        return self.distance.of_root(root if self.unit is None else root * self.unit)

    def _rows(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance's values of rows of prepared embeddings, shapes (..., D)."""
        if self.unit is None:
            return self.distance.rows(x, y)
        return self._power(torch.linalg.vector_norm(x - y, dim=-1))

    def of_pairs(self, batch: Batch, classes: Classes) -> Tensor:
        """The distance's values of the positive pairs, shape (P,)."""
        anchor, positive, _, within_groups = batch.pairs
        if isinstance(self.distance, ByFunction):
            return self.distance.matrix(batch.embeddings, batch.reference)[anchor, positive]
        if within_groups and not self.made:
            values = [self._within(x).flatten() for x in classes.points]
            return values[0] if len(values) == 1 else torch.cat(values)
        ends = rows_of(batch.embeddings, anchor), rows_of(batch.reference, positive)
        return self._rows(*map(self.prepared, ends))

    def _within(self, points: AnyPoints) -> Tensor:
        """The distance's values of every two members of a class, shape (C, ...)."""
        assert isinstance(points, Points)
        m, device = points.num_members, points.members.device
        if m == 2 and not self.euclidean:
            return points.gram[:, 0, 1]
        first, second = torch.triu_indices(m, m, offset=1, device=device)
        if self.euclidean:
            return self._rows(*(points.members.index_select(1, x) for x in (first, second)))
        return points.gram.flatten(1).index_select(1, first * m + second)


def _unit_of_length(embeddings: Sequence[Tensor]) -> Tensor | None:
    """A unit of length in which squares do not overflow, and distances may be small."""
    largest = [x.detach().abs().amax() for x in embeddings if x.numel() > 0]
    if not largest:
        return None
    # Powers of two are exact. Smaller than the largest value, for gradients use it too.
    exponent = (torch.frexp(torch.stack(largest).amax()).exponent - 32).clamp_min(-64)
    return torch.ldexp(torch.ones_like(largest[0]), exponent)


class Selected(NamedTuple):
    """The winners of U rows in C classes; a row class has n rows, one for each limit.

    Attributes:
        blocks: for each group of rows, and each group of columns, what was found.
        rows: the points of each group's row classes.
        columns: the points of each group's column classes.
    """

    blocks: list[list[Winners]]
    rows: Sequence[AnyPoints]
    columns: Sequence[AnyPoints]

    def of_all(self, of_block: Callable[[Winners, int, int], Tensor]) -> Tensor:
        """Shape (U, C), from what it gives for the block of two groups, (R, n, C)."""
        rows = [
            [of_block(found, g, h) for h, found in enumerate(row)]
            for g, row in enumerate(self.blocks)
        ]
        whole = [(x[0] if len(x) == 1 else torch.cat(x, dim=2)).flatten(0, 1) for x in rows]
        return whole[0] if len(whole) == 1 else torch.cat(whole)

    @property
    def score(self) -> Tensor:
        """Shape (U, C), with gradients."""
        return self.of_all(lambda found, *_: found.score)

    @property
    def found(self) -> Tensor:
        """Shape (U, C), bool, whether there is a winner."""
        return self.of_all(lambda found, *_: found.row >= 0)

    @property
    def column_points(self) -> Tensor:
        """Shape (U, C), int64: the column class's point, counted class after class."""
        sizes = [C * L for C, L in (points.shape for points in self.columns)]

        def number(found: Winners, _: int, h: int) -> Tensor:
            (C, L), device = self.columns[h].shape, found.column.device
            return found.column + (torch.arange(C, device=device) * L + sum(sizes[:h]))

        return self.of_all(number)

    @property
    def is_synthetic(self) -> Tensor:
        """Shape (U, C), bool: whether either point is or contains a mirror image."""

        def either(found: Winners, g: int, h: int) -> Tensor:
            row, column = found.row.clamp_min(0).flatten(1), found.column.flatten(0, 1)
            of_row = self.rows[g].synthetic.gather(1, row).view_as(found.row)
            of_column = self.columns[h].synthetic.t().gather(0, column)
            return of_row | of_column.view_as(found.column)

        return self.of_all(either)


def select(
    rows: Sequence[AnyPoints],
    columns: Sequence[AnyPoints],
    comparison: Comparison,
    limits: Sequence[Tensor] | None = None,
    with_score: bool = True,
) -> Selected:
    """H(u, v) of the classes of several groups.

    Args:
        rows: the points of each group's row classes.
        columns: the points of each group's column classes. If they are the rows, the
            diagonal is undefined.
        comparison: how points are compared.
        limits: of each group's row classes, shape (R, n): the scores of the positive
            pairs, if the choice depends on them.
        with_score: whether scores are wanted; else they are meaningless.
    """
    distance, hardness = comparison.distance, comparison.hardness
    same = rows is columns and limits is None and comparison.symmetric
    blocks: list[list[Winners]] = []
    for g, row in enumerate(rows):
        some = None if limits is None else limits[g]
        # The half below the diagonal is that above it.
        blocks.append([blocks[h][g].transposed() for h in range(g if same else 0)])
        for h in range(len(blocks[g]), len(columns)):
            both = row, columns[h], distance, hardness, some, same and g == h, with_score
            blocks[g].append(compare_groups(*both))
    return Selected(blocks, rows, columns)


class Limits(NamedTuple):
    """The scores of the positive pairs that each row class competes with.

    Attributes:
        of_rows: for each group of row classes, shape (R, n).
        row: shape (P,), int64, the row of each pair among all U; None for itself.
        row_class: shape (U,), int64, the row class of each row; None for itself.
    """

    of_rows: Sequence[Tensor]
    row: Tensor | None
    row_class: Tensor | None


def limits_of(scores: Tensor, row_class: Tensor | None, sizes: Sequence[int]) -> Limits:
    """Sort the scores of positive pairs by row class.

    Args:
        scores: shape (P,).
        row_class: shape (P,), int64, of each pair; None if each row class has one pair.
        sizes: how many row classes each group has.
    """
    if row_class is None:
        return Limits([scores.unsqueeze(1)], None, None)
    counts = torch.bincount(row_class, minlength=sum(sizes))
    most = [int(x.max()) if len(x) else 0 for x in counts.split(list(sizes))]
    # A group has n rows for each class, as many as its class with the most pairs needs.
    n = counts.new_tensor(most).repeat_interleave(counts.new_tensor(sizes))
    order = row_class.argsort(stable=True)
    place = torch.arange(len(order), device=order.device)
    place = place - (counts.cumsum(0) - counts)[row_class[order]]
    row = torch.empty_like(order)
    row[order] = (n.cumsum(0) - n)[row_class[order]] + place
    # Rows without a pair get some limit, and their winners are not used.
    table = scores.new_zeros(int(n.sum()))
    table[row] = scores
    shapes = list(zip(sizes, most, strict=True))
    of_groups = table.split([x * y for x, y in shapes])
    of_rows = [x.view(shape) for x, shape in zip(of_groups, shapes, strict=True)]
    classes = torch.arange(len(n), device=row.device).repeat_interleave(n)
    return Limits(of_rows, row, classes)


class Compared(NamedTuple):
    """What positive pairs compete with in each of C classes.

    Pairs of one class often compete with the same negatives: then they share a row.

    Attributes:
        distance: whose values these are.
        positive: shape (P,), of the positive pairs.
        negative: shape (U, C), H(u, v), with gradients.
        classes: whose points they are.
        selected: which points they are.
        row: shape (P,), int64, the row of each pair; None where each has its own.
        row_class: shape (U,), int64, the class u of each row; None where the rows are the
            classes.
        all_found: whether there always is a negative.
    """

    distance: Distance
    positive: Tensor
    negative: Tensor
    classes: Classes
    selected: Selected
    row: Tensor | None
    row_class: Tensor | None
    all_found: bool

    @property
    def keep(self) -> Tensor:
        """Shape (U, C), bool: False at a row's own class and where no candidate may win."""
        number = torch.arange(self.negative.shape[1], device=self.negative.device)
        row_class = number if self.row_class is None else self.row_class
        keep = number != row_class.unsqueeze(1)
        return keep if self.all_found else keep & self.selected.found

    def of_pairs(self, x: Tensor) -> Tensor:
        """The row of each pair, shape (P, ...), from x of shape (U, ...)."""
        return x if self.row is None else rows_of(x, self.row)

    @property
    def synthetic_ratio(self) -> float | None:
        """The share of negatives with a synthetic end; None without negatives."""
        keep = self.of_pairs(self.keep)
        found = self.of_pairs(self.selected.is_synthetic)[keep]
        return found.float().mean().item() if len(found) else None

    @property
    def nearest_originals(self) -> Tensor:
        """Shape (U, C), int64: the original nearest to the selected point of v."""
        number = self.classes.numbers[self.selected.column_points]
        return self.classes.nearest_original[number]


def compare(batch: Batch, comparison: Comparison) -> Compared:
    """The values of the positive pairs, and of the hardest points of other classes.

    Args:
        batch: the points and the positive pairs.
        comparison: how points are compared.
    """
    scores = Scores(comparison, batch.embeddings, batch.reference)
    classes = scores.classes(batch.reference, batch.groups)
    positive = scores.of_pairs(batch, classes)
    row = row_class = limits = None
    if scores.made or not (batch.pairs.within_groups and batch.groups.are_pairs):
        row = classes.class_of[batch.pairs.positive]
    if asks_for_pairs(comparison.hardness):
        sizes = [points.shape[0] for points in classes.points]
        limits, row, row_class = limits_of(scores.of_values(positive.detach()), row, sizes)
    selected = select(classes.points, classes.points, comparison, limits)
    negative, all_found = scores.values(selected.score), limits is None
    return Compared(
        *(comparison.distance, positive, negative, classes, selected),
        *(row, row_class, all_found),
    )


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """x[index], with a far cheaper backward pass."""
    rows = x.index_select(0, index.flatten())
    return rows if index.ndim == 1 else rows.unflatten(0, index.shape)
