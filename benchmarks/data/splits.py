"""Class-disjoint splits of a dataset, the interface of its items, and what is left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .files import sha256

if TYPE_CHECKING:
    from .pictures import Preparation
    from .texts import Tokenize

LOGGER = logging.getLogger(__name__)

FOLDS = 4  # as in Musgrave et al., ECCV 2020
VALIDATION_SHARE = 0.1  # of the training classes
PRETRAINING_SHARE = 1 / 3  # of the training classes, where some are reserved
_SHOWN = 100  # the most bad items to list for each reason

Input = Literal["grey pictures", "pictures", "texts"]
"""What a trunk reads."""


@dataclass(frozen=True)
class SplitOptions:
    """How the classes of a dataset are divided; the settings of these names explain it.

    A fold is one of FOLDS equal parts. None stands for all classes, or for the usual split.
    """

    seed: int
    max_classes: int | None = None
    train_classes: int | None = None
    fold: int | None = None
    reserve: bool = False
    test_classes: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2^32 - 1, got {self.seed}")
        for name in ("max_classes", "train_classes"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.fold is not None and self.fold not in range(FOLDS):
            raise ValueError(f"fold must be from 0 to {FOLDS - 1}, got {self.fold}")


class Reading(NamedTuple):
    """How to read a dataset; the settings of these names explain the switches.

    Attributes:
        root: its folder, archive or file; glyphs have none.
        options: how to divide its classes.
        pixels: the pictures that the trunk needs, augmented for training; None for texts.
        tokenize: from texts to what the trunk needs; None for pictures.
    """

    root: Path
    options: SplitOptions
    pixels: Preparation | None
    tokenize: Tokenize | None
    download: bool
    skip_bad: bool
    augment: bool
    crop_cars: bool


class Kind:
    """A kind of dataset; benchmarks.data.KINDS has them by name.

    Attributes:
        inputs: what its items can be.
        in_files: whether it has a root.
        is_own: whether it is a user's, with a root's name, and test_classes.
        has_boxes: whether crop_cars is for it.
    """

    inputs: tuple[Input, ...] = ("pictures",)
    in_files = True
    is_own = False
    has_boxes = False

    def fingerprint(self, root: Path, download: bool, test_classes: str | None) -> str:
        """Of all files in a root that splits reads; bad items are no error."""
        raise NotImplementedError

    def splits(self, reading: Reading) -> Splits:
        """The dataset, in class-disjoint splits.

        Raises:
            OSError, ValueError: it is missing, incomplete, or cannot be read.
        """
        raise NotImplementedError


class Items(Dataset[tuple[Tensor, int]]):
    """Pictures or texts with labels, all prepared in the same way.

    Attributes:
        labels: shape (N,), int64.
        is_random: whether an item is another tensor each time, through augmentation.
    """

    labels: np.ndarray
    is_random = False

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 of all that the tensors and labels depend on, in hexadecimal."""
        raise NotImplementedError


class Subset(Items):
    """Some rows of items, an int64 array."""

    def __init__(self, items: Items, rows: np.ndarray) -> None:
        self.items, self.rows = items, rows
        self.labels = np.asarray(items.labels, dtype=np.int64)[rows]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.items[int(self.rows[index])]

    def fingerprint(self) -> str:
        """Of the items and the rows."""
        return sha256([self.items.fingerprint().encode(), self.rows.tobytes()])


class Splits(NamedTuple):
    """Datasets without a class in common, and what was left out -> why.

    There is one to pre-train on if some classes are reserved for that.
    """

    train: Subset
    val: Subset
    test: Subset
    skipped: dict[str, str]
    pretrain: Subset | None = None


def of_classes(items: Items, classes: np.ndarray) -> Subset:
    """The items whose labels are among some classes."""
    return Subset(items, np.flatnonzero(np.isin(items.labels, classes)))


def make_splits(
    classes: Sequence[np.ndarray],
    options: SplitOptions,
    items: Items,
    trained: Items,
    pretrained: Items,
    skipped: dict[str, str],
) -> Splits:
    """The splits of the classes that split_classes or split_all_classes gave.

    The items are for validation and test; skipped is that of Splits.
    """
    pretrain, train, val, test = classes
    most = options.max_classes
    return Splits(
        of_classes(trained, train[:most][: options.train_classes]),
        of_classes(items, val[:most]),
        of_classes(items, test[:most]),
        skipped,
        of_classes(pretrained, pretrain) if options.reserve else None,
    )


