"""The points that the losses select, checked with the points and the distances."""

import pytest
import torch
from pytorch_metric_learning.distances import (
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
    SNRDistance,
)
from pytorch_metric_learning.reducers import DoNothingReducer

import pml_symm
from pml_symm import SymmSynthesizer
from pml_symm.class_groups import class_groups
from pml_symm.selection import Scores, rows_of, select

DOUBLE = torch.float64


class Materialized(SymmSynthesizer):
    """Makes the same points, but the losses do not know what a subclass makes."""


LOSSES = [
    pml_symm.SymmNPairsLoss,
    pml_symm.SymmTripletMarginLoss,
    pml_symm.SymmLiftedStructureLoss,
    pml_symm.SymmAngularLoss,
]
LABELS = {
    "balanced": [0, 1, 2, 3, 0, 1, 2, 3],
    "four each": [5] * 4 + [-2] * 4 + [9] * 4,
    "ragged": [3, 1, 3, 2, 1, 3, 2, 7, 4],
}
DISTANCES = {
    "dot": lambda: DotProductSimilarity(normalize_embeddings=False),
    "cosine": CosineSimilarity,
    "l2": lambda: LpDistance(normalize_embeddings=False),
    "l2 of normalized": LpDistance,
    "squared": lambda: LpDistance(normalize_embeddings=False, power=2),
}


@pytest.fixture(params=LABELS.values(), ids=LABELS)
def labels(request):
    return torch.tensor(request.param)


@pytest.fixture(params=DISTANCES.values(), ids=DISTANCES)
def distance(request):
    return request.param()


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


def test_supports():
    default = SymmSynthesizer()
    for make in DISTANCES.values():
        assert Scores.supports(make(), default)
        assert not Scores.supports(make(), Materialized())
    assert not Scores.supports(LpDistance(p=1), default)
    assert not Scores.supports(SNRDistance(), default)
    near_one = SymmSynthesizer(alpha=1.01)
    assert Scores.supports(DISTANCES["dot"](), near_one)
    assert not Scores.supports(DISTANCES["cosine"](), near_one)
    assert not Scores.supports(DISTANCES["l2"](), near_one)


@pytest.mark.parametrize("hardness", [1, 3])
@pytest.mark.parametrize("pairing", ["all", "ring", "none"])
def test_select(labels, distance, pairing, hardness):
    """The value is the distance of the two selected points."""
    embeddings = random(len(labels), 6)
    synthesizer = SymmSynthesizer(alpha=1.5, beta=0.8, pairing=pairing)
    groups = class_groups(labels)
    scores = Scores(distance, synthesizer, embeddings)
    points = scores.points_of_classes(embeddings, groups)
    selected = select(points, points, hardness)
    source, axis = groups.source_and_axis(pairing)
    pool = synthesizer.reflect(embeddings[source], embeddings[axis])
    pool = torch.where((source == axis).unsqueeze(1), embeddings[source], pool)
    matrix = distance(pool)
    class_of = groups.class_of[source]
    values = scores.values(selected.score)
    sign = 1 if distance.is_inverted else -1
    column_point, is_synthetic = selected.column_point(), selected.is_synthetic()
    expected, found = [], []
    for u in range(groups.num_classes):
        for v in range(groups.num_classes):
            if u == v:
                continue
            block = matrix[class_of == u][:, class_of == v]
            order = (sign * block).flatten().sort(descending=True).indices
            winner = order[min(hardness, len(order)) - 1]
            expected.append(block.flatten()[winner])
            found.append(values[u, v])
            row, column = divmod(int(winner), block.shape[1])
            ends = torch.where(class_of == u)[0][row], torch.where(class_of == v)[0][column]
            assert column_point[u, v] == ends[1]
            assert is_synthetic[u, v] == any(source[end] != axis[end] for end in ends)
    found, expected = torch.stack(found), torch.stack(expected)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), embeddings),
        torch.autograd.grad((expected * weights).sum(), embeddings),
    )


def test_scores_and_values(distance):
    embeddings, reference = random(5, 6), random(5, 6)
    scores = Scores(distance, SymmSynthesizer(), embeddings, reference)
    values = scores.pairwise(scores.prepare(embeddings), scores.prepare(reference))
    expected = distance(embeddings, reference).diagonal()
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(scores.values(scores.of_values(values)), values)
    torch.testing.assert_close(
        torch.autograd.grad(values.sum(), (embeddings, reference)),
        torch.autograd.grad(expected.sum(), (embeddings, reference)),
    )


def test_within_classes(labels, distance):
    embeddings = random(len(labels), 6)
    groups = class_groups(labels)
    scores = Scores(distance, SymmSynthesizer(), embeddings)
    found = scores.within_classes(scores.points_of_classes(embeddings, groups))
    expected = distance(embeddings)[groups.positive_pairs()]
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), embeddings),
        torch.autograd.grad((expected * weights).sum(), embeddings),
    )


