"""The folder of a run: one process uses it, and the run starts there or continues."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ..data.files import locked, remove_unfinished, written_whole
from . import checkpoint, processes, records
from .interruption import Request
from .settings import Settings, complete

LOGGER = logging.getLogger(__name__)


@contextmanager
def held(folder: Path, request: Request, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a run's folder, and wait while another process holds it.

    A request may stop waiting. Locks are beside the folder, because it may be removed.
    """
    if not processes.is_first():
        yield
        return

    def wait() -> None:
        LOGGER.warning("%s is in use by another process: waiting until it ends", folder)
        tell("waiting for the process that trains it")

    lock = folder.parent / "locks" / f"{folder.name}.lock"
    with locked(lock, wait, request.check_alone):
        yield


class Start(NamedTuple):
    """Where a run starts.

    Attributes:
        finished: the result of the run, if it is finished already.
        state: checkpoint after the last complete epoch, if any.
        within: checkpoint within the epoch after that, if any.
        fingerprint: of the dataset that a stopped run had, if it is known.
    """

    finished: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    within: dict[str, Any] | None = None
    fingerprint: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether it starts at its beginning."""
        return self.state is None and self.within is None


def prepare(
    settings: Settings, folder: Path, force: bool, searched: Collection[str] = ()
) -> Start:
    """Find where a run continues, without a change of its folder.

    A finished run continues if its settings have more steps than it was trained for. With
    force, or if a search chose other searched fields before, it starts at the beginning.

    Raises:
        ValueError: there is a run with other settings or with more steps, it was stopped
            with another number of processes, or it must continue without a checkpoint.
    """
    written = folder / "settings.json"
    if force:
        return Start()
    if is_other_choice(settings, folder, searched):
        LOGGER.warning("%s starts again: the search chooses otherwise now", folder)
        return Start()
    earlier = records.read(folder.parent / records.DATABASE, folder.name)
    if earlier is not None:
        check_same(earlier["settings"], settings, folder)
        if earlier["settings"]["steps"] == settings.steps or "diverged" in earlier:
            LOGGER.info("%s is finished already", folder)
            return Start(earlier)
    state = within = None
    if written.exists():
        state = checkpoint.load(folder / checkpoint.NAME) or checkpoint.load(
            folder / checkpoint.PREVIOUS
        )
        within = checkpoint.load(folder / checkpoint.WITHIN)
        if within is not None and within["epoch"] != (state["epoch"] if state else 0):
            within = None  # older than the last epoch's checkpoint
    last = within or state
    if last is None:
        if earlier is not None:
            raise ValueError(
                f"{folder} is finished after {earlier['settings']['steps']} steps and has "
                f"no checkpoint to train on to steps = {settings.steps} (earlier versions "
                "removed it): choose another --out, or --force to train from the start"
            )
        return Start()
    try:
        stopped = dict(json.loads(written.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{written} is damaged ({error}): choose another --out, or --force to "
            "train from the start"
        ) from error
    check_same(stopped, settings, folder)
    if last["own"]["processes"] != processes.world_size():
        raise ValueError(
            f"{folder} was stopped with {last['own']['processes']} processes and must "
            f"continue with as many, got {processes.world_size()}; --force starts again"
        )
    return Start(None, state, within, stopped.get("fingerprint"))


def begin(settings: Settings, folder: Path, start: Start) -> None:
    """Remove records and files after a start, and write the settings."""
    database = folder.parent / records.DATABASE
    last = start.within or start.state
    if last is None:
        if folder.exists():
            shutil.rmtree(folder)
        records.forget(database, folder.name)
        folder.mkdir(parents=True)
    else:
        remove_unfinished(folder)
        steps = last["epoch"] * settings.test_interval + last["iteration"]
        records.trim(database, folder.name, last["epoch"], steps)
        LOGGER.warning("%s continues after step %d", folder, steps)
    own = asdict(settings)
    own["fingerprint"] = own["fingerprint"] or start.fingerprint
    with written_whole(folder / "settings.json") as file:
        file.write(json.dumps(own, indent=1).encode())


def is_other_choice(settings: Settings, folder: Path, searched: Collection[str]) -> bool:
    """Whether a folder's run differs from settings only in what a search chose."""
    if not searched:
        return False
    try:
        earlier = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        changed = _changes(earlier, settings)
    except (OSError, ValueError, TypeError):
        return False  # there is none, or a damaged one
    return bool(changed) and set(changed) <= set(searched)


def check_same(earlier: dict[str, Any], settings: Settings, folder: Path) -> None:
    """Raise ValueError if settings differ from earlier ones, except for more steps."""
    if changes := _changes(earlier, settings):
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changes.values())}): "
            "choose another --out, or --force to replace it"
        )


def _changes(earlier: dict[str, Any], settings: Settings) -> dict[str, str]:
    """Field -> what an error says of it, of all that differ; more steps do not."""
    now = asdict(settings)
    # Earlier versions did not store data.
    earlier = complete({"data": now["data"], **earlier})
    if now["fingerprint"] is None or earlier["fingerprint"] is None:
        earlier["fingerprint"] = now["fingerprint"]  # one of them is not known
    return {
        name: f"{name} was {earlier.get(name)}, is {now[name]}"
        for name in now
        if earlier.get(name) != now[name]
        and not (name == "steps" and earlier["steps"] < now["steps"])
    }
