"""The settings of a run, and where its dataset is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..data import KINDS
from ..data.files import check_name
from ..data.glyphs import SIZE
from ..data.pictures import Augmentation
from ..data.splits import Reading, SplitOptions, Splits
from ..methods.methods import METHODS, Synthesis
from ..models import trunks
from ..models.trunks import Trunk

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(KINDS)]


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """The settings that all runs of a command share.

    Attributes:
        steps: batches to train on.
        test_interval: how often to validate, in steps; divides steps.
        batch_size: items in a batch: pictures, or texts.
        m: items of a class in a batch.
        embedding_size: dimensions of the embedding.
        width: channels of the convnet's first block.
        learning_rate: of Adam.
        head_factor: the embedder's learning rate in units of the trunk's.
        lr_step_size: how often to halve the learning rates, in steps.
        weight_decay: L2 term in the gradient that Adam sees, of every parameter but those
            of batch normalization.
        max_classes: use at most this many classes of each split.
        dataset: glyphs need no download; folder is any folder of class folders, or a .tar
            or .zip of one; texts is a .jsonl, .csv or .tsv file with text and label.
        test_classes: for folder and texts, a pattern for the names of the test classes,
            such as "evaluation.*"; by default the second half of the classes by name.
        trunk: convnet for glyphs and other small grey pictures; googlenet or resnet50
            of torchvision; efficientnet-lite0, whose weights are in a package; timm:NAME,
            any model of timm; for texts minilm, or sentence-encoder:NAME, a folder or a
            name on the Hugging Face hub.
        pretrained: start the trunk with its published weights; the convnet has none.
        image_size: width and height of the trunk's pictures; by default its usual size.
        augmentation: of training pictures: crop is the paper's, from a slightly larger
            picture; resized crop is a random rectangle of half of the picture's area or
            more, clipped to it; both also mirror half of the pictures.
        crop_cars: use only the bounding boxes of the photographs of cars, as the released
            code does; cub and sop remain as they are.
        freeze_until: freeze this many stages of a pre-trained trunk, and keep their output
            in the user's cache folder; the statistics of batch normalization are then
            frozen in all stages.
        augmentations: with frozen stages, how many random versions of each training
            picture to keep.
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
    weight_decay: float = 0.0
    max_classes: int | None = None
    dataset: DatasetName = "glyphs"
    test_classes: str | None = None
    trunk: str = "convnet"
    pretrained: bool = True
    image_size: int | None = None
    augmentation: Augmentation = "crop"
    crop_cars: bool = False
    freeze_until: int = 0
    augmentations: int = 4


