"""Texts as token ids, in class-disjoint splits."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .bad_items import describe
from .splits import SplitOptions, Splits, is_test_class, of_classes, split_classes
from .text_files import bad_texts, read_texts

LOGGER = logging.getLogger(__name__)

Tokenize = Callable[[Sequence[str]], Tensor]
"""Turns N texts into token ids: shape (N, T), int64, padded to the same length."""


class Texts(Dataset):
    """A dataset of tokenized texts.

    Args:
        ids: shape (N, T), int64, their token ids.
        labels: shape (N,), int64, their classes.

    Attributes:
        ids, labels: as given.
        is_random: False: an item is the same each time.
    """

    is_random = False

    def __init__(self, ids: Tensor, labels: np.ndarray) -> None:
        self.ids, self.labels = ids, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.ids[index], int(self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of the token ids and labels, in hexadecimal."""
        digest = hashlib.sha256(repr(tuple(self.ids.shape)).encode())
        digest.update(self.ids.numpy().tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def texts(
    path: Path,
    tokenize: Tokenize,
    options: SplitOptions,
    skip_bad: bool = False,
) -> Splits:
    """A file of texts; a tenth of its training classes is for validation.

    Args:
        path: of the file, in a format of read_texts.
        tokenize: the tokenizer of the trunk.
        options: how to split its classes, by default to test on the second half by name.
        skip_bad: leave out texts that are empty, repeated, in several classes or alone
            in their class, instead of raising an error.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is invalid, there are bad texts, the pattern matches no class or
            all, or there are too few classes; the message says where and what.
    """
    found = read_texts(path)
    bad = bad_texts(found)
    if bad and not skip_bad:
        raise ValueError(
            f"{len(bad)} of {len(found)} texts are bad:\n{describe(bad)}\n"
            "correct them, or leave them out with --skip-bad"
        )
    if bad:
        LOGGER.warning("%d bad texts of %s are left out", len(bad), path)
    good = [one for one in found if one.place not in bad]
    if not good:
        raise ValueError(f"{path} has no text to use")
    names, labels = np.unique([one.label for one in good], return_inverse=True)
    labels = labels.astype(np.int64)
    is_test = is_test_class(names.tolist(), options.test_classes)
    classes = split_classes(np.flatnonzero(~is_test), np.flatnonzero(is_test), options)
    items = Texts(tokenize([one.text for one in good]), labels)
    pretrain, train, val, test = (of_classes(items, part) for part in classes)
    return Splits(train, val, test, bad, pretrain if options.reserve else None)