def is_test_class(names: Sequence[str], pattern: str | None = None) -> np.ndarray:
    """Which classes to test on: those that fit a pattern, or else the second half.

    Raises:
        ValueError: the pattern matches no class, or all.

    >>> is_test_class(["a", "b", "test c"], "test *")
    array([False, False,  True])
    """
    if pattern is None:
        return np.arange(len(names)) >= len(names) // 2
    is_test = np.array([fnmatchcase(name, pattern) for name in names], dtype=bool)
    if is_test.all() or not is_test.any():
        raise ValueError(
            f"test_classes must fit some of the {len(names)} classes, from "
            f"{names[0]!r:.60} to {names[-1]!r:.60}, got {pattern!r}, which fits "
            f"{'all' if is_test.all() else 'none'}"
        )
    return is_test


def split_classes(
    labels: np.ndarray, is_test: np.ndarray, options: SplitOptions
) -> list[np.ndarray]:
    """Classes to pre-train, train, validate and test on; the last are fixed.

    The others are split at random, a tenth to validate on, if there is no fold. Labels are
    those of the classes or of their items; is_test says which of them are to test on.

    Raises:
        ValueError: too few classes: training needs one, validation and test two each.

    >>> split_classes(np.arange(40), np.arange(40) >= 20, SplitOptions(seed=0))[2]
    array([ 4, 19])
    """
    classes = np.random.default_rng(options.seed).permutation(np.unique(labels[~is_test]))
    test = np.unique(labels[is_test])
    needed = 3 if options.fold is None else 2 * FOLDS
    if options.reserve:
        needed = math.ceil(needed / (1 - PRETRAINING_SHARE))
    if len(classes) < needed or len(test) < 2:
        raise ValueError(
            f"the dataset needs at least {needed} classes to train and validate on and 2 "
            f"to test on, it has {len(classes)} and {len(test)}"
        )
    reserved = round(PRETRAINING_SHARE * len(classes)) if options.reserve else 0
    pretrain, classes = classes[:reserved], classes[reserved:]
    val = classes[: max(2, round(VALIDATION_SHARE * len(classes)))]
    if options.fold is not None:
        val = np.array_split(classes, FOLDS)[options.fold]
    return [pretrain, classes[~np.isin(classes, val)], val, test]


def split_all_classes(
    labels: np.ndarray, shares: Sequence[float], options: SplitOptions
) -> list[np.ndarray]:
    """Classes to pre-train, train, validate and test on, all at random.

    Shares are those of the last three, 1 together; with options.reserve they are of the two
    thirds that are not to pre-train on. Labels are those of the classes or of their items.

    >>> split_all_classes(np.arange(20), (0.4, 0.1, 0.5), SplitOptions(seed=0))[2]
    array([10,  8])
    """
    classes = np.random.default_rng(options.seed).permutation(np.unique(labels))
    reserved = PRETRAINING_SHARE if options.reserve else 0.0
    parts = [reserved, *((1 - reserved) * share for share in shares)]
    edges = [round(edge) for edge in np.cumsum(parts)[:-1] * len(classes)]
    pretrain, train, val, test = np.split(classes, edges)
    if options.fold is not None:
        both = np.concatenate([train, val])
        is_val = np.arange(len(both)) % FOLDS == options.fold
        train, val = both[~is_val], both[is_val]
    return [pretrain, train, val, test]


def check_bad(
    bad: Mapping[str, str], total: int, kind: str, advice: str, skip_bad: bool
) -> None:
    """Warn of bad items of a kind; without skip_bad raise ValueError, with an advice."""
    if bad and not skip_bad:
        raise ValueError(
            f"{len(bad)} of {total} {kind} are bad:\n{describe(bad)}\n{advice}, or leave "
            "them out with --skip-bad"
        )
    if bad:
        LOGGER.warning("%d bad %s are left out", len(bad), kind)


def describe(bad: Mapping[str, str]) -> str:
    """A line for each bad item, grouped by reason; of each reason the first hundred only.

    >>> print(describe({"a.jpg": "is missing", "b.jpg": "is missing"}))
    a.jpg is missing
    b.jpg is missing
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in bad.items():
        by_reason.setdefault(reason, []).append(name)
    lines = []
    for reason, names in by_reason.items():
        lines += [f"{name} {reason}" for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f"... and {len(names) - _SHOWN} more {reason}")
    return "\n".join(lines)
