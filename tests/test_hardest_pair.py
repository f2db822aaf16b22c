"""The search against a table of all candidates, from materialized points."""

import pytest
import torch
from torch.nn.functional import normalize

from pml_symm import hardest_pair as module
from pml_symm.hardest_pair import hardest_pair, twin
from pml_symm.point_weights import class_points, sums_of_two

DOUBLE = torch.float64
# Values of _CANDIDATES["cpu"], _MEMBERS["cpu"], and _MOST_CANDIDATES.
SIZES = {
    "one tile": (1 << 18, 128, 1 << 24),
    "tiles of a few classes": (1, 8, 1 << 24),
    "tiles of one class": (20, 1, 1 << 24),
    "chunks of row points": (20, 1, 20),
}
CASES = [
    (1, "all", 2.0, 1.0),
    (2, "all", 2.0, 1.0),
    (2, "ring", 1.5, 0.7),
    (3, "all", 2.5, 1.5),
    (4, "ring", 2.0, 1.0),
    (4, "all", 2.0, 1.0),
    (3, "none", 2.0, 1.0),
]
RANKS = [1, 3, 1000]


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def all_scores(rows, columns, ceiling=None):
    """The scores of all pairs of points, shape (R, K, L, C)."""
    scores = torch.einsum(
        "ukd,vld->uklv", rows.weights @ rows.members, columns.weights @ columns.members
    )
    if rows.bias is not None:
        scores = scores + rows.bias[:, :, None, None]
    if columns.bias is not None:
        scores = scores + columns.bias.t()
    if ceiling is not None:
        scores = scores.masked_fill(scores >= ceiling[:, None, None, None], -torch.inf)
    return scores


def check(rows, columns, inputs, rank=1, ceiling=None, search=hardest_pair):
    """Check score, selected points, and gradients; not the diagonal if rows is columns."""
    found = search(rows, columns, rank, ceiling)
    scores = all_scores(rows, columns, ceiling)
    flat = scores.flatten(1, 2)
    expected = flat.topk(min(rank, flat.shape[1]), dim=1).values[:, -1]
    defined = torch.ones_like(expected, dtype=torch.bool)
    if rows is columns and ceiling is None:
        defined.fill_diagonal_(False)
    torch.testing.assert_close(found.score[defined], expected[defined])
    u, v = torch.where(defined & (expected != -torch.inf))
    k, l = found.selected[:, u, v].long()  # noqa: E741
    torch.testing.assert_close(scores[u, k, l, v], expected[u, v])
    # The gradient of an undefined diagonal is dropped.
    weights = torch.randn_like(expected)
    nothing = expected == -torch.inf
    terms = (
        (found.score.masked_fill(nothing, 0) * weights).sum(),
        (expected.masked_fill(nothing, 0) * weights)[defined].sum(),
    )
    torch.testing.assert_close(
        *(torch.autograd.grad(term, inputs, retain_graph=True) for term in terms)
    )


def some_ceiling(rows, columns):
    """A ceiling between the middle scores of each row class; for the first, below all."""
    scores = all_scores(rows, columns).detach().flatten(1).sort(dim=1).values
    middle = scores.shape[1] // 2
    # Sums of the same points have scores that differ only by rounding: stay clear of them.
    ceiling = scores[:, middle - 1 : middle + 1].mean(dim=1) + 1e-3
    ceiling[0] = scores[0, 0] - 1
    return ceiling


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def _tiles(request, monkeypatch):
    candidates, members, most = request.param
    monkeypatch.setitem(module._CANDIDATES, "cpu", candidates)
    monkeypatch.setitem(module._MEMBERS, "cpu", members)
    monkeypatch.setattr(module, "_MOST_CANDIDATES", most)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_symmetric(case, with_bias, rank):
    m, pairing, alpha, beta = case
    members = random(7, m, 5)
    points = class_points(members, alpha, beta, pairing, with_bias=with_bias)
    check(points, points, members, rank)
    found = hardest_pair(points, points, rank)
    others = ~torch.eye(7, dtype=torch.bool)
    assert torch.equal(found.selected[0][others], found.selected[1].t()[others])


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("m", [1, 2, 3])
def test_normalized(m):
    embeddings = random(6, m, 5)
    points = class_points(normalize(embeddings, dim=2), 1.5, 1.0, "all", True)
    check(points, points, embeddings)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("biases", [(False, False), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 1), (1, 2), (2, 2)])
