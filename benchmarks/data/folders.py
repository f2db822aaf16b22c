"""A folder of class folders, or an archive of one."""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from .archives import unpacked
from .pictures import Files
from .splits import is_test_class

LOGGER = logging.getLogger(__name__)

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def find(root: Path, test_classes: str | None = None) -> tuple[Files, Files]:
    """The picture files to train on and to test on, by class.

    Classes are numbered by name. Names that begin with a dot, and __MACOSX, are ignored.

    Args:
        root: the folder, or a tar or zip archive, which is unpacked in the cache. If it
            has a single folder, the class folders are in that one.
        test_classes: a pattern for the names of the class folders to test on, such as
            "evaluation.*"; None for the second half by name.

    Raises:
        OSError: root cannot be read.
        ValueError: root does not exist, is a damaged archive or has no class folders; a
            class folder has no pictures; test_classes matches none of them, or all.
    """
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
    pictures = [_pictures(folder) for folder in folders]
    empty = [str(x) for x, files in zip(folders, pictures, strict=True) if not files]
    if empty:
        raise ValueError(f"class folders have no pictures: {', '.join(empty)}")
    unread = sum(map(_unread, folders), Counter())
    if unread:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(unread.items()))
        _warn(f"{unread.total():,} files in class folders of {root} are not read: {kinds}")
    is_test = is_test_class([folder.name for folder in folders], test_classes)
    labels = np.repeat(np.arange(len(folders)), [len(files) for files in pictures])
    paths = np.array([path for files in pictures for path in files])
    training, testing = (
        Files(paths[rows].tolist(), labels[rows])
        for rows in (~is_test[labels], is_test[labels])
    )
    return training, testing


def _unread(folder: Path) -> Counter[str]:
    """Kind -> how many files of a class folder are not read."""
    kinds: Counter[str] = Counter()
    for path in _visible(folder):
        if path.is_dir():
            kinds["in a deeper folder"] += sum(not x.is_dir() for x in _visible(path))
        elif path.suffix.lower() not in ENDINGS:
            kinds[path.suffix.lower() or "without an ending"] += 1
    return kinds


@lru_cache
def _warn(message: str) -> None:
    """Warn once."""
    LOGGER.warning(message)


def _folders(root: Path) -> list[Path]:
    return [path for path in _visible(root) if path.is_dir()]


def _pictures(folder: Path) -> list[str]:
    return [
        str(path)
        for path in _visible(folder)
        if path.suffix.lower() in ENDINGS and not path.is_dir()
    ]


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "__MACOSX"
    )
