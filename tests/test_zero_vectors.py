"""Zero vectors give the same losses as materialized points and the distance itself."""

import pytest
import torch
from pytorch_metric_learning import distances, losses
from pytorch_metric_learning.reducers import MeanReducer
from torch.testing import assert_close

import pml_symm
from pml_symm import SymmMiner, SymmSynthesizer

from .losses import FOUR, four

ZEROS = {
    "all": [0, 1, 2, 3, 4, 5, 6, 7],
    "a class": [2, 3],
    "a member of each": [0, 2, 4, 6],
    "one": [5],
}
zeros = pytest.mark.parametrize("rows", ZEROS.values(), ids=ZEROS)
DISTANCES = [
    distances.LpDistance(),
    distances.LpDistance(power=2),
    distances.LpDistance(normalize_embeddings=False),
    distances.CosineSimilarity(),
]


class Materialized(SymmSynthesizer):
    """Makes the same points, but the losses do not know what a subclass makes."""


def batch(rows):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    x[rows] = 0
    return x.requires_grad_(), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def test_four_zero_rows_give_the_margin_as_pml_does():
    x, labels = torch.zeros(4, 3), torch.tensor([0, 0, 1, 1])
    expected = losses.TripletMarginLoss(margin=0.2)(x, labels)
    assert expected == pytest.approx(0.2)
    assert_close(pml_symm.SymmTripletMarginLoss(margin=0.2)(x, labels), expected)


@zeros
@pytest.mark.parametrize("distance", DISTANCES, ids=str)
@pytest.mark.parametrize("make", FOUR[:3])
@pytest.mark.parametrize("hardness", ["hardest", 2])
def test_losses_are_those_of_made_points(make, distance, rows, hardness):
    x, labels = batch(rows)
    found, expected = (
        make(
            distance=distance,
            synthesizer=synthesizer(),
            hardness=hardness,
            reducer=MeanReducer(),
        )(x, labels)
        for synthesizer in (SymmSynthesizer, Materialized)
    )
    # For equal points, the distance is the square root of a rounding error.
    assert_close(found, expected, rtol=1e-6, atol=1e-7)
    found.backward()
    assert x.grad.isfinite().all()


@zeros
def test_with_a_reference(rows):
    x, labels = batch([])
    reference, ref_labels = batch(rows)
    found, expected = (
        pml_symm.SymmTripletMarginLoss(synthesizer=synthesizer(), reducer=MeanReducer())(
            x, labels, ref_emb=reference, ref_labels=ref_labels
        )
        for synthesizer in (SymmSynthesizer, Materialized)
    )
    assert_close(found, expected, rtol=1e-6, atol=1e-7)
    found.backward()
    assert x.grad.isfinite().all() and reference.grad.isfinite().all()


@zeros
@pytest.mark.parametrize("alpha", [1.5, 2.5])
@pytest.mark.parametrize("hardness", [2, 3, 7, "semihard"])
@four
def test_gradients_where_lengths_change(symm_loss, hardness, alpha, rows):
    """Mirror images of a zero vector may win, and are normalized."""
    x, labels = batch(rows)
    loss = symm_loss(synthesizer=SymmSynthesizer(alpha), hardness=hardness)
    loss(x, labels).backward()
    assert x.grad.isfinite().all()


def test_a_zero_point_is_nearer_than_one_on_the_other_side():
    # Class 1 has the zero vector, at distance 1 from all points of the circle, and the
    # opposite side of the circle, at distance 2.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    *_, anchors, negatives = SymmMiner()(x, torch.tensor([0, 0, 1, 1]))
    assert negatives[anchors == 0].tolist() == [2]
