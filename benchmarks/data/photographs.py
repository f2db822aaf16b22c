"""Datasets of picture files: PML's, of photographs, and folders of class folders."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pytorch_metric_learning import datasets as pml_datasets
from pytorch_metric_learning.datasets.base_dataset import BaseDataset

from . import splits
from .files import download_and_unpack, fingerprint, unpacked
from .pictures import Box, Files, Pictures, bad_images
from .splits import Kind, Reading, Splits

LOGGER = logging.getLogger(__name__)
_warn_once = lru_cache(LOGGER.warning)

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class PictureFiles(Kind):
    """A dataset of pictures in files.

    Attributes:
        name: as the settings have it.
        advice: what to do if pictures are bad.
        annotations: files that say what the pictures are, relative to the root -> what
            a line is.
    """

    name: str
    advice: str
    annotations: Mapping[str, str]

    def find(
        self, root: Path, download: bool = False, test_classes: str | None = None
    ) -> Files:
        """The files, with those to test on last.

        Raises:
            OSError: root cannot be read or downloaded.
            ValueError: root or a file that must be in it is missing or invalid; the
                message names all of them and what to do.
        """
        raise NotImplementedError

    def boxes(self, root: Path) -> dict[str, Box]:
        """Path -> what to crop a picture to, where a box is known."""
        return {}

    def fingerprint(self, root: Path, download: bool, test_classes: str | None) -> str:
        """Of the pictures and annotations, or of an archive; errors are those of find."""
        paths = self.find(root, download, test_classes).paths
        if root.is_file():
            return fingerprint([str(root)], root.parent)
        return fingerprint([*(str(root / x) for x in self.annotations), *paths], root)

    def splits(self, reading: Reading) -> Splits:
        """As of Kind; also raises for bad pictures, and too few classes."""
        root, options, preparation = reading.root, reading.options, reading.pixels
        assert preparation is not None
        files = self.find(root, reading.download, options.test_classes)
        bad, kind = bad_images(files), f"images of {self.name}"
        splits.check_bad(bad, len(files.paths), kind, self.advice, reading.skip_bad)
        files = files.where(np.array([path not in bad for path in files.paths], dtype=bool))
        classes = splits.split_classes(files.labels, files.is_test, options)
        boxes = self.boxes(root) if reading.crop_cars else {}
        # All splits share these two.
        trained = evaluated = Pictures(files, preparation.evaluation, boxes)
        if preparation.is_random:
            trained = Pictures(files.where(~files.is_test), preparation, boxes)
        return splits.make_splits(classes, options, evaluated, trained, trained, bad)


@dataclass(frozen=True)
class Photographs(PictureFiles):
    """One of PML's datasets of photographs, split as PML does.

    A download needs a root that is empty or does not exist; after it either all of the
    dataset is there, or nothing.

    Attributes:
        kind: PML's class.
        with_boxes: annotations that have bounding boxes, in PML's order.
    """

    name: str
    kind: type[BaseDataset]
    annotations: Mapping[str, str]
    advice: str
    with_boxes: tuple[str, ...] = ()
    has_boxes = True

    def find(
        self, root: Path, download: bool = False, test_classes: str | None = None
    ) -> Files:
        """As of PictureFiles."""
        name = self.name
        if download and not (root.is_dir() and any(root.iterdir())):
            # PML's own download leaves a partial dataset when it is stopped.
            download_and_unpack(self.kind.DOWNLOAD_URL, root)
        self._check_annotations(root)
        try:
            halves = [self.kind(root=str(root), split=split) for split in ("train", "test")]
        except IndexError as error:
            raise ValueError(
                f"annotations of {name} in {root} contradict each other ({error}); "
                f"{self.advice}"
            ) from error
        for half in halves:
            if not half.paths:
                raise ValueError(
                    f"{name} in {root} names no images to {half.split}; {self.advice}"
                )
        training, testing = halves
        paths, labels = training.paths + testing.paths, training.labels + testing.labels
        is_test = np.arange(len(paths)) >= len(training.paths)
        return Files(paths, np.array(labels, dtype=np.int64), is_test)

    def _check_annotations(self, root: Path) -> None:
        name, advice = self.name, self.advice
        if not root.is_dir():
            raise ValueError(f"the folder of {name}, {root}, is not there; {advice}")
        missing = [str(root / x) for x in self.annotations if not (root / x).is_file()]
        if missing:
            raise ValueError(
                f"{name} is not complete: {', '.join(missing)} is missing; {advice}"
            )
        wrong = {
            f"{root / file}, line {number}: {line[:80]!r}": "is wrong"
            for file, pattern in self.annotations.items()
            for number, line in _lines(root / file)
            if not re.fullmatch(pattern, line)
        }
        if wrong:
            raise ValueError(
                f"annotations of {name} cannot be understood:\n{splits.describe(wrong)}\n"
                f"{advice}"
            )

    def boxes(self, root: Path) -> dict[str, Box]:
        """Of all photographs, if they are known; raises ValueError if any is empty."""
        if not self.with_boxes:
            return {}
        boxes, empty = [], {}
        for name in self.with_boxes:
            for number, line in _lines(root / name):
                written = tuple(line.split(",")[1:5])
                left, top, right, bottom = map(int, written)
                # The annotations count from 1, and include the last pixel.
                boxes.append((left - 1, top - 1, right, bottom))
                if not (1 <= left <= right and 1 <= top <= bottom):
                    empty[f"{root / name}, line {number}: {written}"] = "is no box"
        if empty:
            raise ValueError(
                f"boxes of {self.name} cannot be used:\n{splits.describe(empty)}\n"
                f"{self.advice}, or do not crop to them: --no-crop-cars"
            )
        paths = self.kind(root=str(root), split="train+test").paths
        return dict(zip(paths, boxes, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and lines of an annotation file."""
    return enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)


