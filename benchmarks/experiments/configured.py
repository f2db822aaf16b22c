"""Commands that have settings, a source of data, and presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from ..training.settings import CommonSettings, Settings, Source
from .command import Command
from .presets import PRESETS

PresetName = Annotated[
    str, tyro.conf.arg(constructor=tyro.extras.literal_type_from_choices(PRESETS))
]


@dataclass(frozen=True, kw_only=True)
class Configured(Command):
    """A command that uses a dataset and a trunk.

    Attributes:
        preset: take its settings, and the methods, seeds and learning rates that it names
            (they are shown with --help); flags override them. paper is for cub, cars and
            sop, texts for any file of texts, and the others for a --data-root of that
            kind: folders of photographs of cars, of emoji, and Omniglot's.
        settings: the settings that all runs share.
        source: where a dataset of pictures or texts is.
    """

    preset: PresetName | None = None
    settings: CommonSettings = field(default_factory=CommonSettings)
    source: Source = field(default_factory=Source)

    def with_preset(self, name: str) -> Configured:
        """This command with a preset, as far as it has options for it."""
        settings, *_ = preset = PRESETS[name]
        own = {
            x: y for x, y in preset._asdict().items() if y is not None and hasattr(self, x)
        }
        own["settings"] = type(self.settings)(**vars(settings))
        return replace(self, **own)

    def shared(self) -> dict[str, Any]:
        """Fields of Settings that all runs share."""
        return vars(self.settings)

    def settings_of(self, **own: Any) -> Settings:
        """The shared settings with a run's own fields.

        Raises:
            ValueError: they are invalid.
        """
        self.source.check_options()
        data = self.source.name(self.settings.dataset)
        return Settings(**{**self.shared(), "data": data, **own})
