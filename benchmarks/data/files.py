"""The user's cache folder, and files that are written whole or not at all."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import platformdirs

LOGGER = logging.getLogger(__name__)


def default_root() -> Path:
    """Where files are kept by default: pml-symm in the user's cache folder."""
    return platformdirs.user_cache_path("pml-symm")


def check_name(name: str, path: Path) -> None:
    """Raise ValueError for a path that databases and tables, in UTF-8, cannot name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be a path in UTF-8, got {str(path)!r}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when it is completely on the disk.

    Neither a full disk nor a second process that writes the same file can leave half a
    file under that name.

    Args:
        path: of the file, which is replaced; its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Only their owner may read temporary files; give this one the usual permissions.
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def keep_in_cache(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a complete file, or warn, once for a folder, that it cannot be kept there.

    Args:
        path: of the file.
        write: called with the open file.
    """
    try:
        with written_whole(path) as file:
            write(file)
    except OSError as error:
        warn_of_cache(path.parent, error.strerror)


@lru_cache
def warn_of_cache(folder: Path, reason: str | None) -> None:
    """Warn once that nothing can be kept in a folder."""
    LOGGER.warning(
        "the cache folder %s cannot be written (%s), so its contents are made again each "
        "time; set XDG_CACHE_HOME to use another folder",
        folder,
        reason,
    )


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of written_whole that a killed process left in a folder."""
    for path in folder.glob(f"{tempfile.gettempprefix()}*"):
        path.unlink()
