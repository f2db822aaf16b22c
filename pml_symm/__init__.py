"""Symmetrical Synthesis (Gu & Ko, AAAI 2020) for pytorch-metric-learning.

`pml_symm.functional` is the method on plain tensors. The classes need
pytorch-metric-learning 2, and are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional
from .functional.synthetic_batch import SyntheticBatch

if TYPE_CHECKING:
    from .accuracy_calculator import AccuracyCalculator
    from .symm_angular_loss import SymmAngularLoss
    from .symm_lifted_structure_loss import SymmLiftedStructureLoss
    from .symm_loss import SymmLoss
    from .symm_miner import SymmMiner
    from .symm_n_pairs_loss import SymmNPairsLoss
    from .symm_synthesizer import SymmSynthesizer
    from .symm_triplet_margin_loss import SymmTripletMarginLoss

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

_MODULES = {
    "AccuracyCalculator": "accuracy_calculator",
    "SymmAngularLoss": "symm_angular_loss",
    "SymmLiftedStructureLoss": "symm_lifted_structure_loss",
    "SymmLoss": "symm_loss",
    "SymmMiner": "symm_miner",
    "SymmNPairsLoss": "symm_n_pairs_loss",
    "SymmSynthesizer": "symm_synthesizer",
    "SymmTripletMarginLoss": "symm_triplet_margin_loss",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .pml_version import check_pml_version

    check_pml_version()  # first, because other versions fail below with an obscure error
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
