"""One process trains a run at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from . import processes
from .interruption import Request

LOGGER = logging.getLogger(__name__)

FOLDER = "locks"  # beside the runs' folders, which may be removed


@contextmanager
def held(folder: Path, request: Request) -> Iterator[None]:
    """Hold the lock of a run's folder, and wait while another process holds it.

    The lock of a process that is killed is free.

    Args:
        folder: of the run.
        request: whether to stop waiting.
    """
    if not processes.is_first():
        yield
        return
    path = folder.parent / FOLDER / f"{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        LOGGER.warning("%s is in use by another process: waiting until it ends", folder)
    while not lock.is_locked:
        request.check_alone()
        with suppress(Timeout):
            lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()
