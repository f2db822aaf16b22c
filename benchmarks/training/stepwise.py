"""PML's trainers, so that they can stop between two steps, and go on there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import common_functions as c_f

from . import checkpoint, random_state


class StepwiseMixin(BaseTrainer):
    """Comes before a PML trainer: it can stop between two steps, and go on there.

    The epoch that was stopped is gone through again from its start without training, so
    that its batches are the same, until the step where it stopped.

    Args:
        before_step: called with the trainer before each step; may raise to stop.
    """

    def __init__(
        self,
        *args: Any,
        before_step: Callable[[BaseTrainer], object] = c_f.return_input,
        **kwargs: Any,
    ) -> None:
        self._before_step = before_step
        self._within: dict[str, Any] | None = None
        super().__init__(*args, **kwargs)

    def go_on_within(self, state: dict[str, Any]) -> None:
        """Train from where checkpoint.save wrote this, in the epoch that is next."""
        self._within = state

    @property
    def is_repeating(self) -> bool:
        """Whether the current step has been trained already."""
        return self._within is not None and self.iteration < self._within["iteration"]

    def forward_and_backward(self) -> None:
        """PML's step."""
        if self.is_repeating:
            self.zero_losses()
            self.get_batch()
            return
        if self._within is not None:
            checkpoint.restore(self._within, self)
            random_state.restore(self._within["random"])
            self._within = None
        self._before_step(self)
        super().forward_and_backward()

    def step_lr_schedulers(self, end_of_epoch: bool = False) -> None:
        """PML's, but for steps that are repeated."""
        if not self.is_repeating:
            super().step_lr_schedulers(end_of_epoch)
