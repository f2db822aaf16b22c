"""Points as rows of weights against the points that `functional.reflect` makes."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from pml_symm.functional import Synthesis, reflect
from pml_symm.functional.class_groups import point_places
from pml_symm.functional.points import MadePoints, class_points, sums_of_two

DOUBLE = torch.float64
CPU = torch.device("cpu")
PAIRINGS = ["all", "ring", "none"]


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def made(members, alpha, beta, pairing):
    """Shape (C, K, D), in the order of point_places."""
    m = members.shape[1]
    points = []
    for place in point_places(m, pairing, CPU).tolist():
        source, axis = members[:, place // m], members[:, place % m]
        same = place // m == place % m
        points.append(source if same else reflect(source, axis, alpha, beta))
    return torch.stack(points, dim=1)


def assert_same_gradient(found, expected, members):
    through = torch.randn_like(expected)
    assert_close(
        torch.autograd.grad((found * through).sum(), members, retain_graph=True),
        torch.autograd.grad((expected * through).sum(), members, retain_graph=True),
    )


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_places(m):
    """Every member, and every member mirrored about each other one or the next."""
    places = {x: point_places(m, x, CPU).tolist() for x in PAIRINGS}
    pairs = {x: {divmod(place, m) for place in places[x]} for x in PAIRINGS}
    itself = {(i, i) for i in range(m)}
    assert pairs["none"] == itself
    assert pairs["ring"] == itself | {(i, (i + 1) % m) for i in range(m)}
    assert pairs["all"] == {(i, j) for i in range(m) for j in range(m)}
    assert all(len(places[x]) == len(pairs[x]) for x in PAIRINGS)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
@pytest.mark.parametrize("beta", [1.0, 0.7])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 2, 4])
def test_points(m, pairing, normalized, beta, alpha):
    given = random(5, m, 6)
    members = normalize(given, dim=2) if normalized else given
    points = class_points(members, Synthesis(alpha, beta, pairing), normalized)
    expected = made(members, alpha, beta, pairing)
    if normalized:
        expected = normalize(expected, dim=2)
    found = points.weights @ points.members
    assert_close(found, expected)
    assert_same_gradient(found, expected, given)
    assert points.bias is None
    places = point_places(m, pairing, CPU)
    assert torch.equal(points.synthetic, (places // m != places % m).expand(5, -1))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 3])
def test_bias_turns_products_into_distances(m, pairing, alpha):
    members = random(4, m, 6)
    points = class_points(members, Synthesis(alpha, 0.7, pairing), with_bias=True)
    expected = -made(members, alpha, 0.7, pairing).square().sum(2) / 2
    assert_close(points.bias, expected)
    assert_same_gradient(points.bias, expected, members)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_bias_of_normalized_points(alpha):
    members = normalize(torch.randn(3, 2, 4, dtype=DOUBLE), dim=2)
    synthesis = Synthesis(alpha)
    # Half the squared distance of two points of length one is 1 - their product, ...
    points = class_points(members, synthesis, True, True)
    assert points.bias is None or not points.bias.abs().max() > 1e-12
    # ... but from a zero vector to such a point it is 0.5.
    members[0, 0] = 0
    points = class_points(members, synthesis, True, True)
    squared = (points.weights @ members).square().sum(2)
    assert_close(points.bias, (1 - squared) / 2)
    assert points.bias[0, 0] == 0.5


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("normalized", [True, False])
def test_zero_and_equal_vectors_have_finite_gradients(normalized, alpha):
    members = normalize(torch.randn(3, 2, 4, dtype=DOUBLE), dim=2)
    members[0, 0] = 0
    members[1, 1] = members[1, 0]
    members[2] = 0
    members.requires_grad_()
    points = class_points(members, Synthesis(alpha), normalized, True)
    made_points = points.weights @ points.members
    assert made_points.isfinite().all()
    (made_points.sum() + points.bias.sum()).backward()
    assert members.grad.isfinite().all()


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_sums_of_two(pairing):
    members = random(5, 2, 6)
    points = class_points(members, Synthesis(1.5, 0.7, pairing))
    sums, all_points = sums_of_two(points), made(members, 1.5, 0.7, pairing)
    found = sums.weights @ sums.members
    of_made = sums_of_two(MadePoints(all_points, points.synthetic))
    assert_close(found, of_made.points)
    assert_same_gradient(found, of_made.points, members)
    assert torch.equal(sums.synthetic, of_made.synthetic)
    # Originals first: of equal candidates the first wins.
    assert_close(found[:, 0], members.sum(1))
    assert sums.synthetic[0].tolist() == [False] + [True] * (sums.synthetic.shape[1] - 1)
    k = all_points.shape[1]
    expected = [
        all_points[:, i] + all_points[:, j] for i in range(k) for j in range(i + 1, k)
    ]
    assert len(expected) == sums.synthetic.shape[1]
    for one in expected:
        assert ((found - one.unsqueeze(1)).abs().amax(2) < 1e-12).any(1).all()
