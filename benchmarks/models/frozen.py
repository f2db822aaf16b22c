"""Freezing the first stages of a pre-trained trunk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .trunks import Trunk


class FixedStatistics(nn.Sequential):
    """Stages that are trained, but normalize with their pre-trained statistics.

    Small batches of a new dataset would make the statistics worse: they already fit the
    output of a frozen stem.
    """

    def train(self, mode: bool = True) -> FixedStatistics:
        """As torch.nn.Module.train, but batch normalization stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """From the stem's output, shape (B, ...), to features of shape (B, F)."""
        if features.ndim == 4:
            # A stem's output is kept with the channels first; a step on a CPU is 1.15
            # times as fast with the channels last, as the convolutions' weights are.
            features = features.contiguous(memory_format=torch.channels_last)
        return super().forward(features)


class StemAndRest(NamedTuple):
    """A trunk in two parts.

    Attributes:
        stem: its first stages, frozen: in evaluation mode, without gradients.
        rest: the other stages, to be trained.
    """

    stem: nn.Sequential
    rest: Trunk


def freeze_until(trunk: Trunk, number: int) -> StemAndRest:
    """Freeze the first stages of a trunk.

    Both parts share their stages with the given trunk.

    Args:
        trunk: a pre-trained one.
        number: how many stages to freeze, from none, which leaves the trunk unchanged, to
            all, which leaves no stage to train.

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