_CAR = r"[^,]+(,\d+){4},([1-9]\d?|1[0-8]\d|19[0-6])"  # the last: 1 to 196
_PRODUCT = r"\d+ \d+ \d+ \S+|image_id class_id .*"
_ADVICE = "unpack {} there again, or use --download with an empty folder"
CUB = Photographs(
    "cub",
    pml_datasets.CUB,
    {
        "CUB_200_2011/images.txt": r"\d+ \S+",
        "CUB_200_2011/image_class_labels.txt": r"\d+ \d+",
    },
    _ADVICE.format("CUB_200_2011.tgz"),
)
CARS = Photographs(
    "cars",
    pml_datasets.Cars196,
    {"names.csv": ".+", "anno_train.csv": _CAR, "anno_test.csv": _CAR},
    _ADVICE.format("stanford-car-dataset-by-classes-folder"),
    with_boxes=("anno_train.csv", "anno_test.csv"),
)
SOP = Photographs(
    "sop",
    pml_datasets.StanfordOnlineProducts,
    {
        "Stanford_Online_Products/Ebay_train.txt": _PRODUCT,
        "Stanford_Online_Products/Ebay_test.txt": _PRODUCT,
    },
    _ADVICE.format("Stanford_Online_Products.zip"),
)


class Folder(PictureFiles):
    """A folder of class folders, or an archive of one.

    The classes are numbered by name, and the second half is to test on if there are no
    test_classes. If it has a single folder, the class folders are in that one. Names that
    begin with a dot, and __MACOSX, are ignored.
    """

    inputs = ("grey pictures", "pictures")
    is_own = True
    name, advice = "folder", "Mend or remove them"
    annotations: Mapping[str, str] = {}

    def find(
        self, root: Path, download: bool = False, test_classes: str | None = None
    ) -> Files:
        """As of PictureFiles."""
        if download:
            raise ValueError("--download cannot fetch the dataset folder")
        if not root.exists():
            raise ValueError(
                f"the folder or archive of pictures, {root}, is not there; it must have a "
                "folder of pictures for each class"
            )
        folders = _folders(unpacked(root) if root.is_file() else root)
        if len(folders) == 1:
            folders = _folders(folders[0])
        if not folders:
            raise ValueError(
                f"{root} must have a folder of pictures for each class, it has none"
            )
        unread: Counter[str] = Counter()
        pictures = [_pictures(folder, unread) for folder in folders]
        empty = [str(x) for x, paths in zip(folders, pictures, strict=True) if not paths]
        if empty:
            raise ValueError(f"class folders have no pictures: {', '.join(empty)}")
        if unread:
            kinds = ", ".join(
                f"{number:,} {kind}" for kind, number in sorted(unread.items())
            )
            _warn_once(
                f"{unread.total():,} files in class folders of {root} are not read: {kinds}"
            )
        is_test = splits.is_test_class([folder.name for folder in folders], test_classes)
        labels = np.repeat(np.arange(len(folders)), [len(paths) for paths in pictures])
        found = Files([x for paths in pictures for x in paths], labels, is_test[labels])
        return found.where(np.argsort(found.is_test, kind="stable"))


def _folders(root: Path) -> list[Path]:
    return [path for path in _visible(root) if path.is_dir()]


def _pictures(folder: Path, unread: Counter[str]) -> list[str]:
    """The pictures of a class folder; its other files are counted by their kind."""
    pictures = []
    for path in _visible(folder):
        ending = path.suffix.lower()
        if path.is_dir():
            deeper = [x for x in path.rglob("[!.]*") if x.is_file()]
            unread.update(["in a deeper folder"] * len(deeper))
        elif ending in ENDINGS:
            pictures.append(str(path))
        else:
            unread[ending or "without an ending"] += 1
    return pictures


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "__MACOSX"
    )
