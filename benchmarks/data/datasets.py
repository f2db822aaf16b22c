"""The datasets by name, in class-disjoint splits, checked before anything is trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from . import folders
from .bad_images import bad_images
from .bad_items import describe
from .fingerprints import fingerprint
from .glyphs import SPLITS, WITH_PRETRAINING, Glyphs, random_affine
from .images import Preparation
from .photographs import PHOTOGRAPHS, boxes_of_cars
from .photographs import find as find_photographs
from .pictures import Files, Pictures
from .splits import FOLDS, Splits, of_classes, split_classes

LOGGER = logging.getLogger(__name__)


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
        max_classes: keep at most this many classes of each split, or None for all.
        train_classes: keep at most this many training classes, or None for all.
        augment: move the images of the training split a little, at random.
        reserve: reserve a third of the classes for pretrain, and split the rest.
        fold: which of FOLDS equal parts of the training and validation classes is for
            validation, or None for the usual splits.
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
    pretrain = None
    if reserve:
        pretrain = Glyphs(
            split="pretrain", seed=seed, transform=random_affine, shares=shares
        )
    return Splits(train, val, test, {}, pretrain)


def photographs(
    name: str,
    root: Path,
    seed: int,
    max_classes: int | None,
    train_classes: int | None,
    download: bool,
    preparation: Preparation,
    skip_bad: bool = False,
    fold: int | None = None,
    reserve: bool = False,
    test_classes: str | None = None,
    crop_cars: bool = False,
) -> Splits:
    """A dataset of pictures in files; a tenth of its training classes is for validation.

    Args:
        name: in PHOTOGRAPHS, or "folder".
        root: its folder; for "folder" also a tar or zip archive.
        seed: which classes are for validation.
        max_classes: keep at most this many classes of each split, or None for all.
        train_classes: keep at most this many training classes, or None for all.
        download: fetch and unpack it if root is empty or does not exist.
        preparation: for the training split; the others use its evaluation.
        skip_bad: leave out pictures that are missing, cannot be read, are named twice or
            are alone in their class, instead of raising an error.
        fold: which of FOLDS equal parts of the training classes is for validation, or
            None for the usual tenth.
        reserve: reserve a third of the training classes for pretrain.
        test_classes: a pattern for the names of the class folders to test on, such as
            "evaluation.*"; None for the second half by name.
        crop_cars: use only the bounding boxes of the photographs of cars.

    Raises:
        OSError: root cannot be read or downloaded.
        ValueError: root or a file that must be in it is missing or invalid, there are too
            few classes, or bad pictures; the message names all of them and what to do.
    """
    training, testing = _find(name, root, download, test_classes)
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
    classes = split_classes(
        training.labels, testing.labels, seed, max_classes, train_classes, fold, reserve
    )
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
        of_classes(trained, classes.pretrain) if reserve else None,
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
