"""Commands that have settings, a source of data, and presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..training.settings import CommonSettings, Settings, Source
from .command import Command


@dataclass(frozen=True, kw_only=True)
class Configured(Command):
    """A command that uses a dataset and a trunk.

    Attributes:
        preset: take the settings of a file in benchmarks/presets, and the methods, seeds
            and learning rates that it names; flags override them. paper is for cub, cars
            and sop, texts for any file of texts, and the others for a --data-root of that
            kind: folders of photographs of cars, of emoji, and Omniglot's.
        settings: the settings that all runs share.
        source: where a dataset of pictures or texts is.
    """

    preset: Literal["paper", "texts", "emoji", "cars", "handwriting"] | None = None
    settings: CommonSettings = field(default_factory=CommonSettings)
    source: Source = field(default_factory=Source)

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
