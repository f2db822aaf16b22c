"""What a run depends on, and where its dataset is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from ..data import datasets
from ..methods.methods import METHODS, Synthesis
from ..models import trunks


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What all runs of a command share.

    Attributes:
        steps: batches to train on.
        test_interval: validate every so many steps; divides steps.
        batch_size: images in a batch.
        m: images of a class in a batch.
        embedding_size: dimensions of the embedding.
        width: channels of the convnet's first block.
        learning_rate: of Adam.
        head_factor: the embedder's learning rate in units of the trunk's.
        lr_step_size: halve the learning rates every so many steps.
        max_classes: use so many classes of each split only.
        dataset: glyphs need no download; folder is any folder of class folders.
        trunk: convnet for glyphs; the others come from torchvision.
        pretrained: start torchvision's trunks with ImageNet weights.
    """

    steps: int = 300
    test_interval: int = 50
    batch_size: int = 128
    m: int = 2
    embedding_size: int = 64
    width: int = 16
    learning_rate: float = 1e-3
    head_factor: float = 1.0
    lr_step_size: int | None = None
    max_classes: int | None = None
    dataset: datasets.Name = "glyphs"
    trunk: trunks.Name = "convnet"
    pretrained: bool = True


@dataclass(frozen=True)
class Settings(Synthesis, CommonSettings):
    """What a run depends on, checked.

    Attributes:
        method: a name in METHODS.
        seed: of the weights, the batches and the split of the classes.
        start: of the trunk; "softmax" for a convnet of models/pretrain.py.
        reserve: keep a third of the glyphs out of all splits; "softmax" needs it.
        train_classes: cap on the classes of the training split alone, for glyphs.
        augment: move training glyphs a little, at random.
        fold: which quarter of the training and validation classes validates; None for
            the usual split.
        touch_test: whether to evaluate on the test split at the end.
        trainer_options: that a search chose, in the place of the method's own.
    """

    method: str
    seed: int
    _: KW_ONLY
    start: Literal["scratch", "softmax"] = "scratch"
    reserve: bool = False
    train_classes: int | None = None
    augment: bool = False
    fold: int | None = None
    touch_test: bool = True
    trainer_options: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.test_interval < 1 or self.steps % self.test_interval:
            raise ValueError(
                "steps must be a multiple of test_interval, both at least 1, got "
                f"{self.steps} and {self.test_interval}"
            )
        if self.batch_size < 1 or self.m < 1 or self.batch_size % self.m:
            raise ValueError(
                "batch_size must be a multiple of m, both at least 1, got "
                f"{self.batch_size} and {self.m}"
            )
        for name in ("embedding_size", "width", "lr_step_size"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        for name in ("learning_rate", "head_factor"):
            number = getattr(self, name)
            if not 0 < number < float("inf"):
                raise ValueError(f"{name} must be a finite positive number, got {number}")
        if self.fold is not None and self.fold not in range(datasets.FOLDS):
            raise ValueError(
                f"fold must be from 0 to {datasets.FOLDS - 1}, got {self.fold}"
            )
        if (self.dataset == "glyphs") != (self.trunk == "convnet"):
            raise ValueError(
                "the trunk of glyphs must be convnet, and that of photographs another "
                f"one, got dataset={self.dataset!r} and trunk={self.trunk!r}"
            )
        try:
            METHODS[self.method].make(  # for its errors
                self,
                num_classes=1,
                embedding_size=self.embedding_size,
                batch_size=self.batch_size,
            )
        except TypeError as error:
            raise ValueError(
                f"candidates={self.candidates!r} does not fit {self.method}"
            ) from error
        if self.start not in ("scratch", "softmax"):
            raise ValueError(f"start must be scratch or softmax, got {self.start!r}")
        if self.start == "softmax" and not self.reserve:
            raise ValueError('start="softmax" needs reserve: it has seen those classes')
        for name in ("max_classes", "train_classes"):
            if getattr(self, name) is not None:
                self.check_num_classes(name, getattr(self, name))

    def check_num_classes(self, name: str, number: int) -> None:
        """Raise ValueError unless so many classes fill a batch."""
        needed = self.batch_size // self.m
        if number < needed:
            raise ValueError(
                f"{name} must be at least batch_size / m = {needed} classes, got {number}"
            )


@dataclass(frozen=True)
class Source:
    """Where a dataset of photographs is; it changes nothing that is measured.

    Attributes:
        data_root: its folder.
        download: fetch it if that folder is empty.
        workers: processes that load images for a run; 0 for none of their own.
        skip_bad_images: leave out images that cannot be read, and record which.
    """

    data_root: Path | None = None
    download: bool = False
    workers: int = 0
    skip_bad_images: bool = False

    def splits(self, settings: Settings) -> datasets.Splits:
        """The dataset that the settings name.

        Raises:
            ValueError: photographs without data_root, or not all there.
            ImportError: photographs without torchvision.
        """
        if settings.dataset == "glyphs":
            return datasets.glyphs(
                settings.seed,
                settings.max_classes,
                settings.train_classes,
                settings.augment,
                settings.reserve,
                settings.fold,
            )
        if self.data_root is None:
            raise ValueError(f"--data-root must say where {settings.dataset} is")
        return datasets.photographs(
            settings.dataset,
            self.data_root,
            settings.seed,
            settings.max_classes,
            self.download,
            trunks.photograph_transforms(),
            self.skip_bad_images,
            settings.fold,
        )
