"""The search in blocks of all sizes against a table of all candidates.

test_oracle.py has the same blocks for the whole losses.
"""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import normalize
from torch.testing import assert_close

from pml_symm import functional as F
from pml_symm.functional import Synthesis, rules, search
from pml_symm.functional.distances import DotProduct
from pml_symm.functional.points import MadePoints, class_points, sums_of_two

from .covering import covering

DOUBLE = torch.float64
BLOCKS = {
    "whole": {},
    "some classes": {"_CANDIDATES": {"cpu": 300}},
    "one class": {"_CANDIDATES": {"cpu": 100}},
    "chunks of row points": {"_CANDIDATES": {"cpu": 1}},
    "of an unknown device": {"_CANDIDATES": {}, "_MOST_CANDIDATES": 60},
    "computed again": {"_MOST_PRODUCTS": 1, "_MOST_KEPT": 1},
}
# Of classes that are compared with themselves, without the half below the diagonal.
HALVED = {
    "halved": {"_HALVED": {"cpu": 1}},
    "unequal halves": {"_HALVED": {"cpu": 3}},
    "computed again, halved": {"_MOST_PRODUCTS": 100, "_HALVED": {"cpu": 2}},
}
ALL_BLOCKS = {**BLOCKS, **HALVED}
CASES = [
    (1, "all", 2.0, 1.0),
    (2, "all", 2.0, 1.0),
    (3, "all", 2.5, 1.5),
    (4, "ring", 1.5, 0.7),
    (3, "none", 2.0, 1.0),
]
HARDNESS = [1, 3, 1000]


@pytest.fixture
def _blocks(request, monkeypatch):
    for name, value in ALL_BLOCKS[request.param].items():
        monkeypatch.setattr(search, name, value)


def every_two(blocks=BLOCKS, **options):
    """Cases with every two of these options, and every one in all blocks."""
    cases = [tuple(case.values()) for case in covering({"_blocks": [*blocks], **options})]
    return pytest.mark.parametrize(
        ("_blocks", *options),
        cases,
        indirect=["_blocks"],
        ids=lambda x: getattr(x, "__name__", str(x)),
    )


class Found(NamedTuple):
    """Of shape (R, n, C) each."""

    score: Tensor
    row: Tensor
    column: Tensor


def compare(rows, columns, distance, hardness, limits=None, same=False):
    """Compare one group of rows with one of columns."""
    n, of_groups = 1, None
    if limits is not None:
        n, of_groups = limits.shape[1], [limits]
    found = search.compare_groups([rows], [columns], distance, hardness, of_groups, same)
    shape = len(rows.synthetic), n, len(columns.synthetic)
    return Found(*(x.view(shape) for x in found[:3]))


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def all_scores(rows, columns):
    """The scores of all pairs of points, shape (R, K, L, C)."""
    if isinstance(rows, MadePoints):
        return torch.einsum("ukd,vld->uklv", rows.points, columns.points)
    scores = torch.einsum(
        "ukd,vld->uklv", rows.weights @ rows.members, columns.weights @ columns.members
    )
    if rows.bias is not None:
        scores = scores + rows.bias[:, :, None, None]
    if columns.bias is not None:
        scores = scores + columns.bias.t()
    return scores


def check(rows, columns, inputs, hardness=1, limits=None, same=False):
    """Check scores, selected points and gradients, but for the diagonal of `same`."""
    found = compare(rows, columns, DotProduct(False), hardness, limits, same)
    scores = all_scores(rows, columns)
    flat = scores.flatten(1, 2).unsqueeze(1)  # (R, 1, K L, C)
    if limits is None:
        rank = hardness if isinstance(hardness, int) else 1
    else:
        rank = 1
        flat = flat.masked_fill(flat >= limits[:, :, None, None], -torch.inf)
    expected = flat.topk(min(rank, flat.shape[2]), dim=2).values[:, :, -1]
    defined = expected != -torch.inf
    assert torch.equal(found.row >= 0, defined)
    if same:
        defined = defined & ~torch.eye(len(flat), dtype=torch.bool).unsqueeze(1)
    assert_close(found.score[defined], expected[defined])
    u, n, v = torch.where(defined)
    row, column = (x[u, n, v].long() for x in (found.row, found.column))
    assert_close(scores[u, row, column, v], expected[defined])
    through = torch.randn_like(expected[defined])
    terms = ((x[defined] * through).sum() for x in (found.score, expected))
    assert_close(*(torch.autograd.grad(x, inputs, retain_graph=True) for x in terms))
    return found


