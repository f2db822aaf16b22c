"""The Gram matrix's way to H(u, v) against the points themselves."""

import pytest
import torch
from pytorch_metric_learning.distances import DotProductSimilarity, LpDistance
from pytorch_metric_learning.reducers import DoNothingReducer

import pml_symm
from pml_symm import SymmSynthesizer, gram
from pml_symm.class_layout import class_layout
from pml_symm.functional import reflect
from pml_symm.gram import hardest_between, hardest_within
from pml_symm.kinds import Kinds, Setting

DOUBLE = torch.float64


def points(members, kinds, alpha=2.0, beta=1.0):
    """Shape (kinds, C, D): every kind of point of every class, or sum of two."""
    made = list(members.unbind(1))
    for source, axis in kinds.synthetic:
        made.append(reflect(made[source], made[axis], alpha, beta))
    return torch.stack([sum(made[x] for x in terms) for terms in kinds.terms])


def candidates(rows, columns):
    """Shape (candidates, R, C), row by row."""
    return torch.einsum("iud,jvd->ijuv", rows, columns).flatten(0, 1)


def random(*shape):
    return torch.randn(*shape, dtype=DOUBLE, requires_grad=True)


@pytest.fixture(params=[1 << 20, 20], ids=["one block", "many blocks"])
def _block_size(request, monkeypatch):
    monkeypatch.setitem(gram._BLOCK_ELEMENTS, "cpu", request.param)


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("rank", [1, 3, 1000])
@pytest.mark.parametrize(
    ("m", "pairing", "alpha", "beta"),
    [
        (1, "all", 2.0, 1.0),
        (2, "all", 2.0, 1.0),
        (2, "ring", 1.5, 0.7),
        (3, "all", 2.5, 1.5),
        (4, "ring", 2.0, 1.0),
        (4, "all", 2.0, 1.0),
    ],
)
def test_within(m, pairing, alpha, beta, rank):
    members, kinds = random(7, m, 5), Kinds(m, pairing)
    selected = hardest_within(
        members, kinds, Setting(alpha, beta, rank=rank), keep_winners=True
    )
    made = points(members, kinds, alpha, beta)
    all_of_them = candidates(made, made)
    expected = all_of_them.topk(min(rank, len(all_of_them)), dim=0).values[-1]
    others = ~torch.eye(7, dtype=torch.bool)
    torch.testing.assert_close(selected.similarity[others], expected[others])
    found = all_of_them.gather(0, selected.winner.long().unsqueeze(0))[0]
    torch.testing.assert_close(found[others], expected[others])
    weights = torch.randn(7, 7, dtype=DOUBLE) * others
    through = torch.autograd.grad((selected.similarity * weights).sum(), members)
    torch.testing.assert_close(
        through, torch.autograd.grad((expected * weights).sum(), members)
    )


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize(
    ("m", "n", "sums"), [(2, 3, False), (1, 2, False), (2, 2, True), (2, 4, True)]
)
def test_between(m, n, sums):
    rows, columns = random(6, m, 5), random(8, n, 5)
    row_kinds, column_kinds = Kinds(m, are_sums=sums), Kinds(n)
    selected = hardest_between(rows, columns, row_kinds, column_kinds, Setting())
    all_of_them = candidates(points(rows, row_kinds), points(columns, column_kinds))
    expected = all_of_them.amax(0)
    torch.testing.assert_close(selected.similarity, expected)
    torch.testing.assert_close(
        all_of_them.gather(0, selected.winner.long().unsqueeze(0))[0], expected
    )
    weights = torch.randn(6, 8, dtype=DOUBLE)
    torch.testing.assert_close(
        torch.autograd.grad((selected.similarity * weights).sum(), (rows, columns)),
        torch.autograd.grad((expected * weights).sum(), (rows, columns)),
    )


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("m", [1, 2, 3])
def test_normalized(m):
    members, kinds = random(6, m, 5), Kinds(m)
    selected = hardest_within(members, kinds, Setting(normalize=True))
    unit = torch.nn.functional.normalize(members, dim=2)
    made = points(unit, kinds)
    expected = candidates(made, made).amax(0)
    within = torch.einsum("cid,cjd->cij", unit, unit)
    torch.testing.assert_close(selected.within, within)
    weights = torch.randn(6, 6, dtype=DOUBLE).fill_diagonal_(0)
    gram_weights = torch.randn_like(within)
    torch.testing.assert_close(
        torch.autograd.grad(
            (selected.similarity * weights).sum() + (selected.within * gram_weights).sum(),
            members,
        ),
        torch.autograd.grad(
            (expected * weights).sum() + (within * gram_weights).sum(), members
        ),
    )