@dataclass(frozen=True)
class Settings(Synthesis, CommonSettings):
    """All settings of a run, checked.

    Attributes:
        method: a name in METHODS.
        seed: of the weights, the batches and the split of the classes.
        start: of the trunk; "softmax" for a convnet that is pre-trained.
        reserve: keep a third of the training classes out of the other splits, to pre-train
            on; "softmax" needs it.
        train_classes: use at most this many training classes.
        augment: move training glyphs a little, at random.
        fold: which quarter of the training and validation classes is for validation; None
            for the usual split.
        touch_test: whether to evaluate on the test split at the end.
        trainer_options: options that a search chose, instead of the method's own.
        data: name of the folder, archive or file, for folder and texts.
        fingerprint: of the files of the dataset; None if it is not known, as in runs of
            earlier versions.
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
    data: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if not _is_multiple(self.steps, self.test_interval):
            raise ValueError(
                "steps must be a multiple of test_interval, both at least 1, got "
                f"{self.steps} and {self.test_interval}"
            )
        if not _is_multiple(self.batch_size, self.m):
            raise ValueError(
                "batch_size must be a multiple of m, both at least 1, got "
                f"{self.batch_size} and {self.m}"
            )
        counts = ("embedding_size", "width", "lr_step_size", "image_size", "augmentations")
        for name in counts:
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        for name in ("learning_rate", "head_factor"):
            number = getattr(self, name)
            if not 0 < number < float("inf"):
                raise ValueError(f"{name} must be a finite positive number, got {number}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(
                f"weight_decay must be a finite number >= 0, got {self.weight_decay}"
            )
        if not 0 <= self.base_steps < self.steps:
            raise ValueError(
                f"base_steps must be from 0 to less than steps, got {self.base_steps}"
            )
        for name in ("max_classes", "train_classes"):
            if getattr(self, name) is not None:
                self.check_num_classes(name, getattr(self, name))
        _ = self.split  # for its errors
        self._check_method()
        self._check_data()

    def _check_method(self) -> None:
        method = METHODS[self.method]
        try:
            method.make(  # for its errors
                self,
                num_classes=1,
                embedding_size=self.embedding_size,
                batch_size=self.batch_size,
            )
        except TypeError as error:
            raise ValueError(
                f"candidates={self.candidates!r} does not fit {self.method}"
            ) from error
        if method.needs_pairs and self.m < 2:
            raise ValueError(
                f"m must be at least 2 for {self.method}, which learns from pairs of a "
                f"class, got {self.m}"
            )
        if method.needs_pairs and self.batch_size < 2 * self.m:
            raise ValueError(
                f"batch_size must be at least 2 m = {2 * self.m} for {self.method}, which "
                f"learns from pairs of two classes, got {self.batch_size}"
            )

    def _check_data(self) -> None:
        needed = trunks.input_of(self.trunk)
        if self.dataset not in KINDS:
            names = ", ".join(KINDS)
            raise ValueError(f"dataset must be one of {names}, got {self.dataset!r}")
        kind = KINDS[self.dataset]
        is_texts, is_convnet = needed == "texts", self.trunk == "convnet"
        if needed not in kind.inputs:
            raise ValueError(
                "the trunk of glyphs must be convnet, that of texts minilm or "
                "sentence-encoder:NAME, and that of photographs another one; folder may "
                f"have any but those of texts, got dataset={self.dataset!r} and "
                f"trunk={self.trunk!r}"
            )
        if is_convnet and self.image_size not in (None, SIZE):
            raise ValueError(
                f"image_size must be {SIZE} for the convnet, got {self.image_size}"
            )
        if is_texts and not self.pretrained:
            raise ValueError("pretrained must be true for texts, got False")
        if is_texts and self.image_size is not None:
            raise ValueError(f"image_size is for pictures, got {self.image_size} for texts")
        if self.test_classes is not None and not kind.is_own:
            raise ValueError(
                "test_classes is for folder and texts: others have a test split of their "
                f"own, got {self.test_classes!r} for {self.dataset}"
            )
        if self.crop_cars and not kind.has_boxes:
            raise ValueError(
                "crop_cars is for PML's datasets of photographs, got True for "
                f"{self.dataset!r}"
            )
        is_softmax = self.start == "softmax"
        if self.start not in ("scratch", "softmax"):
            raise ValueError(f"start must be scratch or softmax, got {self.start!r}")
        if is_softmax and not is_convnet:
            raise ValueError(f'start="softmax" is for the convnet, got {self.trunk!r}')
        if is_softmax and not self.reserve:
            raise ValueError('start="softmax" needs reserve: it trains on those classes')
        frozen = self.freeze_until
        if frozen < 0:
            raise ValueError(f"freeze_until must be at least 0, got {frozen}")
        if frozen and not kind.in_files:
            raise ValueError(
                f"freeze_until is for datasets other than glyphs, got {frozen}"
            )
        if frozen and not self.is_pretrained:
            raise ValueError(
                f"freeze_until needs a trunk that is pre-trained, got {frozen} with one "
                "that is not"
            )

    @property
    def split(self) -> SplitOptions:
        """How to split the classes."""
        return SplitOptions(**{x.name: getattr(self, x.name) for x in fields(SplitOptions)})

    @property
    def is_pretrained(self) -> bool:
        """Whether the trunk starts with weights that were trained before."""
        if self.trunk == "convnet":
            return self.start == "softmax"
        return self.pretrained

    def check_num_classes(self, name: str, number: int) -> None:
        """Raise ValueError if there are too few classes for a batch."""
        needed = self.batch_size // self.m
        if number < needed:
            raise ValueError(
                f"{name} must be at least batch_size / m = {needed} classes, got {number}"
            )


def _is_multiple(number: int, of: int) -> bool:
    return number >= 1 and of >= 1 and number % of == 0


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with the fields of later versions: without, they had its default.

    >>> complete({"method": "Triplet", "seed": 0, "halve_after": 100})["lr_step_size"]
    100
    """
    defaults = {x.name: x.default for x in fields(Settings) if x.default is not MISSING}
    names = {"halve_after": "lr_step_size"}  # what version 0.1.0 called it
    return {**defaults, **{names.get(name, name): x for name, x in settings.items()}}


