"""Symmetrical Synthesis (Gu & Ko, AAAI 2020) for pytorch-metric-learning."""

from .pml_version import check_pml_version

check_pml_version()  # first, because other versions fail below with an obscure error

from . import functional
from .accuracy_calculator import AccuracyCalculator
from .symm_angular_loss import SymmAngularLoss
from .symm_lifted_structure_loss import SymmLiftedStructureLoss
from .symm_loss import SymmLoss
from .symm_miner import SymmMiner
from .symm_n_pairs_loss import SymmNPairsLoss
from .symm_synthesizer import SymmSynthesizer
from .symm_triplet_margin_loss import SymmTripletMarginLoss
from .synthetic_batch import SyntheticBatch

__version__ = "0.2.0"

__all__ = [
    "AccuracyCalculator",
    "SymmAngularLoss",
    "SymmLiftedStructureLoss",
    "SymmLoss",
    "SymmMiner",
    "SymmNPairsLoss",
    "SymmSynthesizer",
    "SymmTripletMarginLoss",
    "SyntheticBatch",
    "functional",
]