def test_many_candidates_need_more_than_a_byte():
    members, kinds = random(3, 5, 4), Kinds(5)
    selected = hardest_within(members, kinds, Setting(), keep_winners=True)
    made = points(members, kinds)
    others = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(
        selected.similarity[others], candidates(made, made).amax(0)[others]
    )
    assert selected.winner.dtype != torch.uint8


def test_equal_candidates_send_the_gradient_of_one():
    # Every point of a class is the same, so any candidate is the hardest.
    members = torch.ones(4, 2, 3, dtype=DOUBLE, requires_grad=True)
    selected = hardest_within(members, Kinds(2), Setting())
    selected.similarity[0, 1].backward()
    # Of <x, y> with x of class 0 and y of class 1: each gets the other, once.
    torch.testing.assert_close(members.grad.sum(1)[:2], torch.ones(2, 3, dtype=DOUBLE))
    assert members.grad.sum(1)[2:].abs().max() == 0


def test_zero_vectors_have_finite_gradients():
    members = torch.zeros(3, 2, 4, dtype=DOUBLE)
    members[:, 1] = torch.randn(3, 4, dtype=DOUBLE)
    for normalize in (False, True):
        given = members.clone().requires_grad_()
        setting = Setting(normalize=normalize)
        hardest_within(given, Kinds(2), setting).similarity.sum().backward()
        assert given.grad.isfinite().all()


class Materialized(SymmSynthesizer):
    """Makes the same points; but of a subclass the losses cannot know that."""


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


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("hardness", ["hardest", 3])
@pytest.mark.parametrize("pairing", ["all", "ring"])
@pytest.mark.parametrize("normalize", [True, False])
def test_losses_are_those_of_the_points(make, labels, hardness, pairing, normalize):
    labels = torch.tensor(labels)
    embeddings = random(len(labels), 6)
    found = []
    for synthesizer in (SymmSynthesizer, Materialized):
        loss_func = make(
            synthesizer=synthesizer(beta=1.0 if normalize else 0.8, pairing=pairing),
            hardness=hardness,
            distance=DotProductSimilarity(normalize_embeddings=normalize),
            collect_stats=True,
        )
        loss = loss_func(embeddings, labels)
        (gradient,) = torch.autograd.grad(loss, embeddings)
        found.append((loss, gradient, torch.tensor(loss_func.synthetic_ratio)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_triplets_name_the_same_points(labels, power):
    labels = torch.tensor(labels)
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


def test_near_points_keep_a_finite_gradient():
    embeddings = torch.ones(4, 3, dtype=DOUBLE, requires_grad=True)
    loss = pml_symm.SymmTripletMarginLoss()(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert embeddings.grad.isfinite().all()


def test_layout_holds_every_row_once():
    labels = torch.tensor([7, -5, 7, 2**60, -5, 7, 3, 0])
    layout = class_layout(labels)
    assert [group.shape[1] for group in layout.groups] == [1, 2, 3]
    rows = torch.cat([group.flatten() for group in layout.groups])
    assert rows.sort().values.tolist() == list(range(8))
    assert torch.equal(layout.labels[layout.class_of], labels)
    first = 0
    for group in layout.groups:
        numbers = torch.arange(first, first + len(group)).unsqueeze(1)
        assert torch.equal(layout.class_of[group], numbers.expand_as(group))
        first += len(group)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_error_of_squared_distances(dtype):
    """Not normalized: a few epsilon of the squared norms, however near the points are."""
    torch.manual_seed(0)
    first = torch.randn(1, 1, 64, dtype=DOUBLE) * 100
    step = torch.randn(40, 1, 64, dtype=DOUBLE)
    size = torch.logspace(-8, 0, 40, dtype=DOUBLE).view(-1, 1, 1)
    members = torch.cat([first, first + step * size]).to(dtype)
    selected = hardest_within(members, Kinds(1), Setting(euclidean=True))
    points_ = members.double().squeeze(1)
    expected = torch.cdist(points_, points_, compute_mode="donot_use_mm_for_euclid_dist")
    squared_norms = points_.square().sum(1)
    bound = squared_norms + squared_norms.unsqueeze(1)
    error = (-2 * selected.similarity.double() - expected**2).abs()
    assert (error / bound).max() < 4 * torch.finfo(dtype).eps
