"""A base loss for the first steps, and a Symm loss after them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class BaseLossFirst(nn.Module):
    """Two losses, one after the other: Symm's terms are hardest at the start of training.

    Args:
        base: the loss of the first steps.
        symm: the loss of the later steps.
        steps: how many steps base has.

    Attributes:
        base, symm, steps: as given.
        done: how many steps are done; a number in the state, so that a run continues.
    """

    def __init__(self, base: nn.Module, symm: nn.Module, steps: int) -> None:
        super().__init__()
        self.base, self.symm, self.steps = base, symm, steps
        self.done = 0

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of a step."""
        loss = self.base if self.done < self.steps else self.symm
        self.done += 1
        return loss(*args, **kwargs)

    def get_extra_state(self) -> int:
        """What state_dict has in addition to the losses' own."""
        return self.done

    def set_extra_state(self, state: int) -> None:
        """Continue from what get_extra_state returned."""
        self.done = state
