"""A distance as scores of points, whether points are weighted or made as tensors."""

import pytest
import torch
from pytorch_metric_learning.distances import (
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
    SNRDistance,
)
from pytorch_metric_learning.reducers import DoNothingReducer
from torch.nn.functional import normalize
from torch.testing import assert_close

import pml_symm
from pml_symm import SymmSynthesizer
from pml_symm.functional import Synthesis, points, triplet_margin_loss
from pml_symm.functional.class_groups import class_groups
from pml_symm.functional.comparison import Comparison, Scores, rows_of
from pml_symm.functional.distances import ByFunction
from pml_symm.functional.search import compare_groups
from pml_symm.pml import core_distance

from .covering import covering
from .losses import FOUR, four

DOUBLE = torch.float64


class Materialized(SymmSynthesizer):
    """Makes the same points, but the losses do not know what a subclass makes."""


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


def scores_of(distance, *embeddings):
    return Scores(Comparison(core_distance(distance)), *embeddings)


def test_which_points_are_made():
    for make in DISTANCES.values():
        core = core_distance(make())
        assert not Comparison(core).makes_points
        assert Comparison(core, pool=Materialized()).makes_points
    for other in (
        LpDistance(p=1),
        SNRDistance(),
        LpDistance(power=-1),
        DotProductSimilarity(power=2),
        DotProductSimilarity(p=1),
        CosineSimilarity(p=1),
    ):
        assert isinstance(core_distance(other), ByFunction)
        assert Comparison(core_distance(other)).makes_points
    near_one = Synthesis(alpha=1.01)
    for name, make in DISTANCES.items():
        core = core_distance(make())
        assert Comparison(core, near_one).makes_points == (name != "dot")


def test_a_subclass_of_a_distance_may_compute_anything():
    class Doubled(LpDistance):
        def compute_mat(self, *args):
            return 2 * super().compute_mat(*args)

    x, labels = random(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    loss = pml_symm.SymmTripletMarginLoss(margin=0, distance=Doubled())
    expected = 2 * pml_symm.SymmTripletMarginLoss(margin=0)(x, labels)
    assert_close(loss(x, labels), expected)


def test_a_dot_product_may_normalize_by_another_norm():
    x, labels = random(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])

    def of_unit_sums(x, y):
        return normalize(x, p=1, dim=1) @ normalize(y, p=1, dim=1).t()

    loss = pml_symm.SymmTripletMarginLoss(distance=DotProductSimilarity(p=1))
    expected = triplet_margin_loss(
        x, labels, distance=ByFunction(of_unit_sums, larger_is_nearer=True)
    )
    assert_close(loss(x, labels), expected)


def test_scores_and_values(distance):
    embeddings, reference = random(5, 6), random(5, 6)
    scores = scores_of(distance, embeddings, reference)
    values = distance(embeddings, reference).diagonal()
    found = scores.values(scores.of_values(values))
    assert_close(found, values)
    assert_close(
        torch.autograd.grad(found.sum(), (embeddings, reference), retain_graph=True),
        torch.autograd.grad(values.sum(), (embeddings, reference)),
    )


def test_prepared_zero_vectors_have_finite_gradients(distance):
    embeddings = torch.randn(4, 3, dtype=DOUBLE)
    embeddings[0] = 0
    embeddings.requires_grad_()
    prepared = scores_of(distance, embeddings).prepared(embeddings)
    assert prepared[0].abs().max() == 0
    prepared.sum().backward()
    assert embeddings.grad.isfinite().all()


def test_rows_of():
    embeddings, index = random(5, 3), torch.tensor([[4, 0, 4], [1, 2, 0]])
    assert torch.equal(rows_of(embeddings, index), embeddings[index])
    assert torch.equal(rows_of(embeddings, index[0]), embeddings[index[0]])


SUBCLASS_CASES = covering(
    {
        "symm_loss": FOUR,
        "labels": [*LABELS],
        "hardness": ["hardest", 3, "semihard"],
        "make_distance": [DotProductSimilarity, LpDistance],
        "normalize": [True, False],
        "pairing": ["all", "ring", "none"],
    },
    strength=3,
)


