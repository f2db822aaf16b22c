"""Several processes that train one run: what torchrun starts, or one alone."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

# The others wait while the first one evaluates.
_PATIENCE = timedelta(hours=12)


@contextmanager
def joined() -> Iterator[None]:
    """The processes that torchrun started, as one group, while the block runs.

    Without torchrun, or with one process, nothing is set up.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    finally:
        # Models that are still there would end the process with an abort, now and then.
        gc.collect()
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0 to world_size() - 1."""
    if distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the one that evaluates, records and writes."""
    return rank() == 0


def from_first(make: Callable[[], T]) -> T:
    """What make returns, or raises, in the first process, in all of them."""
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
