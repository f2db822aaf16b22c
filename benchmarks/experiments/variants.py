"""The variants that an experiment compares: the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..methods.methods import METHODS
from ..training.settings import CommonSettings

PAPER_METHODS = (
    *("Triplet", "Triplet, semi-hard", "DAML + Triplet", "HDML + Triplet"),
    *("Symm + Triplet", "Symm + Triplet, semi-hard"),
    *("N-pairs", "DAML + N-pairs", "HDML + N-pairs", "Symm + N-pairs"),
    *("Angular", "Symm + Angular", "Lifted", "Symm + Lifted"),
)
SYNTHETICS_METHODS = ("Symm + Triplet", "Symm + N-pairs", "Symm + Angular", "Symm + Lifted")
DEMO_METHODS = ("N-pairs", "Symm + N-pairs", "Triplet", "Symm + Triplet")


def _controlled(*bases: str, symm: str = "Symm + {}") -> tuple[str, ...]:
    """Base losses, each with its control and its Symm method."""
    return tuple(
        name
        for base in bases
        for name in (base, f"{base}, hardest originals", symm.format(base))
    )


SYNTHESIS_METHODS = _controlled("Triplet", "N-pairs", "Lifted")
CONTROLLED_METHODS = _controlled("N-pairs", "Triplet")
COMPARED_METHODS = (
    *_controlled("N-pairs", "Triplet", "Lifted", "Angular"),
    *_controlled("Multi-similarity", "Contrastive", symm="SymmLoss({})"),
    *("Multi-similarity, mined", "Contrastive, memory", "Proxy-anchor"),
)


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        method: a name in METHODS.
        settings: its own fields of Settings.
        bases: the variants to compare it with, if they are in the table.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bases: tuple[str, ...] = ()


def of_methods(methods: Sequence[str]) -> dict[str, Variant]:
    """Methods without own settings, each compared with its base and its control.

    >>> of_methods(["Symm + N-pairs"])["Symm + N-pairs"].bases
    ('N-pairs', 'N-pairs, hardest originals')
    """
    return {name: Variant(name, {}, METHODS[name].bases) for name in methods}


def _one_setting(method: str, name: str, values: Sequence[Any]) -> dict[str, Variant]:
    base = METHODS[method].base
    assert base is not None
    variants = {base: Variant(base)}
    for value in values:
        label = f"{method}, {name} = {value}"
        variants[label] = Variant(method, {name: value}, (base,))
    return variants


def _pairings() -> dict[str, Variant]:
    variants = {}
    for m, pairings in ((2, ("all",)), (4, ("all", "ring")), (8, ("all", "ring"))):
        base = f"Triplet, m = {m}"
        variants[base] = Variant("Triplet", {"m": m})
        for pairing in pairings:
            label = f"Symm + Triplet, m = {m}, pairing = {pairing}"
            settings = {"m": m, "pairing": pairing}
            variants[label] = Variant("Symm + Triplet", settings, (base,))
    return variants


ABLATIONS: dict[str, dict[str, Variant]] = {
    "similarity": _one_setting("Symm + N-pairs", "alpha", (1.5, 2.0, 2.5)),
    "norm": _one_setting("Symm + N-pairs", "beta", (0.5, 1.0, 1.5)),
    "hardness": _one_setting("Symm + N-pairs", "hardness", ("hardest", 2, 4, 8, 16)),
    "candidates": _one_setting("Symm + N-pairs", "candidates", ("all", "official")),
    "start": _one_setting("Symm + N-pairs", "base_steps", (0, 50, 100)),
    "pairing": _pairings(),
    "synthesis": of_methods(SYNTHESIS_METHODS),
}
"""Name -> variants of one of the paper's ablations; synthesis has the controls."""


REGIME_CLASSES = (100, 400)


def regimes(
    methods: Sequence[str], common: CommonSettings, train_classes: Sequence[int]
) -> dict[str, Variant]:
    """Every method with every start of the trunk and every number of classes.

    Args:
        methods: names in METHODS.
        common: names the dataset and the trunk.
        train_classes: numbers of training classes; all of them are always added.
    """
    numbers = {f"{number} classes": number for number in train_classes}
    variants = {}
    for start, of_start in _starts(common).items():
        for classes, number in {**numbers, "all classes": None}.items():
            settings = {**of_start, "train_classes": number}
            where = f", {start}, {classes}"
            for method in methods:
                bases = tuple(base + where for base in METHODS[method].bases)
                variants[method + where] = Variant(method, settings, bases)
    return variants


def _starts(common: CommonSettings) -> dict[str, dict[str, Any]]:
    if common.trunk == "convnet":
        # Neither trains on the classes that only the pre-trained start has seen.
        both = {"reserve": True, "augment": common.dataset == "glyphs"}
        # Fine-tune at a low rate, the head at ten times that rate.
        tuned = {"start": "softmax", "learning_rate": 1e-4, "head_factor": 10.0}
        return {
            "from scratch": {**both, "start": "scratch"},
            "pre-trained": {**both, **tuned},
        }
    pretrained = {"pre-trained": {"pretrained": True}}
    if common.dataset == "texts":  # sentence encoders are always pre-trained
        return pretrained
    return {"from scratch": {"pretrained": False, "freeze_until": 0}, **pretrained}
