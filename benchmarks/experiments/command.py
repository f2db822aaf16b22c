"""What the commands of python -m benchmarks have in common: methods and presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

import tyro

from ..methods.methods import METHODS
from ..training.settings import CommonSettings, Settings, Source

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
    "Angular, all normalized",
    *_controlled("Multi-similarity", "Contrastive", symm="SymmLoss({})"),
    *("Multi-similarity, mined", "Contrastive, memory", "Proxy-anchor"),
)


class Preset(NamedTuple):
    """Options of the commands that have settings; None leaves a command's own.

    Attributes:
        settings: replaces the command's.
        methods, seeds, learning_rates: of the commands that have such an option. One that
            is another command with its own methods, such as paper-table, keeps them.
    """

    settings: CommonSettings
    methods: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    learning_rates: tuple[float, ...] | None = None


PRESETS = {
    "paper": Preset(
        CommonSettings(
            trunk="googlenet",
            crop_cars=True,
            embedding_size=512,
            learning_rate=1e-4,
            lr_step_size=5000,
            weight_decay=0.005,
            steps=10_000,
            test_interval=1000,
        )
    ),
    "texts": Preset(
        CommonSettings(
            dataset="texts",
            trunk="minilm",
            freeze_until=8,
            embedding_size=128,
            steps=600,
            test_interval=100,
            learning_rate=3e-4,
        ),
        (
            *COMPARED_METHODS,
            *_controlled("N-pairs, normalized"),
            *("NT-Xent, 0.05", "SymmMiner + Triplet", "SymmMiner + Multi-similarity"),
        ),
        seeds=(0, 1, 2, 3, 4),
        learning_rates=(1e-4, 3e-4, 1e-3),
    ),
    "emoji": Preset(
        CommonSettings(
            dataset="folder",
            trunk="efficientnet-lite0",
            image_size=96,
            augmentation="none",
            freeze_until=11,
            embedding_size=128,
            steps=840,
            test_interval=105,
            learning_rate=3e-4,
            lr_step_size=210,
        ),
        COMPARED_METHODS,
        seeds=(0, 1, 2, 3, 4),
        learning_rates=(1e-4, 3e-4),
    ),
    "cars": Preset(
        CommonSettings(
            dataset="folder",
            trunk="efficientnet-lite0",
            image_size=160,
            freeze_until=11,
            augmentations=2,
            embedding_size=512,
            steps=1680,
            test_interval=140,
            learning_rate=1e-4,
            lr_step_size=560,
            weight_decay=0.005,
        ),
        CONTROLLED_METHODS,
        seeds=(0, 1, 2),
        learning_rates=(1e-4, 2e-4),
    ),
    "handwriting": Preset(
        CommonSettings(
            dataset="folder",
            test_classes="evaluation.*",
            image_size=32,
            augmentation="none",
            steps=1500,
            test_interval=250,
            lr_step_size=250,
        ),
        COMPARED_METHODS,
        seeds=(0, 1, 2, 3, 4),
        learning_rates=(3e-4, 1e-3, 3e-3),
    ),
}

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Annotated[Literal[tuple(METHODS)], tyro.conf.arg(metavar="METHOD")]
MethodNames = Annotated[
    tuple[MethodName, ...],
    tyro.conf.arg(metavar="[METHOD ...]", help=f"any of: {'; '.join(METHODS)}."),
]
PresetName = Annotated[
    str, tyro.conf.arg(constructor=tyro.extras.literal_type_from_choices(PRESETS))
]


class Command(Protocol):
    """A dataclass whose fields are its options, and their documentation is their help."""

    @property
    def out(self) -> Path:
        """Output folder, or file."""

    def run(self) -> tuple[str, Path | None]:
        """The text to print, and where the result is, unless nothing was written."""


Own = TypeVar("Own", bound="Configured")


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A command that uses a dataset and a trunk.

    Attributes:
        out: output folder.
        preset: take its settings, and the methods, seeds and learning rates that it names
            (they are shown with --help); flags override them. paper is for cub, cars and
            sop, texts for any file of texts, and the others for a --data-root of that
            kind: folders of photographs of cars, of emoji, and Omniglot's.
        settings: the settings that all runs share.
        source: where a dataset of pictures or texts is.
    """

    out: Path
    preset: PresetName | None = None
    settings: CommonSettings = field(default_factory=CommonSettings)
    source: Source = field(default_factory=Source)

    def with_preset(self: Own, name: str) -> Own:
        """This command with a preset, as far as it has options for it."""
        preset, usual = PRESETS[name], {x.name: x.default for x in fields(self)}
        own = {
            x: y
            for x, y in preset._asdict().items()
            if y is not None and x in usual and getattr(self, x) == usual[x]
        }
        own["settings"] = type(self.settings)(**vars(preset.settings))
        return replace(self, **own)

    def settings_of(self, **own: Any) -> Settings:
        """The shared settings with a run's own fields.

        Raises:
            ValueError: they are invalid.
        """
        self.source.check_options(self.settings.dataset)
        data = self.source.name(self.settings.dataset)
        return Settings(**{**vars(self.settings), "data": data, **own})
