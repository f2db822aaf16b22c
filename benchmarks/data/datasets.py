"""The datasets by name, in class-disjoint splits, checked before anything is trained."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pytorch_metric_learning import datasets as pml_datasets
from pytorch_metric_learning.datasets.base_dataset import BaseDataset
from torch.utils.data import Dataset

from .archives import download_and_unpack
from .bad_images import bad_images, describe
from .glyphs import SPLITS, WITH_PRETRAINING, Glyphs, random_affine

LOGGER = logging.getLogger(__name__)

FOLDS = 4  # as in Musgrave et al., ECCV 2020
VALIDATION_SHARE = 0.1  # of the training classes of a dataset of photographs
_IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class Splits(NamedTuple):
    """Datasets whose ``labels`` is an int64 array; no class is in two of them.

    Attributes:
        train, val, test: the datasets.
        skipped: file -> why it was left out.
    """

    train: Glyphs | Photographs
    val: Glyphs | Photographs
    test: Glyphs | Photographs
    skipped: dict[str, str]


class ImageFolders(BaseDataset):
    """A folder of class folders, as a PML dataset.

    The first half of the classes, by name, is for training, the second for the test.

    Args:
        root: the folder; what is neither a folder nor in one is ignored.
        split: "train", "test" or "train+test".
        transform: applied to a PIL image.
        target_transform: applied to a label, the number of the class.

    Raises:
        ValueError: root is not there, has fewer than four class folders, or a class
            folder has no images.
    """

    def generate_split(self) -> None:
        """PML's hook."""
        folders = sorted(path for path in Path(self.root).iterdir() if path.is_dir())
        if len(folders) < 4:
            raise ValueError(
                f"{self.root} must have a folder for each of at least 4 classes, it has "
                f"{len(folders)}"
            )
        half = len(folders) // 2
        wanted = {
            "train": range(half),
            "test": range(half, len(folders)),
            "train+test": range(len(folders)),
        }[self.split]
        self.paths, self.labels = [], []
        for label in wanted:
            images = sorted(
                str(path)
                for path in folders[label].iterdir()
                if path.suffix.lower() in _IMAGE_ENDINGS
            )
            if not images:
                raise ValueError(f"{folders[label]} has no images")
            self.paths += images
            self.labels += [label] * len(images)

    def download_and_remove(self) -> None:
        """PML's hook: there is nothing to download."""
        raise ValueError(f"{self.root} is empty, and folders cannot be downloaded")


class SafeDownloadMixin:
    """Comes before a PML dataset: a download leaves all of it in root, or nothing."""

    def download_and_remove(self) -> None:
        """PML's hook."""
        download_and_unpack(self.DOWNLOAD_URL, Path(self.root))  # type: ignore[attr-defined]


class CUB(SafeDownloadMixin, pml_datasets.CUB):
    """PML's CUB-200-2011."""


class Cars196(SafeDownloadMixin, pml_datasets.Cars196):
    """PML's CARS196."""


class StanfordOnlineProducts(SafeDownloadMixin, pml_datasets.StanfordOnlineProducts):
    """PML's Stanford Online Products."""


@dataclass(frozen=True)
class Rows:
    """What the rows of an annotation file look like.

    Attributes:
        pattern: of a row, without the line's end.
        header: how many lines come before them.
    """

    pattern: str
    header: int = 0


@dataclass(frozen=True)
class _Photographs:
    """A dataset of photographs.

    Attributes:
        kind: its class.
        annotations: files that it reads, inside its root -> their rows.
        archive: what to unpack there.
    """

    kind: Callable[..., BaseDataset]
    annotations: Mapping[str, Rows] = field(default_factory=dict)
    archive: str = ""


_CAR = Rows(r"[^,]+(,\d+){4},(\d|[1-9]\d|1[0-8]\d|19[0-6])")  # the last: 1 to 196
_PRODUCT = Rows(r"\d+ \d+ \d+ \S+", header=1)
PHOTOGRAPHS = {
    "cub": _Photographs(
        CUB,
        {
            "CUB_200_2011/images.txt": Rows(r"\d+ \S+"),
            "CUB_200_2011/image_class_labels.txt": Rows(r"\d+ \d+"),
        },
        "CUB_200_2011.tgz",
    ),
    "cars": _Photographs(
        Cars196,
        {"names.csv": Rows(".+"), "anno_train.csv": _CAR, "anno_test.csv": _CAR},
        "stanford-car-dataset-by-classes-folder",
    ),
    "sop": _Photographs(
        StanfordOnlineProducts,
        {
            "Stanford_Online_Products/Ebay_train.txt": _PRODUCT,
            "Stanford_Online_Products/Ebay_test.txt": _PRODUCT,
        },
        "Stanford_Online_Products.zip",
    ),
    "folder": _Photographs(ImageFolders),
}
"""Name -> dataset of photographs."""

Name = Literal["glyphs", "cub", "cars", "sop", "folder"]
"""Glyphs, or a name in PHOTOGRAPHS."""


