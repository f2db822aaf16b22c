"""A plan of runs: which are finished, and training the others."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import torch
from tqdm import tqdm

from ..reporting import tables
from ..training import interruption, processes
from ..training.records import DATABASE, read
from ..training.run import run
from ..training.settings import CommonSettings, Settings, Source
from .command import Command


class PlannedRun(NamedTuple):
    """A run that is finished, or to be trained.

    Attributes:
        label: what its row of a table is called.
        folder: where it is.
        settings: what it depends on.
    """

    label: str
    folder: Path
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Runs(Command):
    """A command that trains runs.

    Attributes:
        force: train finished runs again, too. Without it they are not trained again, and
            one that was stopped goes on where it was, or after its last validation.
        jobs: runs at a time, each in a process of its own; they share the cores.
        dry_run: say what would be trained, and stop.
        preset: take the settings of a file in benchmarks/presets; flags go before them.
        settings: what all runs share.
        source: where a dataset of photographs is.
    """

    force: bool = False
    jobs: int = 1
    dry_run: bool = False
    preset: Literal["paper"] | None = None
    settings: CommonSettings = field(default_factory=CommonSettings)
    source: Source = field(default_factory=Source)

    def shared(self) -> dict[str, Any]:
        """Fields of Settings that all runs have."""
        return vars(self.settings)

    def planned(self, label: str, **own: Any) -> PlannedRun:
        """A run, with fields of Settings that it has of its own.

        Raises:
            ValueError: settings that do not fit.
        """
        settings = Settings(**{**self.shared(), **own})
        # Every file system takes these names.
        name = re.sub(r"[^a-z0-9.+=()-]+", "", label.lower().replace(", ", "-"))
        folder = self.destination / f"{name}-seed{settings.seed}"
        return PlannedRun(label, folder, settings)

    def train(self, plan: Sequence[PlannedRun]) -> list[dict[str, Any]]:
        """Train what is not finished, and give the results of all, in the plan's order.

        Raises:
            ValueError: jobs below 1, or above where several processes train one run.
        """
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.jobs == 1:
            return self._train_in_turn(plan)
        if processes.world_size() > 1:
            raise ValueError(
                f"jobs must be 1 where several processes train, got {self.jobs}"
            )
        return self._train_together(plan)

    def _train_in_turn(self, plan: Sequence[PlannedRun]) -> list[dict[str, Any]]:
        results = []
        for number, (label, folder, settings) in enumerate(plan, start=1):
            if processes.is_first():
                print(
                    f"\nrun {number} of {len(plan)}: {label}, seed {settings.seed}",
                    flush=True,
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            results.append(run(settings, folder, self.force, self.source))
        return results

    def _train_together(self, plan: Sequence[PlannedRun]) -> list[dict[str, Any]]:
        self.destination.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        with (
            # The bars of several runs at a time would overwrite each other.
            mock.patch.dict(os.environ, TQDM_DISABLE="1"),
            ProcessPoolExecutor(
                self.jobs, get_context("spawn"), _prepare_worker, (threads,)
            ) as pool,
            interruption.passed_to_children(),
        ):
            try:
                futures = [
                    pool.submit(run, settings, folder, self.force, self.source)
                    for _, folder, settings in plan
                ]
                for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
                    future.result()  # raises what the run raised
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]


def describe(plan: Sequence[PlannedRun]) -> str:
    """Which runs of a plan are finished, and which would be trained."""
    rows = [["run", "", "batches"]]
    rows += [
        [
            str(folder),
            "finished" if read(folder.parent / DATABASE, folder.name) else "to train",
            str(settings.steps),
        ]
        for _, folder, settings in plan
    ]
    return tables.markdown(rows) + "\n"


def _prepare_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    interruption.prepare_worker()
