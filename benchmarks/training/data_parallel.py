"""The parts of a trainer when several processes train together."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.utils.distributed import (
    DistributedLossWrapper,
    DistributedMinerWrapper,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from . import processes
from .samplers import OwnPart


def share(parts: dict[str, Any]) -> dict[str, Any]:
    """The arguments of MetricLossOnly, so that each process gets its part of a batch.

    Args:
        parts: the arguments for a single process, with modules on their device.

    Raises:
        ValueError: a loss has parameters, or the batch cannot be divided.
    """
    for loss in parts["loss_funcs"].values():
        if list(loss.parameters()):
            raise ValueError(
                f"{type(loss).__name__} has parameters, which only one process can train, "
                "not several"
            )
    return {
        **parts,
        "models": {
            name: _data_parallel(model, parts["data_device"])
            for name, model in parts["models"].items()
        },
        "loss_funcs": {
            name: DistributedLossWrapper(loss) for name, loss in parts["loss_funcs"].items()
        },
        "mining_funcs": {
            name: DistributedMinerWrapper(miner)
            for name, miner in parts["mining_funcs"].items()
        },
        "sampler": OwnPart(parts["sampler"], parts["batch_size"]),
        "batch_size": parts["batch_size"] // processes.world_size(),
    }


def _data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    if not list(model.parameters()):
        return model  # all its stages are frozen
    return DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
        # Each process keeps its own batch statistics: broadcasting them in an evaluation
        # would wait forever for the processes that do not evaluate.
        broadcast_buffers=False,
    )
