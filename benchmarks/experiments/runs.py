"""Runs of variants: planning them, and training those that are not finished."""

from __future__ import annotations

import math
import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from ..methods.methods import METHODS
from ..reporting import tables
from ..training import interruption, processes
from ..training.records import DATABASE, read_all
from ..training.run import run
from ..training.settings import Settings
from ..training.start import check_same, is_other_choice
from .command import Configured
from .progress import Screen, State, TimeLeft

# In a run's own process: set when no further run may start, and what it does.
_stopping: Event
_state: State


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the runs of a command are trained.

    Attributes:
        force: train finished runs again. Without it they are not trained again, except
            for the steps that are missing if there are more of them now; and a stopped run
            continues where it stopped, or after its last validation.
        jobs: how many runs to train at a time, each in its own process; they share the
            cores.
        dry_run: print what would be trained, and stop.
    """

    force: bool = False
    jobs: int = 1
    dry_run: bool = False


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        method: a name in METHODS.
        settings: its own fields of Settings.
        bases: the variants to compare it with, if they are in the table.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    bases: tuple[str, ...] = ()


def of_methods(methods: Sequence[str], **settings: Any) -> dict[str, Variant]:
    """Methods with the same settings, each compared with its base and its control.

    >>> of_methods(["Symm + N-pairs"])["Symm + N-pairs"].bases
    ('N-pairs', 'N-pairs, hardest originals')
    """
    return {name: Variant(name, settings, METHODS[name].bases) for name in methods}


Finished = Mapping[str, Mapping[str, Any]]
"""Folder's name -> result, of the runs that are not trained again."""


class PlannedRun(NamedTuple):
    """A run that is finished, or to be trained; its label is that of a table's row.

    A search chose the searched fields of its settings.
    """

    label: str
    folder: Path
    settings: Settings
    searched: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.label}, seed {self.settings.seed}"

    def steps_left(self, finished: Finished) -> int:
        """How many steps it needs beyond those of its finished run, if there is one."""
        earlier = finished.get(self.folder.name)
        if earlier and "diverged" in earlier:
            return 0
        trained = earlier["settings"]["steps"] if earlier else 0
        return max(0, self.settings.steps - trained)


Plan = Sequence[PlannedRun]


