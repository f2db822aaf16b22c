"""The four losses in all their forms, the distances and the rules, listed once."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytorch_metric_learning import distances, losses

from pml_symm import (
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
)
from pml_symm import functional as F

from . import oracle


class Loss(NamedTuple):
    """A loss: its class, PML's class of that name, its function, and its oracle."""

    symm: Callable
    pml: Callable
    function: Callable
    oracle: Callable


LOSSES = {
    "n-pairs": Loss(SymmNPairsLoss, losses.NPairsLoss, F.n_pairs_loss, oracle.n_pairs),
    "triplet": Loss(
        SymmTripletMarginLoss,
        losses.TripletMarginLoss,
        F.triplet_margin_loss,
        oracle.triplet,
    ),
    "lifted": Loss(
        SymmLiftedStructureLoss,
        losses.LiftedStructureLoss,
        F.lifted_structure_loss,
        oracle.lifted,
    ),
    "angular": Loss(SymmAngularLoss, losses.AngularLoss, F.angular_loss, oracle.angular),
}
FOUR = [loss.symm for loss in LOSSES.values()]
WITH_REFERENCE = FOUR[1:]  # PML's N-pairs loss takes none
FUNCTIONS = [loss.function for loss in LOSSES.values()]

four = pytest.mark.parametrize("symm_loss", FOUR)
functions = pytest.mark.parametrize("function", FUNCTIONS)


def signal_to_noise(x, y):
    """PML's SNRDistance, which is not symmetric, as a function of two sets of points."""
    noise = (x.unsqueeze(1) - y).var(dim=2)
    return noise / x.var(dim=1, keepdim=True)


class Distance(NamedTuple):
    """A distance: the oracle's, PML's, and that of pml_symm.functional."""

    oracle: oracle.Metric
    pml: Callable
    functional: F.Distance


DISTANCES = {
    "dot": Distance(
        oracle.Metric("dot", False),
        lambda: distances.DotProductSimilarity(normalize_embeddings=False),
        F.DotProduct(normalize=False),
    ),
    "cosine": Distance(
        oracle.Metric("dot", True), distances.CosineSimilarity, F.DotProduct()
    ),
    "euclidean": Distance(
        oracle.Metric("euclidean", False),
        lambda: distances.LpDistance(normalize_embeddings=False),
        F.Euclidean(normalize=False),
    ),
    "sphere": Distance(
        oracle.Metric("euclidean", True), distances.LpDistance, F.Euclidean()
    ),
    "snr": Distance(
        oracle.Metric("snr", False),
        lambda: distances.SNRDistance(normalize_embeddings=False),
        F.ByFunction(signal_to_noise),
    ),
}


def capped(candidates):
    """A mirror image competes only if it is easier than the positive pair."""
    synthetic = candidates.row_synthetic | candidates.column_synthetic
    too_hard = synthetic & (candidates.score >= candidates.positive)
    return candidates.score.masked_fill(too_hard, -torch.inf)


def easiest_of_mirrored(candidates):
    """The easiest candidate whose column point is synthetic: none for a lone sample."""
    return (-candidates.score).masked_fill(~candidates.column_synthetic, -torch.inf)


def nothing(candidates):
    """Lets no candidate win."""
    return torch.full_like(candidates.score, -torch.inf)


# Each rule, and the same for one candidate: its score, which ends are synthetic, and the
# score of the positive pair.
RULES = {
    "capped": (
        capped,
        lambda score, row, column, positive: (
            -torch.inf if (row or column) and score >= positive else score
        ),
    ),
    "easiest of mirrored": (
        easiest_of_mirrored,
        lambda score, row, column, positive: -score if column else -torch.inf,
    ),
    "nothing": (nothing, lambda score, row, column, positive: -torch.inf),
}
