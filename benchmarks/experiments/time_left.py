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
        self._started = self._validated = 0.0
        self._trained = 0

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
        self._started, self._trained = time.perf_counter(), 0

    def end_epoch(self, steps: int) -> None:
        """So many steps of it are trained and validated."""
        now = time.perf_counter()
        # What is done once, before the first step, is not in the time of a second epoch.
        if self.pace is None and self._trained > 0:
            self.pace = (now - self._validated) / steps
            if processes.is_first():
                print(f"\n{self}", flush=True)
        self._trained += steps
        self._validated = now

    def end_run(self, steps: int) -> None:
        """It is tested, too; a run that had been stopped was trained in part only."""
        if self._trained > 0:
            self.pace = (time.perf_counter() - self._started) / self._trained
        self._runs -= 1
        self._steps -= steps