def some_limits(rows, columns):
    """Two limits of each row class: between the middle scores, and below all of them."""
    scores = all_scores(rows, columns).detach().flatten(1).sort(dim=1).values
    middle = scores.shape[1] // 2
    between = scores[:, middle - 1 : middle + 1].mean(dim=1)
    # Sums of the same points have scores that differ only by rounding: stay clear of them.
    return torch.stack([between + 1e-3, scores[:, 0] - 1], dim=1)


@pytest.mark.usefixtures("_blocks")
class TestBlocks:
    @every_two(ALL_BLOCKS, case=CASES, with_bias=[True, False], hardness=HARDNESS)
    def test_classes_with_themselves(self, case, with_bias, hardness):
        m, pairing, alpha, beta = case
        members = random(7, m, 5)
        points = class_points(members, Synthesis(alpha, beta, pairing), with_bias=with_bias)
        found = check(points, points, members, hardness, same=True)
        # Both ends of a pair of classes have one winner.
        others = ~torch.eye(7, dtype=torch.bool)
        row, column = (x.squeeze(1).long() for x in (found.row, found.column))
        assert torch.equal(row[others], column.t()[others])

    @every_two(
        sizes=[(2, 3), (3, 1)],
        biases=[(False, False), (True, False), (False, True)],
        hardness=HARDNESS,
    )
    def test_groups_of_other_sizes(self, sizes, biases, hardness):
        m, n = sizes
        rows, columns = random(6, m, 5), random(8, n, 5)
        synthesis = Synthesis(1.5, 0.7)
        check(
            class_points(rows, synthesis, with_bias=biases[0]),
            class_points(columns, synthesis, with_bias=biases[1]),
            (rows, columns),
            hardness,
        )

    @every_two(n=[1, 2, 4], hardness=[*HARDNESS, rules.semihard])
    def test_sums_of_two(self, n, hardness):
        rows, columns = random(6, 2, 5), random(8, n, 5)
        row_points = sums_of_two(class_points(rows, Synthesis()))
        column_points = class_points(columns, Synthesis())
        limits = None
        if hardness is rules.semihard:
            limits = some_limits(row_points, column_points)
        check(row_points, column_points, (rows, columns), hardness, limits)

    @every_two(m=[1, 2, 3], with_bias=[True, False])
    def test_limits(self, m, with_bias):
        members = random(7, m, 5)
        points = class_points(members, Synthesis(1.5, 0.7), with_bias=with_bias)
        limits = some_limits(points, points)
        check(points, points, members, rules.semihard, limits)
        # More limits than are asked for one after another.
        check(points, points, members, rules.semihard, limits.repeat(1, 6))

    @every_two(hardness=[*HARDNESS, rules.semihard])
    def test_made_points(self, hardness):
        rows, columns = random(6, 3, 5), random(8, 2, 5)
        nothing = torch.zeros(8, 3, dtype=torch.bool)
        row_points = MadePoints(rows, nothing[:6])
        column_points = MadePoints(columns, nothing[:, :2])
        limits = None
        if hardness is rules.semihard:
            limits = some_limits(row_points, column_points)
        check(row_points, column_points, (rows, columns), hardness, limits)

    @every_two(ALL_BLOCKS, normalized=[True, False], with_bias=[True, False])
    def test_zero_and_equal_vectors_have_finite_gradients(self, normalized, with_bias):
        members = normalize(torch.randn(4, 2, 3, dtype=DOUBLE), dim=2)
        members[0, 0] = 0
        members[1, 1] = members[1, 0]
        members[2] = 0
        members.requires_grad_()
        points = class_points(members, Synthesis(1.5), normalized, with_bias)
        score = compare(points, points, DotProduct(), 1, same=True).score
        assert score.isfinite().all()
        score.sum().backward()
        assert members.grad.isfinite().all()

    @every_two(ALL_BLOCKS, hardness=[1, 3], with_bias=[True, False])
    def test_derivatives(self, hardness, with_bias):
        def score(members):
            points = class_points(members, Synthesis(1.5, 0.8), with_bias=with_bias)
            found = compare(points, points, DotProduct(), hardness, same=True)
            diagonal = torch.eye(len(members), dtype=torch.bool).unsqueeze(1)
            return found.score.masked_fill(diagonal, 0)

        members = random(4, 2, 2)
        assert torch.autograd.gradcheck(score, members)
        assert torch.autograd.gradgradcheck(score, members)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_no_class(sizes):
    rows, columns = (
        class_points(random(size, m, 5), Synthesis())
        for size, m in zip(sizes, (2, 3), strict=True)
    )
    found = compare(rows, columns, DotProduct(), 1)
    assert found.score.shape == found.row.shape == (sizes[0], 1, sizes[1])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("times", [1, 20])
