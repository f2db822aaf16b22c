"""What files hold, in a few characters, to tell a dataset from a changed one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from .files import default_root, keep_in_cache

_BLOCK = 2**20  # bytes to read at a time


def fingerprint(paths: Sequence[str], root: Path) -> str:
    """The number and the size of files, and a digest of their names and contents.

    Reading takes a while: it is kept in the user's cache folder, for as long as paths,
    sizes and times of the files stay the same.

    Args:
        paths: of the files. Those that are missing are left out.
        root: the names are relative to it, so that a dataset can be moved.
    """
    paths = [path for path in dict.fromkeys(paths) if os.path.isfile(path)]
    states = hashlib.sha256(os.path.abspath(root).encode("utf-8", "surrogateescape"))
    for path in paths:
        states.update(state_of(path))
    cache = default_root() / f"files-{states.hexdigest()[:32]}.txt"
    try:
        return cache.read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass  # missing or damaged: read the files
    whole = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = tqdm(
            pool.map(_digest, paths), "fingerprint", len(paths), unit="file", leave=False
        )
        for path, content in sorted(zip(paths, contents, strict=True)):
            name = Path(os.path.relpath(path, root)).as_posix()
            whole.update(repr((name, content)).encode())
    size = sum(os.path.getsize(path) for path in paths)
    found = (
        f"{len(paths):,} file{'s' * (len(paths) != 1)} of {size:,} bytes, SHA-256 "
        f"{whole.hexdigest()[:32]}"
    )
    keep_in_cache(cache, lambda file: file.write(found.encode()))
    return found


def state_of(path: str) -> bytes:
    """A file's path, size, number and times, to detect changes.

    Programs that copy files can set the time of the last change of their contents, but not
    the other one.

    Raises:
        OSError: it does not exist.
    """
    x = os.stat(path)
    state = (os.path.abspath(path), x.st_size, x.st_ino, x.st_mtime_ns, x.st_ctime_ns)
    return repr(state).encode()


def _digest(path: str) -> str:
    """SHA-256 of a file's contents; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()
