"""The processes that train one run together: those that torchrun started, or one."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from pytorch_metric_learning.utils.distributed import (
    DistributedLossWrapper,
    DistributedMinerWrapper,
)
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

T = TypeVar("T")

# The other processes wait while the first one evaluates.
_PATIENCE = timedelta(hours=12)


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if any, while the block runs."""
    # Without a rank, nobody started the others.
    started = int(os.environ.get("WORLD_SIZE") or 1) if "RANK" in os.environ else 1
    if started == 1 or distributed.is_initialized():
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        # Models that still exist here would sometimes abort the process at its end.
        gc.collect()
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0 to world_size() - 1."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that evaluates, records and writes."""
    return rank() == 0


def from_first(make: Callable[[], T]) -> T:
    """Call make in the first process; return its result, or raise its error, in all."""
    if world_size() == 1:
        return make()
    answer: list[Any] = [None, None]
    if is_first():
        try:
            answer[0] = make()
        except Exception as error:
            answer[1] = error
    distributed.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def any_of_them(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)


def share(parts: dict[str, Any]) -> dict[str, Any]:
    """From arguments of MetricLossOnly, those with which each process has its part.

    Raises:
        ValueError: a loss has parameters, or the batch cannot be divided.
    """
    for loss in parts["loss_funcs"].values():
        if list(loss.parameters()):
            raise ValueError(
                f"{type(loss).__name__} has parameters, which only one process can train, "
                "not several"
            )
    wrappers = {
        "models": _data_parallel,
        "loss_funcs": DistributedLossWrapper,
        "mining_funcs": DistributedMinerWrapper,
    }
    shared = {
        part: {name: wrap(module) for name, module in parts[part].items()}
        for part, wrap in wrappers.items()
    }
    sampler = OwnPart(parts["sampler"], parts["batch_size"])
    own_size = parts["batch_size"] // world_size()
    return {**parts, **shared, "sampler": sampler, "batch_size": own_size}


def _data_parallel(model: nn.Module) -> nn.Module:
    if not list(model.parameters()):
        return model  # all its stages are frozen
    is_on_gpu = next(model.parameters()).is_cuda
    return DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if is_on_gpu else None,
        # Each process keeps its own batch statistics: broadcasting them in an evaluation
        # would wait forever for the processes that do not evaluate.
        broadcast_buffers=False,
    )


class OwnPart(Sampler[int]):
    """This process's part of each batch that a sampler draws.

    The first process draws, so that all processes have parts of the same batches. The
    batch_size is that of all parts together, a multiple of the world size.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        if batch_size % world_size():
            raise ValueError(
                f"batch_size must be a multiple of the {world_size()} processes, got "
                f"{batch_size}"
            )
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        return len(self.sampler) // world_size()  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        rows = from_first(lambda: list(self.sampler))
        size = self.batch_size // world_size()
        for start in range(rank() * size, len(rows), self.batch_size):
            yield from rows[start : start + size]
