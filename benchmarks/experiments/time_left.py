"""How long the rest of a plan takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..training import processes


class TimeLeft:
    """An estimate that is updated while runs are trained one after the other.

    Args:
        steps: of each run that is to be trained.
        pace: seconds per step, or None if it is not known yet.
    """

    def __init__(self, steps: Sequence[int], pace: float | None) -> None:
        self._runs, self._steps, self.pace = len(steps), sum(steps), pace
        # Of the current run: a time, and the number of steps until then.
        self._marks: list[tuple[float, int]] = []

    def __str__(self) -> str:
        """'about 12 minutes for 3 runs'; empty if the pace is unknown or no run is left.

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
        """The run has trained this many more steps, and validated."""
        _, before = self._marks[-1]
        self._marks.append((time.perf_counter(), before + steps))
        if self.pace is None and len(self._marks) > 2:
            self._keep_pace()
            if processes.is_first():
                print(f"\n{self}", flush=True)

    def end_run(self, steps: int) -> None:
        """The run ends; a resumed run may have had no step left to train."""
        if len(self._marks) > 1:
            self._keep_pace()
        self._runs -= 1
        self._steps -= steps

    def _keep_pace(self) -> None:
        # Work that is done once for all runs happens before the first validation.
        started, before = self._marks[1 if len(self._marks) > 2 else 0]
        _, trained = self._marks[-1]
        self.pace = (time.perf_counter() - started) / (trained - before)
