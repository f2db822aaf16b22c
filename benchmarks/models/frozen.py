"""What is frozen of a pre-trained trunk."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .trunks import Trunk


class FixedStatistics(nn.Sequential):
    """Stages that are trained, but normalize with the statistics that they came with.

    Small batches of a new dataset would spoil them: what comes from a frozen stem is
    what they were made for.
    """

    def train(self, mode: bool = True) -> FixedStatistics:
        """torch's, but for batch normalization."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


class StemAndRest(NamedTuple):
    """A trunk in two.

    Attributes:
        stem: its first stages, frozen: for evaluation, without gradients.
        rest: the other stages, to be trained.
    """

    stem: nn.Sequential
    rest: Trunk


def freeze_until(trunk: Trunk, number: int) -> StemAndRest:
    """Freeze the first stages of a trunk.

    Both parts share the stages with the trunk that is given.

    Args:
        trunk: a pre-trained one.
        number: of stages, from none, which leaves the trunk as it is, to all of them,
            which leaves no stage to train.

    Raises:
        ValueError: the trunk has fewer stages.
    """
    stages = trunk.stages
    if not 0 <= number <= len(stages):
        raise ValueError(
            f"freeze_until must be from 0 to {len(stages)}, the number of this trunk's "
            f"stages, got {number}"
        )
    if number == 0:
        return StemAndRest(nn.Sequential(), trunk)
    stem = nn.Sequential(*list(stages)[:number]).eval().requires_grad_(False)
    return StemAndRest(stem, trunk._replace(stages=FixedStatistics(*list(stages)[number:])))