def test_between_groups(m, n, biases, rank):
    rows, columns = random(6, m, 5), random(8, n, 5)
    check(
        class_points(rows, 1.5, 0.7, "all", with_bias=biases[0]),
        class_points(columns, 1.5, 0.7, "all", with_bias=biases[1]),
        (rows, columns),
        rank,
    )


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("with_ceiling", [True, False])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_sums_and_other_members(n, with_ceiling):
    rows, columns = random(6, 2, 5), random(8, n, 5)
    row_points = sums_of_two(class_points(rows, 2.0, 1.0, "all"))
    column_points = class_points(columns, 2.0, 1.0, "all")
    ceiling = some_ceiling(row_points, column_points) if with_ceiling else None
    check(row_points, column_points, (rows, columns), ceiling=ceiling)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("rank", RANKS)
def test_sums_and_their_own_members(rank):
    members = random(7, 2, 5)
    points = class_points(members, 1.5, 0.7, "all")
    check(sums_of_two(points), points, members, rank)


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_ceiling(m, with_bias):
    members = random(7, m, 5)
    points = class_points(members, 1.5, 0.7, "all", with_bias=with_bias)
    check(points, points, members, ceiling=some_ceiling(points, points))
    rows = points.rows(torch.tensor([0, 2, 2, 6]))
    check(rows, points, members, ceiling=some_ceiling(rows, points))


def test_ceiling_is_not_below_itself():
    points = class_points(torch.tensor([[[1.0]], [[2.0]]]), 2.0, 1.0, "all")
    score = hardest_pair(points, points, ceiling=torch.tensor([2.0, 4.5])).score
    assert score.tolist() == [[1.0, -torch.inf], [2.0, 4.0]]


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_no_class(sizes):
    rows, columns = (
        class_points(random(size, m, 5), 2.0, 1.0, "all")
        for size, m in zip(sizes, (2, 3), strict=True)
    )
    found = hardest_pair(rows, columns)
    assert found.score.shape == sizes
    assert found.selected.shape == (2, *sizes)


@pytest.mark.parametrize(
    ("way", "rank"),
    [
        *((way, rank) for way in ("symmetric", "between", "sums") for rank in RANKS),
        ("ceiling", 1),
    ],
)
def test_twin(way, rank):
    inputs = members, other_members = random(6, 2, 5), random(4, 3, 5)
    rows = columns = class_points(members, 1.5, 0.7, "all", with_bias=way != "sums")
    ceiling = None
    if way == "between":
        columns = class_points(other_members, 1.5, 0.7, "all", with_bias=True)
    else:
        inputs = members
    if way == "sums":
        rows = sums_of_two(columns)
    elif way == "ceiling":
        ceiling = some_ceiling(rows, columns)
    check(rows, columns, inputs, rank, ceiling, twin_as_hardest_pair)


def twin_as_hardest_pair(rows, columns, rank, ceiling):
    """The twin; check that it selects the same, and drop the same gradients."""
    found, expected = (f(rows, columns, rank, ceiling) for f in (twin, hardest_pair))
    clear = expected.score != -torch.inf
    if rows.members is columns.members:
        clear.fill_diagonal_(False)  # there a pair occurs in both orders
    assert torch.equal(found.selected[:, clear], expected.selected[:, clear].long())
    if rows is columns and ceiling is None:
        return found._replace(score=found.score.masked_fill(~clear, 0))
    return found