def test_a_limit_is_not_below_itself(times, dtype):
    points = class_points(torch.tensor([[[1.0]], [[2.0]]], dtype=dtype), Synthesis())
    limits = torch.tensor([[2.0], [4.5]], dtype=dtype).repeat(1, times)
    found = compare(points, points, DotProduct(), rules.semihard, limits)
    for n in range(times):
        wins = found.row[:, n] >= 0
        assert wins.tolist() == [[True, False], [True, True]]
        assert found.score[:, n][wins].tolist() == [1.0, 2.0, 4.0]


# Next to each other: infinities, both zeros, the least numbers, and two around one.
VALUES = [-math.inf, -2.0, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.0000001, math.inf]
NANS = [math.nan, math.copysign(math.nan, -1)]


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@given(
    scores=st.lists(st.sampled_from(VALUES + NANS), min_size=24, max_size=24),
    limits=st.lists(st.sampled_from(VALUES), min_size=18, max_size=18),
)
def test_the_largest_below_each_of_many_limits(dtype, scores, limits):
    score = torch.tensor(scores, dtype=dtype).view(2, 3, 2, 2)
    limit = torch.tensor(limits, dtype=dtype).view(2, 9)
    none_is = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    priority, place = rules.best(score, none_is, none_is, rules.semihard, limit)
    for r, n, c in itertools.product(range(2), range(9), range(2)):
        candidates = score[r, :, :, c].flatten().tolist()
        largest = max((x for x in candidates if x < limit[r, n]), default=-math.inf)
        assert priority[r, n, c] == largest
        if largest > -math.inf:  # of equal ones the first
            assert place[r, n, c] == candidates.index(largest)


def test_many_limits_within_torch_func():
    labels = torch.arange(2).repeat(6)
    x = torch.randn(12, 4, requires_grad=True)  # in float32: sorted by NumPy outside

    def loss(x):
        return F.triplet_margin_loss(x, labels, 5.0, hardness="semihard")

    (expected,) = torch.autograd.grad(loss(x), x)
    assert_close(torch.func.grad(loss)(x.detach()), expected)


@pytest.mark.parametrize("m", [5, 17])
def test_more_candidates_than_a_byte_counts(m):
    members = random(6, m, 4)
    points = class_points(members, Synthesis())
    found = check(points, points, members, same=True)
    assert max(found.row.max(), found.column.max()) >= (15 if m == 5 else 256)


def test_equal_candidates_send_the_gradient_of_one():
    # Every point of a class is the same, so any candidate is the hardest.
    members = torch.ones(4, 2, 3, dtype=DOUBLE, requires_grad=True)
    points = class_points(members, Synthesis())
    found = compare(points, points, DotProduct(False), 1, same=True)
    found.score[0, 0, 1].backward()
    # The gradient of <x, y> is y for x and x for y, and only one pair gets it.
    assert_close(members.grad.sum(1)[:2], torch.ones(2, 3, dtype=DOUBLE))
    assert members.grad.sum(1)[2:].abs().max() == 0


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_semihard_of_two_large_classes(dtype, normalized):
    """A million candidates for each of 992 positive pairs, against sorting them all."""
    x, labels = random(64, 8).to(dtype), torch.arange(2).repeat(32)
    distance = F.DotProduct(normalized)
    terms = F.triplet_margin_loss(
        x, labels, 100, distance=distance, hardness="semihard", reduction="none"
    )
    anchor, positive, _ = terms.indices
    assert len(terms.losses) == 2 * 32 * 31
    pool = F.synthesize(x.detach(), labels)
    points = normalize(pool.embeddings, dim=1) if normalized else pool.embeddings
    scores = points[pool.labels == 0] @ points[pool.labels == 1].t()
    ordered = scores.flatten().sort().values
    own = (points[anchor] * points[positive]).sum(1)
    # No candidate is as near to a positive pair as rounding reaches.
    at = torch.searchsorted(ordered, own)
    assert_close(terms.losses.detach(), ordered[at - 1] - own + 100)


def test_winners_that_are_computed_again_are_not_kept(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(64, 5, generator=generator), torch.arange(32).repeat(2)

    def kept():
        sizes = []
        with saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            F.triplet_margin_loss(x.clone().requires_grad_(), labels)
        return sum(sizes)

    whole = kept()
    monkeypatch.setattr(search, "_MOST_PRODUCTS", 1 << 8)
    assert kept() < whole / 2


class Elsewhere(torch.Tensor):
    """On a CPU, but says that it is on another device."""

    device = property(lambda self: torch.device("cuda"))


def test_the_largest_on_another_device():
    score = torch.randn(3, 4, 5, 6)
    found = rules._largest(score.as_subclass(Elsewhere), 1)
    for x, y in zip(found, rules._largest(score, 1), strict=True):
        assert torch.equal(x.as_subclass(torch.Tensor), y)
