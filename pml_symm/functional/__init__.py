"""Symmetrical Synthesis on plain tensors; nothing here needs pytorch-metric-learning."""

from .angular import angular_loss
from .distances import ByFunction, Distance, DotProduct, Euclidean
from .lifted_structure import lifted_structure_loss
from .loss import Options, Terms
from .mining import mine
from .n_pairs import n_pairs_loss
from .reflect import reflect
from .rules import Candidates
from .synthesis import Synthesis, synthesize
from .synthetic_batch import SyntheticBatch
from .triplet_margin import triplet_margin_loss

__all__ = [
    "ByFunction",
    "Candidates",
    "Distance",
    "DotProduct",
    "Euclidean",
    "Options",
    "Synthesis",
    "SyntheticBatch",
    "Terms",
    "angular_loss",
    "lifted_structure_loss",
    "mine",
    "n_pairs_loss",
    "reflect",
    "synthesize",
    "triplet_margin_loss",
]
