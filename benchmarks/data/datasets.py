"""The datasets by name, in class-disjoint splits, checked before anything is trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from . import folders
from .bad_images import bad_images
from .bad_items import describe
from .fingerprints import fingerprint
from .glyphs import SHARES, Glyphs, random_affine
from .images import Preparation
from .photographs import PHOTOGRAPHS, boxes_of_cars
from .photographs import find as find_photographs
from .pictures import Files, Pictures
from .splits import SplitOptions, Splits, of_classes, split_all_classes, split_classes

LOGGER = logging.getLogger(__name__)


def glyphs(options: SplitOptions, augment: bool = False) -> Splits:
    """The glyphs, which need no download.

    Args:
        options: how to split their classes; they have no test_classes.
        augment: move the images of the training split a little, at random; those to
            pre-train on are always moved.
    """
    drawn, moved = Glyphs(), Glyphs(transform=random_affine)
    pretrain, train, val, test = split_all_classes(drawn.labels, SHARES, options)
    return Splits(
        of_classes(moved if augment else drawn, train),
        of_classes(drawn, val),
        of_classes(drawn, test),
        {},
        of_classes(moved, pretrain) if options.reserve else None,
    )


def photographs(
    name: str,
    root: Path,
    options: SplitOptions,
    download: bool,
    preparation: Preparation,
    skip_bad: bool = False,
    crop_cars: bool = False,
) -> Splits:
    """A dataset of pictures in files; a tenth of its training classes is for validation.

    Args:
        name: in PHOTOGRAPHS, or "folder".
        root: its folder; for "folder" also a tar or zip archive.
        options: how to split its classes; test_classes, for names of class folders, is for
            "folder" alone.
        download: fetch and unpack it if root is empty or does not exist.
        preparation: for the training split; the others use its evaluation.
        skip_bad: leave out pictures that are missing, cannot be read, are named twice or
            are alone in their class, instead of raising an error.
        crop_cars: use only the bounding boxes of the photographs of cars.

    Raises:
        OSError: root cannot be read or downloaded.
        ValueError: root or a file that must be in it is missing or invalid, there are too
            few classes, or bad pictures; the message names all of them and what to do.
    """
    training, testing = _find(name, root, download, options.test_classes)
    advice = "Mend or remove them" if name == "folder" else PHOTOGRAPHS[name].advice
    files = _joined(training, testing)
    bad = bad_images(*files)
    if bad and not skip_bad:
        raise ValueError(
            f"{len(bad)} of {len(files.paths)} images of {name} are bad:\n"
            f"{describe(bad)}\n{advice}, or leave them out with --skip-bad"
        )
    if bad:
        LOGGER.warning("%d bad images of %s are left out", len(bad), name)
    training, testing = _without(bad, training), _without(bad, testing)
    classes = split_classes(training.labels, testing.labels, options)
    boxes = boxes_of_cars(root) if crop_cars and name == "cars" else None
    # All splits share these two.
    evaluated = Pictures(_joined(training, testing), preparation.evaluation, boxes)
    trained = evaluated
    if preparation.is_random:
        trained = Pictures(training, preparation, boxes)
    return Splits(
        of_classes(trained, classes.train),
        of_classes(evaluated, classes.val),
        of_classes(evaluated, classes.test),
        bad,
        of_classes(trained, classes.pretrain) if options.reserve else None,
    )


def photographs_fingerprint(
    name: str, root: Path, download: bool, test_classes: str | None
) -> str:
    """The fingerprint of all files that photographs reads; the arguments are the same.

    Raises:
        OSError, ValueError: as photographs, but bad pictures are no error.
    """
    training, testing = _find(name, root, download, test_classes)
    if root.is_file():
        return fingerprint([str(root)], root.parent)
    others = [] if name == "folder" else PHOTOGRAPHS[name].annotations
    annotations = [str(root / other) for other in others]
    return fingerprint([*annotations, *training.paths, *testing.paths], root)


def _find(
    name: str, root: Path, download: bool, test_classes: str | None
) -> tuple[Files, Files]:
    """The files to train on and to test on."""
    if name == "folder":
        if download:
            raise ValueError("--download cannot fetch the dataset folder")
        return folders.find(root, test_classes)
    if test_classes is not None:
        raise ValueError(
            f"test_classes is for the dataset folder; that of {name} are PML's, got "
            f"{test_classes!r}"
        )
    return find_photographs(name, root, download)


def _joined(first: Files, second: Files) -> Files:
    labels = np.concatenate([first.labels, second.labels])
    return Files(first.paths + second.paths, labels)


def _without(bad: dict[str, str], files: Files) -> Files:
    good = [row for row, path in enumerate(files.paths) if path not in bad]
    return Files([files.paths[row] for row in good], files.labels[good])
