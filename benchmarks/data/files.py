"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name when all of it is on the disk.

    Neither a full disk nor a second process that writes the same can leave half a file
    under the name.

    Args:
        path: of the file, which is replaced; its folder is made if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are for their owner alone; this one is like any other.
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left of files that written_whole was writing to a folder."""
    for path in folder.glob(f"{tempfile.gettempprefix()}*"):
        path.unlink()