@pytest.mark.parametrize(("m", "dtype"), [(5, torch.uint8), (17, torch.int32)])
def test_more_candidates_than_a_byte(m, dtype):
    members = random(6, m, 4)
    points = class_points(members, 2.0, 1.0, "all")
    check(points, points, members)
    selected = hardest_pair(points, points).selected
    assert selected.dtype == dtype
    # Some selected numbers are larger than a smaller dtype could count.
    assert selected.max() >= (15 if m == 5 else 256)


def test_equal_candidates_send_the_gradient_of_one():
    # Every point of a class is the same, so any candidate is the hardest.
    members = torch.ones(4, 2, 3, dtype=DOUBLE, requires_grad=True)
    points = class_points(members, 2.0, 1.0, "all")
    found = hardest_pair(points, points)
    found.score[0, 1].backward()
    # The gradient of <x, y> is y for x and x for y, and only one pair gets it.
    torch.testing.assert_close(members.grad.sum(1)[:2], torch.ones(2, 3, dtype=DOUBLE))
    assert members.grad.sum(1)[2:].abs().max() == 0


@pytest.mark.usefixtures("_tiles")
def test_both_ends_of_a_pair_have_one_winner():
    # Two pairs have equal scores, and their order depends on which class is the row.
    members = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    points = class_points(members.repeat(2, 1, 1), 2.0, 1.0, "none")
    k, l = hardest_pair(points, points).selected  # noqa: E741
    others = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(k[others], l.t()[others])


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_zero_and_equal_vectors_have_finite_gradients(normalized, with_bias):
    members = normalize(torch.randn(4, 2, 3, dtype=DOUBLE), dim=2)
    members[0, 0] = 0
    members[1, 1] = members[1, 0]
    members[2] = 0
    members.requires_grad_()
    points = class_points(members, 1.5, 1.0, "all", normalized, with_bias)
    found = hardest_pair(points, points)
    assert found.score.isfinite().all()
    found.score.sum().backward()
    assert members.grad.isfinite().all()


def score_of(way):
    """A function from members, shape (C, m, D), to scores of classes."""

    def symmetric(members):
        points = class_points(members, 1.5, 0.8, "all", with_bias=way == "distances")
        score = hardest_pair(points, points, 3 if way == "third" else 1).score
        return score.masked_fill(torch.eye(len(members), dtype=torch.bool), 0)

    def sums(members):
        points = class_points(members, 2.0, 0.8, "all")
        return hardest_pair(sums_of_two(points), points).score

    def between(members):
        rows = class_points(members[:2], 1.5, 0.8, "all", with_bias=True)
        columns = class_points(members[2:, :1], 1.5, 0.8, "all", with_bias=True)
        return hardest_pair(rows, columns).score

    def ceiling(members):
        points = class_points(members, 1.5, 0.8, "all")
        found = hardest_pair(points, points, ceiling=some_ceiling(points, points)).score
        return found.masked_fill(found == -torch.inf, 0)

    ways = {"sums": sums, "between": between, "ceiling": ceiling}
    return ways.get(way, symmetric)


@pytest.mark.parametrize(
    "way", ["products", "distances", "third", "sums", "between", "ceiling"]
)
def test_derivatives(way):
    members = random(4, 2, 3)
    assert torch.autograd.gradcheck(score_of(way), members)
    assert torch.autograd.gradgradcheck(score_of(way), members)


def test_diagonal_has_no_derivative_that_has_derivatives():
    members = random(4, 2, 3)
    points = class_points(members, 1.5, 0.8, "all")
    weights = torch.randn(4, 4, dtype=DOUBLE)
    term = (hardest_pair(points, points).score * weights).sum()
    torch.testing.assert_close(
        torch.autograd.grad(term, members, create_graph=True),
        torch.autograd.grad(term, members),
    )