@pytest.mark.parametrize(SUBCLASS_CASES[0], [tuple(x.values()) for x in SUBCLASS_CASES])
def test_a_subclass_of_the_synthesizer(
    symm_loss, labels, hardness, make_distance, normalize, pairing
):
    """What it makes is compared as it is made, and counted as synthetic."""
    labels = torch.tensor(LABELS[labels])
    embeddings = random(len(labels), 6)
    found = []
    for synthesizer in (SymmSynthesizer, Materialized):
        loss_func = symm_loss(
            synthesizer=synthesizer(alpha=1.5, beta=0.8, pairing=pairing),
            hardness=hardness,
            distance=make_distance(normalize_embeddings=normalize),
            collect_stats=True,
        )
        loss = loss_func(embeddings, labels)
        (gradient,) = torch.autograd.grad(loss, embeddings)
        found.append((loss, gradient, torch.tensor(loss_func.synthetic_ratio)))
    assert_close(*found)


@pytest.mark.parametrize("synthesizer", [SymmSynthesizer, Materialized])
def test_a_triplet_names_the_original_nearest_to_the_winner(labels, synthesizer):
    embeddings = random(len(labels), 6)
    pool = SymmSynthesizer()(embeddings, labels)
    loss_func = pml_symm.SymmTripletMarginLoss(
        margin=10, synthesizer=synthesizer(), reducer=DoNothingReducer()
    )
    terms = loss_func(embeddings, labels)["loss"]
    matrix = LpDistance()(pool.embeddings)
    for a, p, n, value in zip(*terms["indices"], terms["losses"], strict=True):
        own, other = pool.labels == labels[a], pool.labels == labels[n]
        assert labels[a] == labels[p] != labels[n]
        hardest = matrix[own][:, other].amin()
        assert_close(value, matrix[a, p] - hardest + 10)
        _, column = torch.where(matrix[own] == hardest)
        assert n in pool.nearest_original[column]


@pytest.mark.parametrize("make", [DISTANCES["l2"], DISTANCES["l2 of normalized"]])
@pytest.mark.parametrize("hardness", ["hardest", 2, "semihard"])
@four
def test_a_gpu_cannot_ask_for_lengths(symm_loss, hardness, make, monkeypatch):
    """There every point has a bias, though it is zero where points have length one."""
    labels = torch.tensor(LABELS["ragged"])
    embeddings = random(len(labels), 6)
    found = []
    for _ in range(2):
        loss_func = symm_loss(hardness=hardness, distance=make())
        loss = loss_func(embeddings, labels)
        found.append((loss, *torch.autograd.grad(loss, embeddings)))
        monkeypatch.setattr(points, "_all_of_length_one", lambda squared: False)
    assert_close(*found)


@four
def test_near_points_keep_a_finite_gradient(symm_loss):
    embeddings = torch.ones(4, 3, dtype=DOUBLE, requires_grad=True)
    loss = symm_loss()(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_error_of_squared_distances(dtype):
    """Not normalized: a few epsilon of the squared norms, for near and far points."""
    first = torch.randn(1, 64, dtype=DOUBLE) * 100
    step = torch.randn(40, 64, dtype=DOUBLE)
    size = torch.logspace(-8, 0, 40, dtype=DOUBLE).view(-1, 1)
    embeddings = torch.cat([first, first + step * size]).to(dtype)
    groups = class_groups(torch.arange(len(embeddings)))
    squared = LpDistance(normalize_embeddings=False, power=2)
    core = core_distance(squared)
    scores = Scores(Comparison(core), embeddings)
    own = scores.classes(embeddings, groups).points
    found = scores.values(compare_groups(own, own, core, 1).score).double()
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
    assert_close(found, expected)
    assert_close(
        torch.autograd.grad(found, embeddings), torch.autograd.grad(expected, embeddings)
    )
