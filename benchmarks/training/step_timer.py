"""How long the steps of a training run take."""

from __future__ import annotations

import time
from collections.abc import Callable

from .stepwise import StepwiseMixin


class StepTimer:
    """An end_of_iteration_hook that records the seconds between its calls.

    Args:
        hook: another end_of_iteration_hook; its time does not count.

    Attributes:
        seconds: of each step except the first of an epoch.
    """

    def __init__(self, hook: Callable[[StepwiseMixin], object]) -> None:
        self.hook = hook
        self.seconds: list[float] = []
        self._last: float | None = None

    def __call__(self, trainer: StepwiseMixin) -> None:
        """Record the time of this step, then call the wrapped hook outside that time."""
        if trainer.is_repeating:
            return
        now = time.perf_counter()
        # The time before an epoch's first step includes an evaluation.
        if self._last is not None and trainer.iteration > 0:
            self.seconds.append(now - self._last)
        self.hook(trainer)
        self._last = time.perf_counter()
