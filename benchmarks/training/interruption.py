"""SIGINT and SIGTERM: a run stops between two steps, and can continue there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from . import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# A signal to the whole process group, as timeout sends it, must not end the processes
# that load items: torch would raise an error in the middle of a step. They end with us.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=os.setpgrp)


class Interrupted(KeyboardInterrupt):
    """A signal of this number stopped a run; all that it needs to continue is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Request:
    """Whether a signal has asked to stop: its number, or None."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Store the first signal; the same once more does not wait for the step's end.

        Another one changes nothing: a terminal's SIGINT reaches a run's own process, and
        so does the SIGTERM that passed_to_children makes of it.
        """
        if self.number == number:
            raise Interrupted(number)
        self.number = self.number or number

    def check_alone(self) -> None:
        """Raise Interrupted if a signal has asked this process to stop."""
        if self.number is not None:
            raise Interrupted(self.number)

    def check(self) -> None:
        """Raise Interrupted if any process was asked to stop; all processes call this."""
        if processes.any_of_them(self.number is not None):
            raise Interrupted(self.number or signal.SIGTERM)


@contextmanager
def requests() -> Iterator[Request]:
    """Turn SIGINT and SIGTERM into a request while the block runs."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread can handle signals
        return
    with _handled_by(request):
        yield request


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    earlier = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextmanager
def passed_to_children() -> Iterator[None]:
    """At SIGINT or SIGTERM, send SIGTERM to this process's children, raise Interrupted."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise Interrupted(number)

    with _handled_by(pass_on):
        yield


def keep_back() -> None:
    """Keep SIGINT from the processes that this thread starts, until prepare_worker."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def prepare_worker() -> None:
    """In a run's own process: SIGINT is for the parent, without which this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # As if killed, too: nothing is written any more.
    os._exit(1)
