"""PML's datasets of photographs, with checks of their annotations."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pytorch_metric_learning import datasets as pml_datasets
from pytorch_metric_learning.datasets.base_dataset import BaseDataset

from .archives import download_and_unpack
from .bad_items import describe
from .images import Box
from .pictures import Files


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
class Photographs:
    """A dataset of photographs.

    Attributes:
        kind: PML's class.
        annotations: annotation files, relative to the dataset's root -> their rows.
        archive: what to unpack in the root.
    """

    kind: type[BaseDataset]
    annotations: Mapping[str, Rows]
    archive: str

    @property
    def advice(self) -> str:
        """What to do if it is not complete."""
        return f"unpack {self.archive} there again, or use --download with an empty folder"


_CAR = Rows(r"[^,]+(,\d+){4},(\d|[1-9]\d|1[0-8]\d|19[0-6])")  # the last: 1 to 196
_PRODUCT = Rows(r"\d+ \d+ \d+ \S+", header=1)
PHOTOGRAPHS = {
    "cub": Photographs(
        pml_datasets.CUB,
        {
            "CUB_200_2011/images.txt": Rows(r"\d+ \S+"),
            "CUB_200_2011/image_class_labels.txt": Rows(r"\d+ \d+"),
        },
        "CUB_200_2011.tgz",
    ),
    "cars": Photographs(
        pml_datasets.Cars196,
        {"names.csv": Rows(".+"), "anno_train.csv": _CAR, "anno_test.csv": _CAR},
        "stanford-car-dataset-by-classes-folder",
    ),
    "sop": Photographs(
        pml_datasets.StanfordOnlineProducts,
        {
            "Stanford_Online_Products/Ebay_train.txt": _PRODUCT,
            "Stanford_Online_Products/Ebay_test.txt": _PRODUCT,
        },
        "Stanford_Online_Products.zip",
    ),
}
"""Name -> dataset of photographs."""


def find(name: str, root: Path, download: bool = False) -> tuple[Files, Files]:
    """The photographs to train on and to test on, as PML splits them.

    Args:
        name: in PHOTOGRAPHS.
        root: its folder.
        download: fetch and unpack it if root is empty or does not exist; afterwards
            either all of it is there, or nothing.

    Raises:
        OSError: it cannot be fetched or written.
        ValueError: root or an annotation file is missing, or rows of an annotation are
            invalid; the message names all of them and says what to do.
    """
    dataset = PHOTOGRAPHS[name]
    if download and not (root.is_dir() and any(root.iterdir())):
        # PML's own download leaves a partial dataset when it is stopped.
        download_and_unpack(dataset.kind.DOWNLOAD_URL, root)
    _check_annotations(name, dataset, root)
    try:
        splits = [dataset.kind(root=str(root), split=split) for split in ("train", "test")]
    except IndexError as error:
        raise ValueError(
            f"annotations of {name} in {root} contradict each other ({error}); "
            f"{dataset.advice}"
        ) from error
    for split in splits:
        if not split.paths:
            raise ValueError(
                f"{name} in {root} names no images to {split.split}; {dataset.advice}"
            )
    training, testing = (Files(x.paths, np.array(x.labels, dtype=np.int64)) for x in splits)
    return training, testing


def boxes_of_cars(root: Path) -> dict[str, Box]:
    """Path -> the car's bounding box, of all photographs of cars.

    Args:
        root: its folder, which find has checked.

    Raises:
        ValueError: a box is empty; the message names all of these.
    """
    paths = PHOTOGRAPHS["cars"].kind(root=str(root), split="train+test").paths
    places, boxes = [], []
    for name in ("anno_train.csv", "anno_test.csv"):  # in PML's order
        with (root / name).open(newline="", encoding="utf-8") as file:
            for number, (_, left, top, right, bottom, _) in enumerate(csv.reader(file), 1):
                places.append(f"{root / name}, line {number}: {left, top, right, bottom}")
                # The annotations count from 1, and include the last pixel.
                boxes.append((int(left) - 1, int(top) - 1, int(right), int(bottom)))
    empty = {
        place: "is no box"
        for place, (left, top, right, bottom) in zip(places, boxes, strict=True)
        if not (0 <= left < right and 0 <= top < bottom)
    }
    if empty:
        raise ValueError(
            f"boxes of cars cannot be used:\n{describe(empty)}\n"
            f"{PHOTOGRAPHS['cars'].advice}, or do not crop to them: --no-crop-cars"
        )
    return dict(zip(paths, boxes, strict=True))


def _check_annotations(name: str, dataset: Photographs, root: Path) -> None:
    if not root.is_dir():
        raise ValueError(f"the folder of {name}, {root}, is not there; {dataset.advice}")
    missing = [str(root / x) for x in dataset.annotations if not (root / x).is_file()]
    if missing:
        raise ValueError(
            f"{name} is not complete: {', '.join(missing)} is missing; {dataset.advice}"
        )
    wrong = {}
    for file, rows in dataset.annotations.items():
        lines = (root / file).read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines[rows.header :], start=rows.header + 1):
            if not re.fullmatch(rows.pattern, line):
                wrong[f"{root / file}, line {number}: {line[:80]!r}"] = "is wrong"
    if wrong:
        raise ValueError(
            f"annotations of {name} cannot be understood:\n{describe(wrong)}\n"
            f"{dataset.advice}"
        )
