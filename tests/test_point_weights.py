"""Points as weights against the points that `functional.reflect` makes."""

import pytest
import torch
from torch.nn.functional import normalize

from pml_symm import SymmSynthesizer
from pml_symm.functional import reflect
from pml_symm.point_weights import class_points, count_points, source_and_axis, sums_of_two

DOUBLE = torch.float64
CPU = torch.device("cpu")
PAIRINGS = ["all", "ring", "none"]


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def made(members, alpha, beta, pairing):
    """Shape (C, K, D): the members, then each mirrored about the next, and so on."""
    m = members.shape[1]
    steps = {"all": range(1, m), "ring": range(1, min(m, 2)), "none": ()}[pairing]
    synthetic = [
        reflect(members, members.roll(-step, dims=1), alpha, beta) for step in steps
    ]
    return torch.cat([members, *synthetic], dim=1)


def same_gradient(found, expected, members):
    through = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * through).sum(), members, retain_graph=True),
        torch.autograd.grad((expected * through).sum(), members, retain_graph=True),
    )


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_source_and_axis_are_those_of_the_synthesizer(m, pairing):
    source, axis = source_and_axis(count_points(m, pairing), m, CPU)
    assert torch.equal(source[:m], torch.arange(m))
    assert torch.equal(axis[:m], torch.arange(m))
    labels = torch.zeros(m, dtype=torch.long)
    expected = SymmSynthesizer(pairing=pairing).source_and_axis(labels)
    found = zip(source[m:].tolist(), axis[m:].tolist(), strict=True)
    assert sorted(found) == sorted(zip(*(x.tolist() for x in expected), strict=True))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
@pytest.mark.parametrize("beta", [1.0, 0.7])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 2, 4])
def test_points(m, pairing, normalized, beta, alpha):
    given = random(5, m, 6)
    members = normalize(given, dim=2) if normalized else given
    points = class_points(members, alpha, beta, pairing, normalized)
    expected = made(members, alpha, beta, pairing)
    if normalized:
        expected = normalize(expected, dim=2)
    found = points.weights @ points.members
    torch.testing.assert_close(found, expected)
    same_gradient(found, expected, given)
    assert points.bias is None
    assert points.num_originals == m
    gram = torch.einsum("cid,cjd->cij", members, members)
    torch.testing.assert_close(points.gram, gram)
    same_gradient(points.gram, gram, given)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 2, 3])
def test_two_weights_are_the_weights(m, pairing, normalized):
    members = normalize(random(5, m, 6), dim=2)
    points = class_points(members, 1.5, 0.7, pairing, normalized)
    source, axis = source_and_axis(points.weights.shape[1], m, CPU)
    assert torch.equal(points.axis, axis)
    on_axis, on_source = points.two_weights.flatten(1, 2)
    synthetic = torch.arange(m, len(axis))
    torch.testing.assert_close(on_axis.t(), points.weights[:, synthetic, axis[m:]])
    torch.testing.assert_close(on_source.t(), points.weights[:, synthetic, source[m:]])
    assert not points.two_weights.requires_grad
    assert (points.weights[:, m:] != 0).sum(2).unique().tolist() in ([2], [])


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("m", [1, 3])
def test_bias_turns_products_into_distances(m, pairing, alpha):
    members = random(4, m, 6)
    points = class_points(members, alpha, 0.7, pairing, with_bias=True)
    expected = -made(members, alpha, 0.7, pairing).square().sum(2) / 2
    torch.testing.assert_close(points.bias, expected)
    same_gradient(points.bias, expected, members)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_bias_of_normalized_points(alpha):
    members = normalize(torch.randn(3, 2, 4, dtype=DOUBLE), dim=2)
    # For points of length one the bias is zero, and None ...
    assert class_points(members, alpha, 1.0, "all", True, True).bias is None
    # ... but half the squared distance from a zero vector to such a point is 0.5.
    members[0, 0] = 0
    points = class_points(members, alpha, 1.0, "all", True, True)
    squared = (points.weights @ members).square().sum(2)
    torch.testing.assert_close(points.bias, (1 - squared) / 2)
    assert points.bias[0, 0] == 0.5


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("normalized", [True, False])
def test_zero_and_equal_vectors_have_finite_gradients(normalized, alpha):
    members = normalize(torch.randn(3, 2, 4, dtype=DOUBLE), dim=2)
    members[0, 0] = 0
    members[1, 1] = members[1, 0]
    members[2] = 0
    members.requires_grad_()
    points = class_points(members, alpha, 1.0, "all", normalized, True)
    made_points = points.weights @ points.members
    assert made_points.isfinite().all()
    (made_points.sum() + points.bias.sum()).backward()
    assert members.grad.isfinite().all()


def test_sums_of_two():
    members = random(5, 2, 6)
    points = class_points(members, 1.5, 0.7, "all")
    sums = sums_of_two(points)
    all_points = made(members, 1.5, 0.7, "all")
    twos = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = torch.stack([all_points[:, i] + all_points[:, j] for i, j in twos], dim=1)
    found = sums.weights @ sums.members
    torch.testing.assert_close(found, expected)
    same_gradient(found, expected, members)
    assert sums.members is members
    assert sums.num_originals == 1


def test_rows_are_points_of_chosen_classes():
    members = random(5, 3, 6)
    points = class_points(members, 2.5, 0.7, "all", with_bias=True)
    chosen = torch.tensor([4, 1, 1])
    rows = points.rows(chosen)
    all_points = made(members, 2.5, 0.7, "all")
    torch.testing.assert_close(rows.weights @ rows.members, all_points[chosen])
    torch.testing.assert_close(rows.bias, -all_points[chosen].square().sum(2) / 2)
    assert class_points(members, 2.5, 0.7, "all").rows(chosen).bias is None
