"""The datasets by name, in class-disjoint splits, checked before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pytorch_metric_learning import datasets as pml_datasets
from pytorch_metric_learning.datasets.base_dataset import BaseDataset
from torch.utils.data import Dataset

from .glyphs import SPLITS, WITH_PRETRAINING, Glyphs, random_affine

FOLDS = 4  # as in Musgrave et al., ECCV 2020
VALIDATION_SHARE = 0.1  # of the training classes of a dataset of photographs
_IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_SHOWN = 5  # of many missing files


class Splits(NamedTuple):
    """Datasets whose ``labels`` is an int64 array; no class is in two of them."""

    train: Dataset
    val: Dataset
    test: Dataset


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


@dataclass(frozen=True)
class _Photographs:
    """A dataset of photographs.

    Attributes:
        kind: its class.
        annotations: files that it reads, inside its root.
        archive: what to unpack there.
    """

    kind: Callable[..., BaseDataset]
    annotations: tuple[str, ...] = ()
    archive: str = ""


PHOTOGRAPHS = {
    "cub": _Photographs(
        pml_datasets.CUB,
        ("CUB_200_2011/images.txt", "CUB_200_2011/image_class_labels.txt"),
        "CUB_200_2011.tgz",
    ),
    "cars": _Photographs(
        pml_datasets.Cars196,
        ("names.csv", "anno_train.csv", "anno_test.csv"),
        "stanford-car-dataset-by-classes-folder",
    ),
    "sop": _Photographs(
        pml_datasets.StanfordOnlineProducts,
        (
            "Stanford_Online_Products/Ebay_train.txt",
            "Stanford_Online_Products/Ebay_test.txt",
        ),
        "Stanford_Online_Products.zip",
    ),
    "folder": _Photographs(ImageFolders),
}
"""Name -> dataset of photographs."""

NAMES = ("glyphs", *PHOTOGRAPHS)


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
        reserve: keep a third of the classes out of all splits, for pretrain.py.
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
    return Splits(train, val, test)


def photographs(
    name: str,
    root: Path,
    seed: int,
    max_classes: int | None,
    download: bool,
    transforms: tuple[Callable[[Any], Any], Callable[[Any], Any]],
) -> Splits:
    """A dataset of photographs; a tenth of its training classes validates.

    Args:
        name: in PHOTOGRAPHS.
        root: its folder.
        seed: which classes validate.
        max_classes: keep so many classes of each split, or None for all.
        download: fetch and unpack it if root is empty or not there.
        transforms: of PIL images, for training and for evaluation.

    Raises:
        ValueError: root, an annotation file or an image is not there, or an annotation
            cannot be understood; the message names the files and says what to do.
    """
    dataset = PHOTOGRAPHS[name]
    to_train, to_evaluate = transforms
    if not download:
        _check_files(name, dataset, root)
    parts = []
    for split, transform in (
        ("train", to_train),
        ("train", to_evaluate),
        ("test", to_evaluate),
    ):
        try:
            part = dataset.kind(
                root=str(root), split=split, transform=transform, download=download
            )
        except (IndexError, ValueError) as error:
            if not dataset.annotations:
                raise
            raise ValueError(
                f"an annotation of {name} in {root} cannot be understood ({error}); "
                f"{_advice(dataset)}"
            ) from error
        _check_images(name, dataset, root, part.paths)
        parts.append(part)
    train, val, test = parts
    labels = np.asarray(train.labels)
    classes = np.random.default_rng(seed).permutation(np.unique(labels))
    held_out = max(2, round(VALIDATION_SHARE * len(classes)))
    return Splits(
        Photographs(train, _rows(labels, classes[held_out:][:max_classes])),
        Photographs(val, _rows(labels, classes[:held_out][:max_classes])),
        Photographs(
            test, _rows(np.asarray(test.labels), np.unique(test.labels)[:max_classes])
        ),
    )


def _rows(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(labels, classes))


def _advice(dataset: _Photographs) -> str:
    if not dataset.archive:
        return "the folder must have a folder of images for each class"
    return f"unpack {dataset.archive} there again, or use --download with an empty folder"


def _check_files(name: str, dataset: _Photographs, root: Path) -> None:
    if not root.is_dir():
        raise ValueError(f"the folder of {name}, {root}, is not there; {_advice(dataset)}")
    missing = [str(root / x) for x in dataset.annotations if not (root / x).is_file()]
    if missing:
        raise ValueError(
            f"{name} is not complete: {', '.join(missing)} is missing; {_advice(dataset)}"
        )


def _check_images(
    name: str, dataset: _Photographs, root: Path, paths: Sequence[str]
) -> None:
    if not paths:
        raise ValueError(f"{name} in {root} names no images; {_advice(dataset)}")
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"{len(missing)} of {len(paths)} images of {name} are missing: "
            f"{', '.join(missing[:_SHOWN])}{more}; {_advice(dataset)}"
        )
