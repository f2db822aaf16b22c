"""What is seen while runs are trained: what each of them does, and how long all take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context

from tqdm import tqdm

from ..training import processes


class State:
    """What a run does; told in its own process, and known in that of the command.

    Each change is printed unless a Screen shows it.
    """

    def __init__(self, name: str, is_shown: bool = False) -> None:
        self._name, self._is_shown = name, is_shown
        # Both processes have this memory; without a lock, a killed one blocks nothing.
        self._shared = get_context("spawn").RawArray("c", 80)

    def __str__(self) -> str:
        return f"{self._name}: {self._shared.value.decode()}"

    def tell(self, what: str) -> None:
        """Tell what the run does from now on."""
        if what.encode() == self._shared.value:
            return
        self._shared.value = what.encode()
        if not self._is_shown and processes.is_first():
            _print(str(self))


class Screen:
    """Lines of a terminal: how many runs have ended, and the state of each that is trained.

    Without a terminal each change is printed. The number is that of the runs to be trained.
    """

    def __init__(self, number: int) -> None:
        self._queued = number
        # None: only on a terminal.
        self._all = tqdm(total=number, unit="run", disable=None if number else True)
        self._lines: dict[State, tqdm] = {}

    @contextmanager
    def line(self, name: str) -> Iterator[State]:
        """The state of a run that is not queued any more, until it ends."""
        is_shown = not self._all.disable
        state = State(name, is_shown)
        self._queued -= 1
        state.tell("starting")
        if is_shown:
            # The elapsed time is that of the state.
            self._lines[state] = tqdm(
                desc=str(state), bar_format="{desc}, {elapsed}", leave=False
            )
        try:
            yield state
        finally:
            if is_shown:
                self._lines.pop(state).close()
        self._all.update()
        if not is_shown:
            _print(f"{name}: ended; {self._queued} queued")

    def refresh(self) -> None:
        """Show the states as they are now, and for how long."""
        self._all.set_postfix_str(f"{self._queued} queued")
        for state, line in list(self._lines.items()):
            if line.desc != str(state):
                line.set_description_str(str(state), refresh=False)
                line.reset()
            else:
                line.refresh()

    def close(self) -> None:
        """Leave the number of the runs that have ended on the terminal."""
        self._all.close()


def _print(line: str) -> None:
    # In one piece, because other processes print, too.
    print(f"{time.strftime('%H:%M:%S')} {line}\n", end="", flush=True)


class TimeLeft:
    """An estimate that is updated while runs of so many steps are trained in turn.

    The pace is in seconds per step, or None if it is not known yet.
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
