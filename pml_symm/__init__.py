"""Symmetrical Synthesis (Gu & Ko, AAAI 2020) for pytorch-metric-learning.

`pml_symm.functional` is the method on plain tensors. The classes need
pytorch-metric-learning 2, and are imported when they are first asked for.
"""

import re
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .pml_version import check_pml_version

    check_pml_version()  # first, because other versions fail below with an obscure error
    # A class's module has its name: SymmNPairsLoss is in symm_n_pairs_loss.
    module = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
    found = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
