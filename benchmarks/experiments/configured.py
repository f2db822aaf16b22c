"""Commands that have settings, a source and presets of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..training.settings import CommonSettings, Settings, Source
from .command import Command


@dataclass(frozen=True, kw_only=True)
class Configured(Command):
    """A command that looks at a dataset with a trunk.

    Attributes:
        preset: take the settings of a file in benchmarks/presets, and the methods, seeds
            and learning rates that it names; flags go before them. paper is for cub, cars
            and sop, texts for any file of texts, and the others for a --data-root of that
            kind: folders of photographs of cars, of emoji, and Omniglot's.
        settings: what all runs share.
        source: where a dataset of pictures or texts is.
    """

    preset: Literal["paper", "texts", "emoji", "cars", "handwriting"] | None = None
    settings: CommonSettings = field(default_factory=CommonSettings)
    source: Source = field(default_factory=Source)

    def shared(self) -> dict[str, Any]:
        """Fields of Settings that all runs have."""
        return vars(self.settings)

    def settings_of(self, **own: Any) -> Settings:
        """Settings with fields of a run's own.

        Raises:
            ValueError: they do not fit.
        """
        data = self.source.name(self.settings.dataset)
        return Settings(**{**self.shared(), "data": data, **own})
