"""What miner, wrapper, losses, distances and reducers record with collect_stats=True."""

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers

from pml_symm import (
    SymmAngularLoss,
    SymmLoss,
    SymmMiner,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
)

from .losses import FOUR

PAIRS = torch.tensor([0, 0, 1, 1])


def at_angles(*angles):
    angles = torch.tensor(angles)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


# Between the classes mirror images win, or nothing but originals is there.
FACING, SAME = at_angles(0.0, 0.5, 2.0, 1.5), torch.eye(2)[PAIRS]


def batch(m=2):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4 * m, 5, generator=generator, dtype=torch.float64)
    return points, torch.arange(4).repeat(m)


@pytest.mark.parametrize(("points", "expected"), [(FACING, 1), (SAME, 0)])
def test_the_miner_records_the_share_of_synthetic_negatives(points, expected):
    miner = SymmMiner(collect_stats=True)
    for inputs in ((points, PAIRS), (points[:2], PAIRS[:2], points, PAIRS)):
        miner(*inputs)
        assert miner.synthetic_ratio == expected


@pytest.mark.parametrize(
    ("of_loss", "given", "recorded"),
    [(True, None, True), (False, None, False), (True, False, False)],
)
def test_the_wrapper_collects_what_its_loss_does_unless_told(of_loss, given, recorded):
    inner = losses.ContrastiveLoss(collect_stats=of_loss)
    loss = SymmLoss(inner, collect_stats=given)
    loss(FACING, PAIRS)
    assert hasattr(loss, "synthetic_ratio") == recorded


@pytest.mark.parametrize("make", [*FOUR, SymmMiner])
def test_the_distance_records_norms(make):
    distance = distances.LpDistance(collect_stats=True)
    make(distance=distance)(3 * FACING, PAIRS)
    assert distance.initial_avg_query_norm == pytest.approx(3)
    assert distance.final_avg_ref_norm == pytest.approx(1)


@pytest.mark.parametrize(
    "make",
    [*FOUR[:3], lambda **x: SymmNPairsLoss(candidates="official", **x)],
)
def test_norms_are_those_of_the_batch_also_if_points_are_made(make):
    points, labels = batch()
    distance = distances.SNRDistance(normalize_embeddings=False, collect_stats=True)
    make(distance=distance)(points, labels)
    assert distance.initial_avg_query_norm == pytest.approx(
        points.norm(dim=1).mean().item()
    )


def test_the_miner_in_the_wrapper_counts():
    points, labels = batch()
    miner = SymmMiner(index_space="pool", collect_stats=True)
    loss = SymmLoss(losses.TripletMarginLoss(), miner)
    loss(points, labels)
    assert (miner.num_pos_pairs, miner.num_neg_pairs) == (8, 8 * 3)
    assert miner.synthetic_ratio > 0
    loss(points, torch.zeros_like(labels))
    assert (miner.num_neg_pairs, miner.synthetic_ratio) == (0, 0)


def test_losses_record_what_pml_does():
    points, labels = batch()
    points = torch.nn.functional.normalize(points)
    ours, theirs = (x(collect_stats=True) for x in (SymmAngularLoss, losses.AngularLoss))
    ours(points, labels), theirs(points, labels)
    assert ours.average_angle == pytest.approx(theirs.average_angle)
    ours = SymmAngularLoss(distance=distances.DotProductSimilarity(), collect_stats=True)
    ours(points, labels)
    assert ours.average_angle == pytest.approx(theirs.average_angle)
    loss = SymmNPairsLoss()
    loss(points, labels)
    assert loss.num_pairs == 4


def test_the_reducer_records_terms():
    points, labels = batch(m=3)
    reducer = reducers.AvgNonZeroReducer(collect_stats=True)
    loss = SymmTripletMarginLoss(reducer=reducer)
    loss(points, labels)
    whole = SymmTripletMarginLoss(reducer=reducers.DoNothingReducer())
    terms = whole(points, labels)["loss"]["losses"]
    assert loss.reducer.losses_size == len(terms)
    assert loss.reducer.num_past_filter == (terms > 0).sum()


def test_a_pair_of_a_large_class_counts_as_much_as_one_of_a_small_class():
    points = at_angles(0.0, 0, 0, 3, 3, 1.8, 1.2)
    loss = SymmTripletMarginLoss(collect_stats=True)
    loss(points, torch.tensor([0, 0, 0, 1, 1, 2, 2]))
    # Mirror images of class 2, at 0.6 and 2.4, win; between the others originals do.
    assert loss.synthetic_ratio == pytest.approx((3 * 1 + 1 * 1 + 1 * 2) / (2 * 5))
