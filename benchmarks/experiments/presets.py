"""The presets: settings of data that was trained on, with methods, seeds and rates."""

from __future__ import annotations

from typing import NamedTuple

from ..training.settings import CommonSettings
from .variants import COMPARED_METHODS, CONTROLLED_METHODS


class Preset(NamedTuple):
    """Options of the commands that have settings; None leaves a command's own.

    Attributes:
        settings: replaces the command's.
        methods, seeds, learning_rates: of the commands that have such an option.
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
        (*COMPARED_METHODS, "NT-Xent, 0.05"),
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
            head_factor=10.0,
            embedding_size=128,
            steps=210,
            test_interval=70,
            learning_rate=1e-4,
        ),
        COMPARED_METHODS,
        seeds=(0, 1, 2, 3, 4),
        learning_rates=(3e-5, 1e-4, 3e-4),
    ),
    "cars": Preset(
        CommonSettings(
            dataset="folder",
            trunk="efficientnet-lite0",
            image_size=160,
            freeze_until=11,
            augmentations=2,
            embedding_size=512,
            steps=1120,
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
            steps=600,
            test_interval=100,
        ),
        COMPARED_METHODS,
        seeds=(0, 1, 2, 3, 4),
        learning_rates=(3e-4, 1e-3, 3e-3),
    ),
}
