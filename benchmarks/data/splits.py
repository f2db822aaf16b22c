"""Class-disjoint splits of a dataset, and the interface of its items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

FOLDS = 4  # as in Musgrave et al., ECCV 2020
VALIDATION_SHARE = 0.1  # of the training classes
PRETRAINING_SHARE = 1 / 3  # of the training classes, where some are reserved


@dataclass(frozen=True)
class SplitOptions:
    """How the classes of a dataset are divided.

    Attributes:
        seed: which classes go into which split.
        max_classes: keep at most this many classes of each split, or None for all.
        train_classes: keep at most this many classes to train on, or None for all.
        fold: which of FOLDS equal parts of the training and validation classes is for
            validation, or None for the usual split.
        reserve: reserve a third of these classes for pretrain.
        test_classes: a pattern for the names of the classes to test on, such as
            "evaluation.*"; None for the usual ones.
    """

    seed: int
    max_classes: int | None = None
    train_classes: int | None = None
    fold: int | None = None
    reserve: bool = False
    test_classes: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_classes", "train_classes"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.fold is not None and self.fold not in range(FOLDS):
            raise ValueError(f"fold must be from 0 to {FOLDS - 1}, got {self.fold}")


class Items(Protocol):
    """A dataset of pictures or texts, all prepared in the same way.

    Attributes:
        labels: shape (N,), int64.
        is_random: whether an item is another tensor each time, through augmentation.
    """

    labels: np.ndarray
    is_random: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...

    def fingerprint(self) -> str:
        """SHA-256 of all that the tensors depend on, in hexadecimal."""


class Subset(Dataset):
    """Some rows of items.

    Args:
        items: all of them.
        rows: shape (M,), int64, which of them.

    Attributes:
        labels: shape (M,), int64.
    """

    def __init__(self, items: Items, rows: np.ndarray) -> None:
        self.items, self.rows = items, rows
        self.labels = np.asarray(items.labels, dtype=np.int64)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.items[int(self.rows[index])]

    def fingerprint(self) -> str:
        """SHA-256 of all that its items depend on, in hexadecimal."""
        digest = hashlib.sha256(self.items.fingerprint().encode())
        digest.update(self.rows.tobytes())
        return digest.hexdigest()


class Splits(NamedTuple):
    """Datasets whose ``labels`` is an int64 array; no class is in two of them.

    Attributes:
        train, val, test: the datasets.
        skipped: what was left out -> why.
        pretrain: to pre-train on, if some classes are reserved for that.
    """

    train: Subset
    val: Subset
    test: Subset
    skipped: dict[str, str]
    pretrain: Subset | None = None


def of_classes(items: Items, classes: np.ndarray) -> Subset:
    """The items whose labels are among some classes."""
    return Subset(items, np.flatnonzero(np.isin(items.labels, classes)))


def is_test_class(names: Sequence[str], pattern: str | None = None) -> np.ndarray:
    """Which classes to test on: shape (C,), bool.

    Args:
        names: of the classes, in order.
        pattern: for the names of the classes to test on, such as "evaluation.*"; None for
            the second half of the classes.

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


class SplitClasses(NamedTuple):
    """Which classes are in which split; no class is in two.

    Attributes:
        pretrain: to pre-train on; may be empty.
        train, val, test: the usual splits. Each is an int64 array of labels.
    """

    pretrain: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_classes(
    training: np.ndarray, testing: np.ndarray, options: SplitOptions
) -> SplitClasses:
    """Split the training classes at random; the test classes are fixed.

    A tenth of the training classes is for validation, if there is no fold.

    Args:
        training: labels of the classes to train on, or of their items.
        testing: labels of the classes to test on, or of their items.
        options: how to split them.

    Raises:
        ValueError: too few classes: training needs one, validation and test two each.

    >>> split_classes(np.arange(20), np.arange(20, 40), SplitOptions(seed=0)).val
    array([ 4, 19])
    """
    classes = np.random.default_rng(options.seed).permutation(np.unique(training))
    testing = np.unique(testing)
    needed = 3 if options.fold is None else 2 * FOLDS
    if options.reserve:
        needed = math.ceil(needed / (1 - PRETRAINING_SHARE))
    if len(classes) < needed or len(testing) < 2:
        raise ValueError(
            f"the dataset needs at least {needed} classes to train and validate on and 2 "
            f"to test on, it has {len(classes)} and {len(testing)}"
        )
    reserved = round(PRETRAINING_SHARE * len(classes)) if options.reserve else 0
    pretrain, classes = classes[:reserved], classes[reserved:]
    validating = classes[: max(2, round(VALIDATION_SHARE * len(classes)))]
    if options.fold is not None:
        validating = np.array_split(classes, FOLDS)[options.fold]
    train = classes[~np.isin(classes, validating)]
    return _limited(SplitClasses(pretrain, train, validating, testing), options)


def split_all_classes(
    labels: np.ndarray, shares: Mapping[str, float], options: SplitOptions
) -> SplitClasses:
    """Split classes at random, those to test on, too.

    Args:
        labels: of the classes, or of their items.
        shares: of "train", "val" and "test", which are 1 together. With options.reserve a
            third of all classes is for pretrain, and the others have these shares.
        options: how to split them; test_classes is not used.

    >>> shares = {"train": 0.4, "val": 0.1, "test": 0.5}
    >>> split_all_classes(np.arange(20), shares, SplitOptions(seed=0)).val
    array([10,  8])
    """
    classes = np.random.default_rng(options.seed).permutation(np.unique(labels))
    reserved = PRETRAINING_SHARE if options.reserve else 0.0
    parts = [reserved, *((1 - reserved) * shares[x] for x in ("train", "val", "test"))]
    edges = [round(edge) for edge in np.cumsum(parts)[:-1] * len(classes)]
    pretrain, train, val, test = np.split(classes, edges)
    if options.fold is not None:
        both = np.concatenate([train, val])
        is_val = np.arange(len(both)) % FOLDS == options.fold
        train, val = both[~is_val], both[is_val]
    return _limited(SplitClasses(pretrain, train, val, test), options)


def _limited(classes: SplitClasses, options: SplitOptions) -> SplitClasses:
    most = options.max_classes
    return classes._replace(
        train=classes.train[:most][: options.train_classes],
        val=classes.val[:most],
        test=classes.test[:most],
    )
