"""A plan of runs: which are finished, and training the others."""

from __future__ import annotations

import math
import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from tqdm import tqdm

from ..reporting import tables
from ..training import interruption, processes
from ..training.records import DATABASE, read_all
from ..training.run import run
from ..training.settings import Settings
from .configured import Configured
from .time_left import TimeLeft

_stopping: Event  # in a run's own process: set when no further run may start


class PlannedRun(NamedTuple):
    """A run that is finished, or to be trained.

    Attributes:
        label: the name of its row in a table.
        folder: where it is written.
        settings: its settings.
    """

    label: str
    folder: Path
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Runs(Configured):
    """A command that trains runs.

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

    def planned(self, label: str, **own: Any) -> PlannedRun:
        """A run with its own fields of Settings.

        Raises:
            ValueError: settings are invalid.
        """
        settings = self.settings_of(fingerprint=self._fingerprint, **own)
        # Only characters that every file system allows.
        name = re.sub(r"[^a-z0-9.+=()-]+", "", label.lower().replace(", ", "-"))
        folder = self.destination / f"{name}-seed{settings.seed}"
        return PlannedRun(label, folder, settings)

    @cached_property
    def _fingerprint(self) -> str | None:
        """The dataset's, when the command starts; a dry run does not read it."""
        if self.dry_run:
            return None
        return processes.from_first(
            lambda: self.source.fingerprint(
                self.settings.dataset, self.settings.test_classes
            )
        )

    def train(
        self, plan: Sequence[PlannedRun], later: Sequence[PlannedRun] = ()
    ) -> list[dict[str, Any]]:
        """Train the unfinished runs, and return the results of all, in the plan's order.

        Args:
            plan: the runs.
            later: runs that are trained after these, for the estimate of the time.

        Raises:
            ValueError: jobs is below 1, or above 1 if several processes train one run; or
                the process of a run was killed. Then the others are finished first.
        """
        self._check_jobs()
        left = self._time_left([*plan, *later])
        if self.jobs == 1:
            return self._train_in_turn(plan, left)
        return self._train_together(plan, left)

    def describe(self, plan: Sequence[PlannedRun]) -> str:
        """Which runs of a plan are finished, which would be trained, and how long.

        Raises:
            ValueError: as train.
        """
        self._check_jobs()
        finished = self._finished()
        rows = [["run", "", "batches"]]
        for planned in plan:
            left = _steps_left(planned, finished)
            is_new = left == planned.settings.steps
            state = "to train" if is_new else "to train on" if left else "finished"
            rows.append([str(planned.folder), state, str(left or planned.settings.steps)])
        return tables.document(tables.markdown(rows), str(self._time_left(plan)))

    def _check_jobs(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.jobs > 1 and processes.world_size() > 1:
            raise ValueError(
                f"jobs must be 1 where several processes train, got {self.jobs}"
            )

    def _finished(self) -> dict[str, dict[str, Any]]:
        """Folder's name -> result, of the runs that are not trained again."""
        return {} if self.force else read_all(self.destination / DATABASE)

    def _clock(self) -> Callable[[], str]:
        """What a table says of the time since now: nothing if runs were finished before."""
        if self._finished():
            return lambda: ""
        started = time.perf_counter()
        return lambda: f" Time: {(time.perf_counter() - started) / 60:.1f} minutes."

    def _time_left(self, plan: Sequence[PlannedRun]) -> TimeLeft:
        finished = self._finished()
        paces = [result["seconds_per_step"] for result in finished.values()]
        paces = [pace for pace in paces if math.isfinite(pace)]
        steps = [left for x in plan if (left := _steps_left(x, finished))]
        return TimeLeft(steps, statistics.median(paces) / self.jobs if paces else None)

    def _train_in_turn(
        self, plan: Sequence[PlannedRun], left: TimeLeft
    ) -> list[dict[str, Any]]:
        results = []
        finished = self._finished()
        for number, planned in enumerate(plan, start=1):
            label, folder, settings = planned
            if processes.is_first():
                line = f"run {number} of {len(plan)}: {label}, seed {settings.seed}"
                print("\n" + "; ".join(filter(None, [line, str(left)])), flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            left.start_run()
            after_epoch = partial(left.end_epoch, settings.test_interval)
            results.append(run(settings, folder, self.force, self.source, after_epoch))
            if trained := _steps_left(planned, finished):
                left.end_run(trained)
        return results

    def _train_together(
        self, plan: Sequence[PlannedRun], left: TimeLeft
    ) -> list[dict[str, Any]]:
        print(left, flush=True)
        self.destination.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        spawn = get_context("spawn")
        stopping = spawn.Event()
        finished = self._finished()
        killed = []

        def train(planned: PlannedRun) -> dict[str, Any]:
            _, folder, settings = planned
            if not _steps_left(planned, finished):
                return run(settings, folder, self.force, self.source)
            # Of a pool with several processes, all end when one of them is killed.
            with ProcessPoolExecutor(
                1, spawn, _prepare_worker, (threads, stopping)
            ) as worker:
                try:
                    return worker.submit(
                        _run_in_worker, settings, folder, self.force, self.source
                    ).result()
                except BrokenProcessPool:
                    killed.append(str(folder))
                    return {}

        with (
            # The progress bars of several runs would overwrite each other.
            mock.patch.dict(os.environ, TQDM_DISABLE="1"),
            ThreadPoolExecutor(self.jobs, initializer=interruption.keep_back) as pool,
            interruption.passed_to_children(),
        ):
            try:
                futures = [pool.submit(train, planned) for planned in plan]
                for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
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
        return [future.result() for future in futures]


def _steps_left(planned: PlannedRun, finished: Mapping[str, Mapping[str, Any]]) -> int:
    """How many steps a run needs beyond those of its finished run, if there is one."""
    earlier = finished.get(planned.folder.name)
    if earlier and "diverged" in earlier:
        return 0
    trained = earlier["settings"]["steps"] if earlier else 0
    return max(0, planned.settings.steps - trained)


def _prepare_worker(threads: int, stopping: Event) -> None:
    global _stopping
    _stopping = stopping
    torch.set_num_threads(threads)
    interruption.prepare_worker()


def _run_in_worker(*arguments: Any) -> dict[str, Any]:
    if _stopping.is_set():
        raise interruption.Interrupted(signal.SIGTERM)
    return run(*arguments)
