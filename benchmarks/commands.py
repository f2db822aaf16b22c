"""The commands of python -m benchmarks, by name; each is a dataclass of its options."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from .data import KINDS
from .data.emoji import Emoji
from .experiments import command
from .experiments.command import Command, MethodNames
from .experiments.experiment import Experiment
from .experiments.features import Features
from .experiments.reality_check import RealityCheck
from .experiments.runs import Variant, of_methods
from .experiments.soak import Soak
from .experiments.visualize import Visualize
from .methods.methods import METHODS, Synthesis
from .models import trunks
from .reporting.gain import Gain
from .reporting.report import Report
from .speed.speed import Speed


def _all_or_default(names: str) -> str:
    """What the help shows of default methods."""
    is_all = len(shlex.split(names)) == len(METHODS)
    return f"(default: {'all' if is_all else names})"


@dataclass(frozen=True, kw_only=True)
class Compare(Experiment):
    """Train any methods, test them on unseen classes, and write tables and figures.

    Each method is compared with its base loss, paired by seed.

    Attributes:
        methods: what to train.
        synthesis: options of the Symm methods.
    """

    out: Path = Path("runs/compare")
    methods: Annotated[MethodNames, tyro.conf.arg(help_behavior_hint=_all_or_default)] = (
        tuple(METHODS)
    )
    synthesis: Synthesis = field(default_factory=Synthesis)

    def variants(self) -> Mapping[str, Variant]:
        """The methods."""
        return of_methods(self.methods, **vars(self.synthesis))


@dataclass(frozen=True, kw_only=True)
class Regimes(Experiment):
    """Measure when Symm helps: vary the trunk's start and the number of classes.

    Base against Symm, with the trunk from scratch or pre-trained, and with some or all
    training classes. A convnet is pre-trained with softmax on classes that nothing else
    uses; other trunks have their published weights, and sentence encoders always start
    from them. From scratch nothing is frozen. The learning rate of a pre-trained convnet
    is 1e-4; choose others by --learning-rates.

    Attributes:
        methods: what to train.
        train_classes: numbers of training classes; all of them are always added.
    """

    out: Path = Path("runs/regimes")
    methods: MethodNames = command.DEMO_METHODS
    train_classes: tuple[int, ...] = (100, 400)

    def variants(self) -> Mapping[str, Variant]:
        """Every method with every start of the trunk and every number of classes."""
        numbers: dict[str, int | None] = {f"{x} classes": x for x in self.train_classes}
        numbers["all classes"] = None
        variants = {}
        for start, of_start in self._starts().items():
            for classes, number in numbers.items():
                settings = {**of_start, "train_classes": number}
                where = f", {start}, {classes}"
                for method in self.methods:
                    bases = tuple(base + where for base in METHODS[method].bases)
                    variants[method + where] = Variant(method, settings, bases)
        return variants

    def _starts(self) -> dict[str, dict[str, Any]]:
        """Name of a start -> its fields of Settings."""
        if self.settings.trunk == "convnet":
            # Neither trains on the classes that only the pre-trained start has seen.
            drawn = not KINDS[self.settings.dataset].in_files
            both = {"reserve": True, "augment": drawn}
            # Fine-tune at a low rate, the head at ten times that rate.
            tuned = {"start": "softmax", "learning_rate": 1e-4, "head_factor": 10.0}
            return {
                "from scratch": {**both, "start": "scratch"},
                "pre-trained": {**both, **tuned},
            }
        pretrained = {"pre-trained": {"pretrained": True}}
        # Sentence encoders are always pre-trained.
        if trunks.input_of(self.settings.trunk) == "texts":
            return pretrained
        return {"from scratch": {"pretrained": False, "freeze_until": 0}, **pretrained}


def _of_n_pairs(name: str, *values: Any) -> dict[str, Variant]:
    base, method = "N-pairs", "Symm + N-pairs"
    variants = {base: Variant(base)}
    for value in values:
        variants[f"{method}, {name} = {value}"] = Variant(method, {name: value}, (base,))
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
    "similarity": _of_n_pairs("alpha", 1.5, 2.0, 2.5),
    "norm": _of_n_pairs("beta", 0.5, 1.0, 1.5),
    "hardness": _of_n_pairs("hardness", "hardest", 2, 4, 8, 16),
    "candidates": _of_n_pairs("candidates", "all", "official"),
    "start": _of_n_pairs("base_steps", 0, 50, 100),
    "pairing": _pairings(),
    "synthesis": of_methods(command.SYNTHESIS_METHODS),
}
"""Name -> variants of one of the paper's ablations; synthesis has the controls."""


@dataclass(frozen=True, kw_only=True)
class Ablate(Experiment):
    """Vary one option of the synthesis, as the paper's ablations do.

    Each value is compared with the base loss, paired by seed. Each ablation has its own
    folder in the output folder.

    Attributes:
        ablation: what to vary.
    """

    ablation: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(constructor=tyro.extras.literal_type_from_choices(ABLATIONS)),
    ]
    out: Path = Path("runs/ablate")

    @property
    def folder(self) -> Path:
        """The ablation's own folder."""
        return self.out / self.ablation

    def variants(self) -> Mapping[str, Variant]:
        """The values of the varied option."""
        return ABLATIONS[self.ablation]


COMMANDS: dict[str, Command] = {
    "demo": Compare(out=Path("runs/demo"), methods=command.DEMO_METHODS),
    "compare": Compare(),
    "paper-table": Compare(
        out=Path("runs/paper-table"), methods=command.PAPER_METHODS, published=True
    ),
    "synthetics": Compare(out=Path("runs/synthetics"), methods=command.SYNTHETICS_METHODS),
    "regimes": Regimes(),
    "ablate": Ablate(ablation=tyro.MISSING),
    "reality-check": RealityCheck(),
    "visualize": Visualize(),
    "speed": Speed(),
    "soak": Soak(),
    "emoji": Emoji(),
    "features": Features(),
    "gain": Gain(),
    "report": Report(),
}
"""Name -> the command with its defaults."""

DESCRIPTIONS = {
    "demo": "Compare base losses with Symm on the embedded glyphs, in a few minutes.",
    "paper-table": """\
Compare the methods of the paper's Tables 1 to 3 with its published numbers.

The paper's setting for photographs is --preset paper.""",
    "synthetics": """\
Measure whether synthetic points keep their class, and how often they are selected.

Over training: recall@1 with synthetic points as queries and originals as references,
and the share of selected negatives that are synthetic.""",
}
"""Name -> help of a command that is another one with other defaults."""
