"""PML's trainers, able to stop between two steps and to continue there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import common_functions as c_f

from . import checkpoint, processes, random_state
from .divergence import DivergedError


class StepwiseMixin(BaseTrainer):
    """Mixed into a PML trainer: it can stop between two steps, and continue there.

    A resumed epoch draws its batches again from the start, without training on them until
    the step where it stopped, so that the batches after it are the same.

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
        """Continue the next epoch after the step at which checkpoint.save wrote state."""
        self._within = state

    @property
    def is_repeating(self) -> bool:
        """Whether the current step has been trained already."""
        return self._within is not None and self.iteration < self._within["iteration"]

    def forward_and_backward(self) -> None:
        """PML's step; a step that was trained already only draws its batch.

        Raises:
            DivergedError: the loss is not finite.
        """
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
        if processes.any_of_them(not self.losses["total_loss"].isfinite()):
            raise DivergedError("the loss")

    def step_lr_schedulers(self, end_of_epoch: bool = False) -> None:
        """As PML, but not for repeated steps."""
        if not self.is_repeating:
            super().step_lr_schedulers(end_of_epoch)
