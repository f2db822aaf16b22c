"""Classes of two: the fast way gives what gram.py gives."""

import pytest
import torch

from pml_symm import pairs
from pml_symm.gram import hardest_between, hardest_within
from pml_symm.kinds import Kinds, Setting
from pml_symm.pairs import hardest_of_pairs, supports

DOUBLE = torch.float64
SETTINGS = [Setting(normalize=True), Setting(), Setting(1.5, 0.7)]


@pytest.fixture(params=["one block", "many blocks"])
def _block_size(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(pairs, "_LEAST_ROWS", 2)
        monkeypatch.setitem(pairs._BLOCK_ELEMENTS, "cpu", 1)


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("distances", [True, False])
@pytest.mark.parametrize("sums", [True, False])
def test_as_the_general_way(setting, distances, sums):
    size = 7
    embeddings = torch.randn(2 * size + 3, 5, dtype=DOUBLE, requires_grad=True)
    rows = torch.randperm(len(embeddings))[: 2 * size].view(size, 2)
    found = hardest_of_pairs(embeddings, rows, setting, distances, sums, True)
    members, kinds = embeddings[rows], Kinds(2)
    expected = hardest_within(members, kinds, setting, distances, True)
    within = expected.within[:, 0, 1]
    if sums:
        sum_kinds = Kinds(2, are_sums=True)
        expected = hardest_between(members, members, sum_kinds, kinds, setting)
    of_pairs = found.distance if distances else found.similarity.diagonal()
    torch.testing.assert_close(of_pairs, within)
    others = ~torch.eye(size, dtype=torch.bool)
    torch.testing.assert_close(found.similarity[others], expected.similarity[others])
    assert torch.equal(found.winner[others].long(), expected.winner[others].long())
    weights = torch.randn(size, size, dtype=DOUBLE).fill_diagonal_(0)
    own_weights = torch.randn(size, dtype=DOUBLE)
    torch.testing.assert_close(
        *(
            torch.autograd.grad(
                (similarity * weights).sum() + (own * own_weights).sum(), embeddings
            )
            for similarity, own in (
                (found.similarity, of_pairs),
                (expected.similarity, within),
            )
        )
    )


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("sums", [True, False])
def test_gradcheck(sums):
    embeddings = torch.randn(8, 3, dtype=DOUBLE, requires_grad=True)
    rows = torch.randperm(8).view(4, 2)

    def terms(x):
        found = hardest_of_pairs(x, rows, Setting(beta=0.8), True, sums)
        return found.similarity, found.distance

    assert torch.autograd.gradcheck(terms, embeddings)


def test_equal_candidates_send_the_gradient_of_one():
    embeddings = torch.ones(8, 3, dtype=DOUBLE, requires_grad=True)
    rows = torch.arange(8).view(4, 2)
    hardest_of_pairs(embeddings, rows, Setting()).similarity[0, 1].backward()
    # Of <x, y> with x of class 0 and y of class 1: each class gets the other, once.
    by_class = embeddings.grad.view(4, 2, 3).sum(1)
    torch.testing.assert_close(by_class[:2], torch.ones(2, 3, dtype=DOUBLE))
    assert by_class[2:].abs().max() == 0


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_zero_vectors_and_equal_members_have_finite_gradients(setting):
    embeddings = torch.randn(8, 3, dtype=DOUBLE)
    embeddings[0] = 0
    embeddings[3] = embeddings[2]
    embeddings.requires_grad_()
    found = hardest_of_pairs(embeddings, torch.arange(8).view(4, 2), setting, True)
    (found.similarity.sum() + found.distance.sum()).backward()
    assert embeddings.grad.isfinite().all()


def test_what_it_does_not_answer():
    assert supports(Kinds(2), Setting())
    assert not supports(Kinds(3), Setting())
    assert not supports(Kinds(2), Setting(rank=2))
    assert not supports(Kinds(2), Setting(euclidean=True))
