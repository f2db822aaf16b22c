"""What positive pairs compete with: a distance as scores, and one answer for a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..validation import check_hardness, check_kind
from .batch import Batch
from .class_groups import ClassGroups, class_groups, joined
from .distances import ByFunction, Distance, DotProduct, Euclidean
from .points import AnyPoints, MadePoints, Points, class_points
from .rules import Candidates, Hardness, Rule, checked_priority, semihard
from .search import Selected, compare_groups
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
    hardness: Hardness = "hardest"
    pool: Callable[[Tensor, Tensor], SyntheticBatch] | None = None

    def __post_init__(self) -> None:
        check_hardness(self.hardness)
        check_kind("distance", self.distance, Distance)
        check_kind("synthesis", self.synthesis, Synthesis)

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
    """The points of the classes of a reference, group by group."""

    points: Sequence[AnyPoints]
    groups: ClassGroups  # rows of the reference, or of the pool
    pairing: str
    pool: SyntheticBatch | None = None  # of made points
    rows: Tensor | None = None  # of the reference, of which the pool is made, sorted

    def class_of(self, rows: Tensor) -> Tensor:
        """The class of rows of the reference, int64."""
        if self.rows is not None:
            rows = torch.searchsorted(self.rows, rows.contiguous())
        return self.groups.class_of[rows]

    @property
    def numbers(self) -> Tensor:
        """The number in the pool of every point, class after class, int64."""
        return self.groups.rows if self.pool else self.groups.point_numbers(self.pairing)

    @property
    def nearest_original(self) -> Tensor:
        """The row of every original or axis of a point, class after class, int64."""
        if self.pool is None or self.rows is None:
            return self.groups.ends_of_points(self.pairing)[1]
        return self.rows[self.pool.nearest_original[self.numbers]]


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
        self.rule = self._rule(comparison.hardness)
        self.made = comparison.makes_points
        self.euclidean = isinstance(self.distance, Euclidean) and not self.made
        self.unit: Tensor | None = None
        if self.euclidean and not self.distance.normalize:
            self.unit = _unit_of_length(embeddings)

    def _rule(self, hardness: Hardness) -> int | Rule:
        """The rank, or a function of candidates, whose scores are those of this class."""
        if isinstance(hardness, str):
            return 1 if hardness == "hardest" else semihard
        return partial(self._asked, hardness) if callable(hardness) else int(hardness)

    def _asked(self, rule: Rule, candidates: Candidates) -> Tensor:
        """A user's rule, which sees the distance's own values; it may change its inputs."""
        score, positive = (
            self.distance.similarity(self.values(x.clone()))
            for x in (candidates.score, candidates.positive)
        )
        priority = rule(candidates._replace(score=score, positive=positive))
        return checked_priority(priority, candidates.score.shape)

    def prepared(self, x: Tensor) -> Tensor:
        """Points as they are compared: normalized, or in a safe unit of length.

        Points are mirrored after this, so a mirror image must stay a mirror image.
        """
        return self.distance.prepared(x) if self.unit is None else x / self.unit

    def classes(self, x: Tensor, groups: ClassGroups) -> Classes:
        """The points of the classes of x, shape (R, D)."""
        pairing = self.comparison.synthesis.pairing
        if not self.made:
            synthesis = self.comparison.synthesis
            members = (rows_of(x, group) for group in groups.groups)
            return Classes([self._weighted(x, synthesis) for x in members], groups, pairing)
        rows = groups.rows.sort().values
        made, groups, pool = self._made(x[rows], groups.row_labels[rows])
        return Classes(made, groups, pairing, pool, rows)

    def pairs(self, first: Tensor, second: Tensor) -> AnyPoints:
        """The points of P classes of two members each, of shape (P, D) both."""
        if not self.made:
            members = torch.stack([first, second], dim=1)
            return self._weighted(members, self.comparison.synthesis)
        number = torch.arange(len(first), device=first.device)
        points, *_ = self._made(torch.cat([first, second]), number.repeat(2))
        if len(points) > 1:
            raise ValueError("synthesizer must make as many points of each pair")
        return points[0]

    def originals(self, x: Tensor) -> AnyPoints:
        """Classes of one original each, shape (C, D)."""
        if not self.made:
            return self._weighted(x.unsqueeze(1), Synthesis(pairing="none"))
        synthetic = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        return MadePoints(self.prepared(x).unsqueeze(1), synthetic)

    def _weighted(self, members: Tensor, synthesis: Synthesis) -> Points:
        normalize = self.distance.normalize
        return class_points(self.prepared(members), synthesis, normalize, self.euclidean)

    def _made(
        self, x: Tensor, labels: Tensor
    ) -> tuple[Sequence[AnyPoints], ClassGroups, SyntheticBatch]:
        pool = (self.comparison.pool or self.comparison.synthesis.pool)(x, labels)
        groups, points = class_groups(pool.labels), self.prepared(pool.embeddings)
        made = [MadePoints(points[x], x >= pool.num_originals) for x in groups.groups]
        return made, groups, pool

    def values(self, scores: Tensor) -> Tensor:
        """Convert scores to the distance's own values."""
        if not self.euclidean:
            return self.distance.similarity(scores)
        squared = 2 * (float(self.distance.normalize) - scores)
        # The root has no gradient at 0: send none there, as torch.cdist does.
        return self._of_root(squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt())

    def of_values(self, values: Tensor) -> Tensor:
        """Convert the distance's own values to scores."""
        if not isinstance(self.distance, Euclidean) or self.made:
            return self.distance.similarity(values)
        power = self.distance.power
        root = values if power == 1 else values ** (1 / power)
        root = root if self.unit is None else root / self.unit
        return float(self.distance.normalize) - root**2 / 2

    def _of_root(self, root: Tensor) -> Tensor:
        assert isinstance(self.distance, Euclidean)
        return self.distance.of_root(root if self.unit is None else root * self.unit)

    def _rows(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance's values of rows of prepared embeddings, shapes (..., D)."""
        if self.unit is None:
            return self.distance.rows(x, y)
        return self._of_root(torch.linalg.vector_norm(x - y, dim=-1))

    def of_pairs(self, batch: Batch, classes: Classes) -> Tensor:
        """The distance's values of the positive pairs, shape (P,)."""
        anchor, positive = batch.pairs[:2]
        if isinstance(self.distance, ByFunction):
            return self.distance.matrix(batch.embeddings, batch.reference)[anchor, positive]
        if batch.pairs.within_groups and not self.made:
            return joined([self._within(x).flatten() for x in classes.points])
        # Prepared first: a batch often has many more pairs than rows.
        ends = (batch.embeddings, anchor), (batch.reference, positive)
        return self._rows(*(rows_of(self.prepared(x), index) for x, index in ends))

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


def limits_of(
    scores: Tensor, row_class: Tensor, sizes: Sequence[int]
) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    """Sort the scores of P positive pairs by the row class that competes with them.

    Groups have so many row classes. Returns the scores of each group's, shape (R, n); the
    row of each pair among all U, shape (P,); and the row class of each row, shape (U,).
    """
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
    limits = [x.view(shape) for x, shape in zip(of_groups, shapes, strict=True)]
    return limits, row, torch.arange(len(n), device=n.device).repeat_interleave(n)


class Compared(NamedTuple):
    """What positive pairs compete with in each of C classes.

    Pairs of one class often compete with the same negatives: then they share a row.
    """

    positive: Tensor  # (P,), the distance's values of the positive pairs
    negative: Tensor  # (U, C), H(u, v), with gradients
    classes: Classes
    selected: Selected
    row: Tensor | None  # (P,), int64, the row of each pair; None where each has its own
    row_class: Tensor | None  # (U,), int64, of each row; None where rows are the classes

    @property
    def all_found(self) -> bool:
        """Whether there always is a negative."""
        return self.selected.limits is None

    @property
    def keep(self) -> Tensor:
        """Shape (U, C), bool: False at a row's own class and where no candidate may win."""
        number = torch.arange(self.negative.shape[1], device=self.negative.device)
        row_class = number if self.row_class is None else self.row_class
        keep = number != row_class.unsqueeze(1)
        return keep if self.all_found else keep & (self.selected.row >= 0)

    def of_pairs(self, x: Tensor) -> Tensor:
        """The row of each pair, shape (P, ...), from x of shape (U, ...)."""
        return x if self.row is None else rows_of(x, self.row)

    @property
    def class_of_pairs(self) -> Tensor:
        """Shape (P,), int64: the class of each pair."""
        row = self.row
        if row is None:
            row = torch.arange(len(self.positive), device=self.positive.device)
        return row if self.row_class is None else self.row_class[row]

    @property
    def synthetic_ratio(self) -> float | None:
        """The share of negatives with a synthetic end; None without negatives."""
        found = self.of_pairs(self.selected.is_synthetic)[self.of_pairs(self.keep)]
        return found.float().mean().item() if len(found) else None

    @property
    def nearest_originals(self) -> Tensor:
        """Shape (U, C), int64: the selected original of v, or the selected point's axis."""
        return self.classes.nearest_original[self.selected.column_point]


def compare(batch: Batch, comparison: Comparison) -> Compared:
    """The values of the positive pairs, and of the hardest points of other classes."""
    scores = Scores(comparison, batch.embeddings, batch.reference)
    classes = scores.classes(batch.reference, batch.groups)
    points, positive = classes.points, scores.of_pairs(batch, classes)
    row = row_class = None
    limits: Sequence[Tensor] | None = None
    if scores.made or not batch.is_one_pair_a_class:
        row = classes.class_of(batch.pairs.positive)
    if callable(scores.rule):
        of_pairs = scores.of_values(positive.detach())
        if row is None:
            limits = [of_pairs.unsqueeze(1)]
        else:
            sizes = [len(x.synthetic) for x in points]
            limits, row, row_class = limits_of(of_pairs, row, sizes)
    same = limits is None and comparison.symmetric
    selected = compare_groups(points, points, scores.distance, scores.rule, limits, same)
    negative = scores.values(selected.score)
    return Compared(positive, negative, classes, selected, row, row_class)


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """x[index], with a far cheaper backward pass."""
    rows = x.index_select(0, index.flatten())
    return rows if index.ndim == 1 else rows.unflatten(0, index.shape)
