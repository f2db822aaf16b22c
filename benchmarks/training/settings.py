"""What a run depends on, and where its dataset is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..data import datasets
from ..methods.methods import METHODS, Synthesis
from ..models import trunks


@dataclass(frozen=True)
class Settings:
    """What a run depends on.

    Attributes:
        method: a name in METHODS.
        seed: of the weights, the batches and the split of the classes.
        steps: how many batches to train on.
        test_interval: validate every so many steps; divides steps.
        batch_size: images a batch.
        m: images a class in a batch.
        embedding_size: D.
        width: channels of the trunk's first block.
        learning_rate: Adam's.
        head_factor: the embedder's learning rate in units of the trunk's.
        lr_step_size: halve the learning rates every so many steps, or None.
        dataset: a name in datasets.NAMES.
        trunk: a name in trunks.NAMES.
        pretrained: whether a trunk of torchvision starts with ImageNet weights.
        start: "scratch", or "softmax" for a convnet of models/pretrain.py.
        reserve: keep a third of the glyphs out of all splits; "softmax" needs it.
        train_classes: cap on the classes of the training split alone, for glyphs.
        augment: move training glyphs a little, at random.
        fold: which quarter of the training and validation classes validates; None for
            the usual split.
        touch_test: whether to evaluate on the test split at the end.
        max_classes: cap on the classes of every split, or None for all of them.
        alpha, beta, pairing, hardness, candidates: as Synthesis has them.
    """

    method: str
    seed: int
    steps: int = 300
    test_interval: int = 50
    batch_size: int = 128
    m: int = 2
    embedding_size: int = 64
    width: int = 16
    learning_rate: float = 1e-3
    head_factor: float = 1.0
    lr_step_size: int | None = None
    dataset: str = "glyphs"
    trunk: str = "convnet"
    pretrained: bool = True
    start: str = "scratch"
    reserve: bool = False
    train_classes: int | None = None
    augment: bool = False
    fold: int | None = None
    touch_test: bool = True
    max_classes: int | None = None
    alpha: float = 2.0
    beta: float = 1.0
    pairing: str = "all"
    hardness: str | int = "hardest"
    candidates: str = "all"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, got {self.method!r}"
            )
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
        for name in ("embedding_size", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"learning_rate must be a finite positive number, got {self.learning_rate}"
            )
        if not 0 < self.head_factor < float("inf"):
            raise ValueError(
                f"head_factor must be a finite positive number, got {self.head_factor}"
            )
        if self.lr_step_size is not None and self.lr_step_size < 1:
            raise ValueError(f"lr_step_size must be at least 1, got {self.lr_step_size}")
        for name, names in (("dataset", datasets.NAMES), ("trunk", trunks.NAMES)):
            if getattr(self, name) not in names:
                raise ValueError(
                    f"{name} must be one of {', '.join(names)}, got {getattr(self, name)!r}"
                )
        if self.fold is not None and self.fold not in range(datasets.FOLDS):
            raise ValueError(
                f"fold must be from 0 to {datasets.FOLDS - 1}, got {self.fold}"
            )
        if (self.dataset == "glyphs") != (self.trunk == "convnet"):
            raise ValueError(
                "the trunk of glyphs must be convnet, and that of photographs another "
                f"one, got dataset={self.dataset!r} and trunk={self.trunk!r}"
            )
        METHODS[self.method].make(self.synthesis)  # for its errors
        if self.start not in ("scratch", "softmax"):
            raise ValueError(f"start must be scratch or softmax, got {self.start!r}")
        if self.start == "softmax" and not self.reserve:
            raise ValueError('start="softmax" needs reserve: it has seen those classes')
        for name in ("max_classes", "train_classes"):
            if getattr(self, name) is not None:
                self.check_num_classes(name, getattr(self, name))

    @property
    def synthesis(self) -> Synthesis:
        """What the Symm methods look at."""
        return Synthesis(
            self.alpha, self.beta, self.pairing, self.hardness, self.candidates
        )

    def check_num_classes(self, name: str, number: int) -> None:
        """Raise ValueError unless so many classes fill a batch."""
        needed = self.batch_size // self.m
        if number < needed:
            raise ValueError(
                f"{name} must be at least batch_size / m = {needed} classes, got {number}"
            )


class Source(NamedTuple):
    """Where a dataset of photographs is; it changes nothing that is measured.

    Attributes:
        root: its folder.
        download: whether to fetch it if it is not there.
        workers: processes that load images; 0 for none of their own.
        skip_bad_images: leave bad images out, and say which.
    """

    root: Path | None = None
    download: bool = False
    workers: int = 0
    skip_bad_images: bool = False

    def splits(self, settings: Settings) -> datasets.Splits:
        """The dataset that the settings name.

        Raises:
            ValueError: photographs without root, or not all there.
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
        if self.root is None:
            raise ValueError(f"--data-root must say where {settings.dataset} is")
        return datasets.photographs(
            settings.dataset,
            self.root,
            settings.seed,
            settings.max_classes,
            self.download,
            trunks.photograph_transforms(),
            self.skip_bad_images,
            settings.fold,
        )