def test_prepared_zero_vectors_have_finite_gradients(distance):
    embeddings = torch.randn(4, 3, dtype=DOUBLE)
    embeddings[0] = 0
    embeddings.requires_grad_()
    scores = Scores(distance, SymmSynthesizer(), embeddings)
    prepared = scores.prepare(embeddings)
    assert prepared[0].abs().max() == 0
    prepared.sum().backward()
    assert embeddings.grad.isfinite().all()


def test_rows_of():
    embeddings, index = random(5, 3), torch.tensor([[4, 0, 4], [1, 2, 0]])
    assert torch.equal(rows_of(embeddings, index), embeddings[index])
    assert torch.equal(rows_of(embeddings, index[0]), embeddings[index[0]])


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
@pytest.mark.parametrize(("pairing", "alpha"), [("all", 2.0), ("ring", 2.0), ("all", 1.5)])
@pytest.mark.parametrize("normalize", [True, False])
def test_losses_are_those_of_the_points(make, labels, hardness, pairing, alpha, normalize):
    check_loss(
        make, labels, hardness, pairing, alpha, DotProductSimilarity, normalize=normalize
    )


@pytest.mark.parametrize("make", LOSSES[1:])
@pytest.mark.parametrize("hardness", ["hardest", 3, "semihard"])
@pytest.mark.parametrize("normalize", [True, False])
def test_losses_are_those_of_the_distances(make, labels, hardness, normalize):
    check_loss(make, labels, hardness, "all", 1.5, LpDistance, normalize=normalize)


def check_loss(make, labels, hardness, pairing, alpha, make_distance, normalize):
    embeddings = random(len(labels), 6)
    found = []
    for synthesizer in (SymmSynthesizer, Materialized):
        loss_func = make(
            synthesizer=synthesizer(alpha=alpha, beta=0.8, pairing=pairing),
            hardness=hardness,
            distance=make_distance(normalize_embeddings=normalize),
            collect_stats=True,
        )
        loss = loss_func(embeddings, labels)
        (gradient,) = torch.autograd.grad(loss, embeddings)
        found.append((loss, gradient, torch.tensor(loss_func.synthetic_ratio)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("power", [1, 2])
def test_triplets_name_the_same_points(labels, power):
    embeddings = random(len(labels), 6)
    found = []
    for synthesizer in (SymmSynthesizer, Materialized):
        loss_func = pml_symm.SymmTripletMarginLoss(
            synthesizer=synthesizer(),
            distance=LpDistance(power=power),
            reducer=DoNothingReducer(),
        )
        terms = loss_func(embeddings, labels)["loss"]
        by_triplet = sorted(
            zip(*(x.tolist() for x in (*terms["indices"], terms["losses"])), strict=True)
        )
        found.append(by_triplet)
    assert [x[:3] for x in found[0]] == [x[:3] for x in found[1]]
    assert [x[3] for x in found[0]] == pytest.approx([x[3] for x in found[1]])


@pytest.mark.parametrize("make", LOSSES)
def test_near_points_keep_a_finite_gradient(make):
    embeddings = torch.ones(4, 3, dtype=DOUBLE, requires_grad=True)
    loss = make()(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_error_of_squared_distances(dtype):
    """Not normalized: a few epsilon of the squared norms, for near and far points."""
    first = torch.randn(1, 64, dtype=DOUBLE) * 100
    step = torch.randn(40, 64, dtype=DOUBLE)
    size = torch.logspace(-8, 0, 40, dtype=DOUBLE).view(-1, 1)
    embeddings = torch.cat([first, first + step * size]).to(dtype)
    distance = LpDistance(normalize_embeddings=False, power=2)
    scores = Scores(distance, SymmSynthesizer(), embeddings)
    groups = class_groups(torch.arange(len(embeddings)))
    points = scores.points_of_classes(embeddings, groups)
    found = scores.values(select(points, points).score).double()
    exact = embeddings.double()
    expected = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    squared_norms = exact.square().sum(1)
    bound = squared_norms + squared_norms.unsqueeze(1)
    others = ~torch.eye(len(exact), dtype=torch.bool)
    error = ((found - expected).abs() / bound)[others]
    assert error.max() < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("power", [-1, -0.5, 0.5, 3])
def test_every_power_of_a_distance(labels, power):
    """With a negative power, the largest distance has the smallest value."""
    embeddings = random(len(labels), 6)
    distance = LpDistance(normalize_embeddings=False, power=power)
    fast = pml_symm.SymmTripletMarginLoss(distance=distance)
    made = pml_symm.SymmTripletMarginLoss(distance=distance, synthesizer=Materialized())
    found, expected = fast(embeddings, labels), made(embeddings, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, embeddings), torch.autograd.grad(expected, embeddings)
    )
