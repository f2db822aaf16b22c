"""The commands of python -m benchmarks, by name; each is a dataclass of its options."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .data import KINDS
from .data.emoji import emoji
from .experiments.command import (
    DEMO_METHODS,
    PAPER_METHODS,
    SYNTHESIS_METHODS,
    SYNTHETICS_METHODS,
    Command,
    MethodNames,
)
from .experiments.experiment import Experiment
from .experiments.features import Features
from .experiments.reality_check import RealityCheck
from .experiments.runs import Variant, of_methods
from .experiments.soak import Soak
from .experiments.visualize import Visualize
from .methods.methods import METHODS, Synthesis
from .models import trunks
from .reporting.gain import gain
from .reporting.report import report
from .speed.speed import speed


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

    def shared(self) -> dict[str, Any]:
        """Fields of Settings that all runs share."""
        return {**super().shared(), **vars(self.synthesis)}

    def variants(self) -> Mapping[str, Variant]:
        """The methods."""
        return of_methods(self.methods)


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
    methods: MethodNames = DEMO_METHODS
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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measure what the losses cost, compared with PML's own.

    Time forward and backward passes of the losses and the miner. Compare them with PML's
    own losses, with the same losses on materialized synthetic points, and with a lower
    bound: a product of the batch with itself and one more.

    Attributes:
        out: output folder.
        batches: batch sizes.
        embedding_size: dimensions of an embedding.
        seconds: how long to repeat each comparison.
        device: where to compute.
        baseline: a checkout with another version of pml_symm, to measure as well.
    """

    out: Path = Path("runs/speed")
    batches: tuple[int, ...] = (128, 512, 2048, 8192)
    embedding_size: int = 512
    seconds: float = 5.0
    device: Literal["cpu", "cuda"] = "cpu"
    baseline: Path | None = None

    def run(self) -> tuple[str, Path]:
        """Measure, and write speed.csv, speed.md and speed.png."""
        return speed(**vars(self)), self.out


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML file of all runs, which needs no network.

    It has sortable tables, base against Symm, learning curves, shares of synthetic
    negatives, speed, and an interactive t-SNE map of test embeddings.

    Attributes:
        out: the file.
        runs: output folders of the other commands; by default all in runs.
        speed: a speed.csv; by default runs/speed/speed.csv.
    """

    out: Path = Path("runs/report.html")
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[RUN ...]")
    ] = ()
    speed: Path | None = None

    def run(self) -> tuple[str, Path]:
        """Write the file."""
        return report(**vars(self)), self.out


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Compare the gain of synthesis over experiments, and whether the angle predicts it.

    A row and a point for every Symm method of every experiment: its gain over its base
    loss and over the hardest originals, paired by seed, against the angle between source
    and axis at the end of training.

    Attributes:
        out: output folder.
        runs: output folders of the other commands.
    """

    out: Path = Path("runs/gain")
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")
    ] = ()

    def run(self) -> tuple[str, Path]:
        """Write gain.md, gain.csv and gain.png."""
        return gain(self.out, self.runs), self.out


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """Make a dataset of pictures: the same emoji in nine designs, with free licences.

    Fetches the sets by npm and draws them, in a few minutes; use the result with
    --dataset folder.

    Attributes:
        out: folder for the class folders; new, empty, or written by this command.
    """

    out: tyro.conf.Positional[Path] = Path("runs/emoji-data")

    def run(self) -> tuple[str, Path]:
        """Fetch and draw the emoji, or check those that were drawn before."""
        return emoji(self.out), self.out


COMMANDS: dict[str, Command] = {
    "demo": Compare(out=Path("runs/demo"), methods=DEMO_METHODS),
    "compare": Compare(),
    "paper-table": Compare(
        out=Path("runs/paper-table"), methods=PAPER_METHODS, published=True
    ),
    "synthetics": Compare(out=Path("runs/synthetics"), methods=SYNTHETICS_METHODS),
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
