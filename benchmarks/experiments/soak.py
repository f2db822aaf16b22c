"""A long run in one process, to see that nothing leaks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..reporting import tables
from ..training.run import run
from ..training.settings import Settings
from .command import MethodName

WARM_UP = 0.2  # of the validations: until then caches and pools fill


class Usage(NamedTuple):
    """What a process uses after some steps: resident MiB, open handles, threads."""

    step: int
    memory: float
    files: int
    threads: int


def usage(step: int) -> Usage:
    """The resources that this process uses, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files, threads = (len(os.listdir(f"/proc/self/{x}")) for x in ("fd", "task"))
    return Usage(step, memory, files, threads)


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Train for long in one process, and write what it uses after each validation.

    If memory, open files or threads keep growing, something leaks. Needs Linux.

    Attributes:
        out: output folder.
        steps: batches to train on.
        test_interval: how often to validate, in steps; divides steps.
        method: what to train.
        force: start again, even if there is a run.
    """

    out: Path = Path("runs/soak")
    steps: int = 20_000
    test_interval: int = 500
    method: MethodName = "Symm + N-pairs"
    force: bool = False

    def run(self) -> tuple[str, Path]:
        """Train, and write the run, table.csv and table.md.

        Raises:
            ValueError: settings are invalid, there is a run already: what it used
                before it stopped is not known; or it diverged at once.
        """
        settings = Settings(
            self.method, 0, steps=self.steps, test_interval=self.test_interval
        )
        folder = self.out / "run"
        if folder.exists() and not self.force:
            raise ValueError(f"{folder} exists already: choose another --out, or --force")
        found: list[Usage] = []
        run(
            settings,
            folder,
            self.force,
            after_epoch=lambda: found.append(usage((len(found) + 1) * self.test_interval)),
        )
        if not found:
            raise ValueError(f"{folder} diverged before its first validation")
        tables.write_csv(self.out / "table.csv", [Usage._fields, *found])
        warm = found[int(WARM_UP * len(found)) :]
        first, last = warm[0], warm[-1]
        rows = [["step", "memory, MiB", "open files", "threads"]]
        for x in [*found[:: max(1, len(found) // 8)][:-1], last]:
            rows.append([f"{x.step:,}", f"{x.memory:,.0f}", str(x.files), str(x.threads)])
        growth = 100 * (last.memory / first.memory - 1)
        text = tables.write(
            self.out / "table.md",
            f"{settings.method}, {settings.steps:,} steps of batch {settings.batch_size} "
            "in one process.",
            tables.markdown(rows),
            f"From step {first.step:,} on memory grew by {growth:+.2f} %, open files by "
            f"{last.files - first.files:+d}, threads by {last.threads - first.threads:+d}.",
            f"Machine: {tables.machine()}.",
        )
        return text, self.out
