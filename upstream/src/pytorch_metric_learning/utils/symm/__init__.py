from .symm_synthesizer import SymmSynthesizer
from .synthetic_batch import SyntheticBatch
