"""How long what is left of a plan takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..training import processes


class TimeLeft:
    """An estimate that follows runs which are trained one after the other.

    Args:
        steps: of each run that is to be trained.
        pace: seconds a step, or None if nothing is known yet.
    """

    def __init__(self, steps: Sequence[int], pace: float | None) -> None:
        self._runs, self._steps, self.pace = len(steps), sum(steps), pace
        # Of the current run: when, and after how many steps.
        self._marks: list[tuple[float, int]] = []

    def __str__(self) -> str:
        """'about 12 minutes for 3 runs'; empty if nothing is known or to be trained.

        >>> str(TimeLeft([100, 200], pace=0.5))
        'about 2 minutes for 2 runs'
        """
        if self.pace is None or self._runs == 0:
            return ""
        minutes = max(1, round(self.pace * self._steps / 60))
        return (
            f"about {minutes:,} minute{'s' * (minutes > 1)} for {self._runs} "
            f"run{'s' * (self._runs > 1)}"
        )

    def start_run(self) -> None:
        """A run starts."""
        self._marks = [(time.perf_counter(), 0)]

    def end_epoch(self, steps: int) -> None:
        """So many steps of it are trained and validated."""
        _, before = self._marks[-1]
        self._marks.append((time.perf_counter(), before + steps))
        if self.pace is None and len(self._marks) > 2:
            self._keep_pace()
            if processes.is_first():
                print(f"\n{self}", flush=True)

    def end_run(self, steps: int) -> None:
        """It is tested, too; if it had been stopped, it may not have trained at all."""
        if len(self._marks) > 1:
            self._keep_pace()
        self._runs -= 1
        self._steps -= steps

    def _keep_pace(self) -> None:
        # What is done once, for all runs, is done before the first validation.
        started, before = self._marks[1 if len(self._marks) > 2 else 0]
        _, trained = self._marks[-1]
        self.pace = (time.perf_counter() - started) / (trained - before)