class Photographs(Dataset):
    """Some classes of a PML dataset, with errors that name the file.

    Args:
        source: a PML dataset: paths, labels and transform.
        rows: which of its images.

    Attributes:
        labels: shape (N,), int64 array.
    """

    def __init__(self, source: BaseDataset, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows
        self.labels = np.asarray(source.labels, dtype=np.int64)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = int(self.rows[index])
        try:
            image, _ = self.source[row]
        except OSError as error:
            raise OSError(
                f"{self.source.paths[row]} cannot be read as an image ({error}); unpack or "
                "download the dataset again"
            ) from error
        return image, int(self.labels[index])


def glyphs(
    seed: int,
    max_classes: int | None = None,
    train_classes: int | None = None,
    augment: bool = False,
    reserve: bool = False,
    fold: int | None = None,
) -> Splits:
    """The glyphs, which need no download.

    Args:
        seed: which classes go into which split.
        max_classes: keep so many classes of each split, or None for all.
        train_classes: keep so many classes of the training split.
        augment: move the images of the training split a little, at random.
        reserve: keep a third of the classes out of all splits, for models/pretrain.py.
        fold: of FOLDS equal parts of the training and validation classes, which one
            validates, or None for the usual splits.
    """
    shares = WITH_PRETRAINING if reserve else SPLITS
    both = "train+val"
    train = Glyphs(
        split="train" if fold is None else both,
        seed=seed,
        transform=random_affine if augment else None,
        max_classes=min((x for x in (max_classes, train_classes) if x), default=None),
        shares=shares,
        part=None if fold is None else (fold, FOLDS, False),
    )
    val = Glyphs(
        split="val" if fold is None else both,
        seed=seed,
        max_classes=max_classes,
        shares=shares,
        part=None if fold is None else (fold, FOLDS, True),
    )
    test = Glyphs(split="test", seed=seed, max_classes=max_classes, shares=shares)
    return Splits(train, val, test, {})


def photographs(
    name: str,
    root: Path,
    seed: int,
    max_classes: int | None,
    download: bool,
    transforms: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    skip_bad_images: bool = False,
    fold: int | None = None,
) -> Splits:
    """A dataset of photographs; a tenth of its training classes validates.

    Args:
        name: in PHOTOGRAPHS.
        root: its folder.
        seed: which classes validate.
        max_classes: keep so many classes of each split, or None for all.
        download: fetch and unpack it if root is empty or not there.
        transforms: of PIL images, for training and for evaluation.
        skip_bad_images: leave out images that are missing, cannot be read, are named
            twice or are alone in their class, instead of raising an error.
        fold: of FOLDS equal parts of the training classes, which one validates, or None
            for the usual tenth.

    Raises:
        ValueError: root or an annotation file is not there, rows of an annotation
            cannot be understood, or there are bad images; the message names all of
            them and says what to do.
    """
    dataset = PHOTOGRAPHS[name]
    to_train, to_evaluate = transforms
    if download:
        # Which fetches it if there is nothing yet.
        dataset.kind(root=str(root), download=True)
    _check_annotations(name, dataset, root)
    train, val, test = (
        _make(name, dataset, root, split, transform)
        for split, transform in (
            ("train", to_train),
            ("train", to_evaluate),
            ("test", to_evaluate),
        )
    )
    labels, test_labels = np.asarray(train.labels), np.asarray(test.labels)
    bad = bad_images([*train.paths, *test.paths], np.concatenate([labels, test_labels]))
    if bad and not skip_bad_images:
        raise ValueError(
            f"{len(bad)} of {len(labels) + len(test_labels)} images of {name} are bad:\n"
            f"{describe(bad)}\n{_advice(dataset)}, or leave them out with "
            "--skip-bad-images"
        )
    if bad:
        LOGGER.warning("%d bad images of %s are left out", len(bad), name)
    good = np.array([path not in bad for path in train.paths], dtype=bool)
    test_good = np.array([path not in bad for path in test.paths], dtype=bool)
    classes = np.random.default_rng(seed).permutation(np.unique(labels[good]))
    held_out = max(2, round(VALIDATION_SHARE * len(classes)))
    validating = classes[:held_out]
    if fold is not None:
        validating = np.array_split(classes, FOLDS)[fold]
    training = classes[~np.isin(classes, validating)]
    test_classes = np.unique(test_labels[test_good])[:max_classes]
    return Splits(
        Photographs(train, _rows(labels, training[:max_classes], good)),
        Photographs(val, _rows(labels, validating[:max_classes], good)),
        Photographs(test, _rows(test_labels, test_classes, test_good)),
        bad,
    )


def _rows(labels: np.ndarray, classes: np.ndarray, good: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(labels, classes) & good)


def _advice(dataset: _Photographs) -> str:
    if not dataset.archive:
        return "the folder must have a folder of images for each class"
    return f"unpack {dataset.archive} there again, or use --download with an empty folder"


def _check_annotations(name: str, dataset: _Photographs, root: Path) -> None:
    if not root.is_dir():
        raise ValueError(f"the folder of {name}, {root}, is not there; {_advice(dataset)}")
    missing = [str(root / x) for x in dataset.annotations if not (root / x).is_file()]
    if missing:
        raise ValueError(
            f"{name} is not complete: {', '.join(missing)} is missing; {_advice(dataset)}"
        )
    wrong = {}
    for file, rows in dataset.annotations.items():
        lines = (root / file).read_text(errors="replace").splitlines()
        for number, line in enumerate(lines[rows.header :], start=rows.header + 1):
            if not re.fullmatch(rows.pattern, line):
                wrong[f"{root / file}, line {number}: {line[:80]!r}"] = "is wrong"
    if wrong:
        raise ValueError(
            f"annotations of {name} cannot be understood:\n{describe(wrong)}\n"
            f"{_advice(dataset)}"
        )


def _make(
    name: str,
    dataset: _Photographs,
    root: Path,
    split: str,
    transform: Callable[[Any], Any],
) -> BaseDataset:
    try:
        part = dataset.kind(root=str(root), split=split, transform=transform)
    except IndexError as error:
        raise ValueError(
            f"annotations of {name} in {root} do not fit each other ({error}); "
            f"{_advice(dataset)}"
        ) from error
    if not part.paths:
        raise ValueError(f"{name} in {root} names no images; {_advice(dataset)}")
    return part