@dataclass(frozen=True)
class Source:
    """Where a dataset of pictures or texts is; only its name is in a run's settings.

    Attributes:
        data_root: its folder, archive or file.
        download: fetch it if that folder is empty.
        workers: processes that load items for a run; 0 loads them in the run's process.
        skip_bad: leave out pictures that cannot be read, texts that are empty or repeated,
            and items that are alone in their class, and record which.
    """

    data_root: Path | None = None
    download: bool = False
    workers: int = 0
    skip_bad: bool = False

    def name(self, dataset: str) -> str | None:
        """The folder's, archive's or file's name; None for datasets with their own name."""
        if self.data_root is None or not KINDS[dataset].is_own:
            return None
        return self.data_root.resolve().name

    def check_options(self, dataset: str) -> None:
        """Raise ValueError if workers or data_root cannot be used for a dataset."""
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        if self.data_root is not None:
            check_name("data_root", self.data_root)
            if not KINDS[dataset].in_files:
                raise ValueError(
                    f"--data-root is for datasets in files, got {self.data_root} for "
                    f"{dataset}: --dataset says what is there"
                )

    def check(self, settings: Settings) -> None:
        """Raise ValueError if data_root is needed, but missing."""
        if KINDS[settings.dataset].in_files and self.data_root is None:
            raise ValueError(f"--data-root must say where {settings.dataset} is")

    def fingerprint(self, dataset: str, test_classes: str | None) -> str | None:
        """The fingerprint of the dataset; None where its files are missing.

        Raises:
            OSError, ValueError: as splits, but bad items are no error.
        """
        kind, root = KINDS[dataset], self.data_root
        if kind.in_files and (root is None or not (self.download or root.exists())):
            return None
        return kind.fingerprint(root or Path(), self.download, test_classes)

    def check_unchanged(self, settings: Settings) -> None:
        """Raise ValueError if the dataset is not the one in the settings any more."""
        now = self.fingerprint(settings.dataset, settings.test_classes)
        if settings.fingerprint is not None and now != settings.fingerprint:
            raise ValueError(
                f"{self.data_root} was changed while the command ran: it had "
                f"{settings.fingerprint}, it has {now or 'no files'}; --force, or another "
                "--out, trains on what is there now"
            )

    def splits(self, settings: Settings, trunk: Trunk) -> Splits:
        """The dataset that the settings name, as input for the trunk.

        Raises:
            OSError, ValueError: it is missing, incomplete, or cannot be read.
        """
        self.check(settings)
        pixels = trunk.pixels
        return KINDS[settings.dataset].splits(
            Reading(
                self.data_root or Path(),
                settings.split,
                pixels and replace(pixels, augmentation=settings.augmentation),
                trunk.tokenize,
                self.download,
                self.skip_bad,
                settings.augment,
                settings.crop_cars,
            )
        )