class Runs:
    """Plans and trains the runs of a command, in folders of an output folder.

    Raises:
        ValueError: jobs is below 1, or above 1 if several processes train one run.
    """

    def __init__(self, command: Configured, out: Path, schedule: Schedule) -> None:
        self._command, self._out, self._schedule = command, out, schedule
        jobs = schedule.jobs
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        if jobs > 1 and processes.world_size() > 1:
            raise ValueError(f"jobs must be 1 where several processes train, got {jobs}")
        begun = not schedule.force and any(out.glob("*/settings.json"))
        self._started = None if begun else time.perf_counter()

    def planned(self, label: str, searched: Iterable[str] = (), **own: Any) -> PlannedRun:
        """A run with its own fields of Settings, of which a search chose some.

        Raises:
            ValueError: settings are invalid.
        """
        settings = self._command.settings_of(fingerprint=self._fingerprint, **own)
        # Only characters that every file system allows.
        name = re.sub(r"[^a-z0-9.+=()-]+", "", label.lower().replace(", ", "-"))
        folder = self._out / f"{name}-seed{settings.seed}"
        return PlannedRun(label, folder, settings, tuple(searched))

    def describe(self, plan: Plan) -> str:
        """Which runs of a plan are finished, which would be trained, and how long."""
        finished = self._checked(plan)
        rows = [["run", "", "batches"]]
        for planned in plan:
            left = planned.steps_left(finished)
            is_new = left == planned.settings.steps
            state = "to train" if is_new else "to train on" if left else "finished"
            rows.append([str(planned.folder), state, str(left or planned.settings.steps)])
        time_left = str(self._time_left(plan, finished))
        return tables.document(tables.markdown(rows), time_left)

    def train(self, plan: Plan, later: Plan = ()) -> list[dict[str, Any]]:
        """Train the unfinished runs, and return the results of all, in the plan's order.

        The estimate of the time includes later runs, which are trained after these.

        Raises:
            ValueError: a finished run has other settings; or the process of a run was
                killed. Then the others are finished first.
        """
        finished = self._checked(plan)
        left = self._time_left([*plan, *later], finished)
        self._out.mkdir(parents=True, exist_ok=True)
        if self._schedule.jobs == 1:
            return self._train_in_turn(plan, finished, left)
        return self._train_together(plan, finished, left)

    @property
    def _threads(self) -> int:
        """How many each run has."""
        return max(1, torch.get_num_threads() // self._schedule.jobs)

    def machine(self) -> str:
        """What a table says of the machine, and of the time if all runs are new."""
        jobs = self._schedule.jobs
        at_a_time = f", {jobs} runs at a time" if jobs > 1 else ""
        parts = [f"Machine: {tables.machine(self._threads)}{at_a_time}."]
        if self._started is not None:
            minutes = (time.perf_counter() - self._started) / 60
            parts.append(f"Time: {minutes:.1f} minutes.")
        return " ".join(parts)

    @cached_property
    def _fingerprint(self) -> str | None:
        """The dataset's, when the command starts; a dry run does not read it."""
        if self._schedule.dry_run:
            return None
        source, settings = self._command.source, self._command.settings
        return processes.from_first(
            lambda: source.fingerprint(settings.dataset, settings.test_classes)
        )

    def _checked(self, plan: Plan) -> Finished:
        """The finished runs; ValueError if those of the plan have other settings.

        Those whose choice has changed are not among them; a dry run does not know yet.
        """
        finished = {} if self._schedule.force else read_all(self._out / DATABASE)
        for _, folder, settings, searched in plan:
            if is_other_choice(settings, folder, searched):
                if not self._schedule.dry_run:
                    finished.pop(folder.name, None)
            elif earlier := finished.get(folder.name):
                check_same(earlier["settings"], settings, folder)
        return finished

    def _time_left(self, plan: Plan, finished: Finished) -> TimeLeft:
        found = (result["seconds_per_step"] for result in finished.values())
        paces = list(filter(math.isfinite, found))
        steps = [left for x in plan if (left := x.steps_left(finished))]
        pace = statistics.median(paces) / self._schedule.jobs if paces else None
        return TimeLeft(steps, pace)

    def _run_of(self, planned: PlannedRun) -> Callable[..., dict[str, Any]]:
        _, folder, settings, searched = planned
        force, source = self._schedule.force, self._command.source
        return partial(run, settings, folder, force, source, searched)

    def _train_in_turn(
        self, plan: Plan, finished: Finished, left: TimeLeft
    ) -> list[dict[str, Any]]:
        results = []
        for number, planned in enumerate(plan, start=1):
            if processes.is_first():
                line = f"run {number} of {len(plan)}: {planned}"
                print("\n" + "; ".join(filter(None, [line, str(left)])), flush=True)
            left.start_run()
            after_epoch = partial(left.end_epoch, planned.settings.test_interval)
            tell = State(str(planned)).tell
            results.append(self._run_of(planned)(after_epoch, tell))
            if trained := planned.steps_left(finished):
                left.end_run(trained)
        return results

    def _train_together(
        self, plan: Plan, finished: Finished, time_left: TimeLeft
    ) -> list[dict[str, Any]]:
        print(time_left, flush=True)
        jobs = self._schedule.jobs
        spawn = get_context("spawn")
        stopping = spawn.Event()
        killed: list[str] = []

        def train_alone(planned: PlannedRun) -> dict[str, Any]:
            train = self._run_of(planned)
            if not planned.steps_left(finished):
                return train()
            # Of a pool with several processes, all end when one of them is killed.
            with (
                screen.line(str(planned)) as state,
                futures.ProcessPoolExecutor(
                    1, spawn, _prepare_worker, (self._threads, stopping, state)
                ) as worker,
            ):
                try:
                    return worker.submit(_run_in_worker, train).result()
                except BrokenProcessPool:
                    killed.append(str(planned.folder))
                    return {}

        with (
            # The progress bars of several runs would overwrite each other.
            mock.patch.dict(os.environ, TQDM_DISABLE="1"),
            closing(Screen(sum(x.steps_left(finished) > 0 for x in plan))) as screen,
            futures.ThreadPoolExecutor(jobs, initializer=interruption.keep_back) as pool,
            interruption.passed_to_children(),
        ):
            try:
                submitted = [pool.submit(train_alone, planned) for planned in plan]
                left = set(submitted)
                while left:
                    screen.refresh()
                    done, left = futures.wait(left, 1, futures.FIRST_COMPLETED)
                    for future in done:
                        future.result()  # raises what the run raised
            except BaseException:
                stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
        if killed:
            raise ValueError(
                f"the process of {', '.join(killed)} was killed, perhaps because there was "
                "too little memory; the same command continues, with fewer --jobs if you "
                "like"
            )
        return [future.result() for future in submitted]


def _prepare_worker(threads: int, stopping: Event, state: State) -> None:
    global _stopping, _state
    _stopping, _state = stopping, state
    torch.set_num_threads(threads)
    interruption.prepare_worker()


def _run_in_worker(train: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    if _stopping.is_set():
        raise interruption.Interrupted(signal.SIGTERM)
    return train(tell=_state.tell)
