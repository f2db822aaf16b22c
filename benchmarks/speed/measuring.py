"""What is measured, the losses and what they are compared with, and how."""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from pytorch_metric_learning import losses
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import pml_symm
from pml_symm.functional import search

from ..models.trunks import small_convnet

LOSSES = {
    "N-pairs": ("NPairsLoss", 1 << 20),
    "triplet": ("TripletMarginLoss", 512),
    "lifted": ("LiftedStructureLoss", 128),
    "angular": ("AngularLoss", 2048),
}
"""Name -> PML's class, and the largest batch at which it can be measured: PML's triplet
loss needs memory for every three samples, its lifted and angular losses for every two
pairs."""

KERNELS = "kernels of N-pairs, by batch"
STEP_BATCH = 128  # the paper's

CONTESTANTS = ("floor", "PML", "baseline", "Symm", "materialized", "semi-hard")

Contestants = Mapping[str, Callable[[], object]]

# It computes sixteen products where ours computes one.
_LARGEST_MATERIALIZED = 2048

# Operators that start no kernel: views, allocations, and wrappers around another operator.
_NO_KERNEL = {
    *("_has_compatible_shallow_copy_type", "_local_scalar_dense", "_reshape_alias"),
    *("_to_copy", "_unsafe_view", "_assert_async", "alias", "as_strided", "can_cast"),
    *("chunk", "clone", "contiguous", "detach", "detach_", "diagonal", "einsum"),
    *("empty", "empty_like", "empty_strided", "expand", "expand_as", "flatten", "full"),
    *("is_nonzero", "item", "lift_fresh", "linear", "mT", "matmul", "movedim"),
    *("narrow", "new_empty", "new_ones", "new_zeros", "normalize", "numpy_T", "ones"),
    *("ones_like", "permute", "requires_grad_", "reshape", "resize_", "resolve_conj"),
    *("resolve_neg", "result_type", "select", "set_data", "slice", "split"),
    *("split_with_sizes", "squeeze", "swapaxes", "t", "to", "transpose", "unbind"),
    *("unflatten", "unsafe_split", "unsqueeze", "view", "view_as", "zeros"),
    "zeros_like",
}


class Materialized(pml_symm.SymmSynthesizer):
    """A subclass may make any points, so the losses make its points as tensors."""


def load(checkout: Path) -> ModuleType:
    """pml_symm of another checkout, in addition to the imported one.

    Raises:
        ValueError: checkout has no pml_symm.
    """
    folder = checkout / "pml_symm"
    if not (folder / "__init__.py").is_file():
        raise ValueError(f"baseline must be a checkout with pml_symm, got {checkout}")
    spec = importlib.util.spec_from_file_location(
        "pml_symm_baseline", folder / "__init__.py"
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return package


def contestants_of(
    name: str,
    labels: Tensor,
    embedding_size: int,
    versions: Mapping[str, ModuleType],
    m: int | None = None,
) -> Contestants:
    """A loss (a key of LOSSES) or "miner" of every version, and what to compare it with.

    Every class of the batch has m samples, or another number if m is None.
    """
    torch.manual_seed(0)
    size, device = len(labels), labels.device
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)

    def ours(package: ModuleType, **arguments: Any) -> Callable[[], object]:
        if name == "miner":
            return partial(package.SymmMiner(**arguments), embeddings, labels)
        if m is not None and device.type == "cuda":
            arguments["samples_per_class"] = m
        loss_func = getattr(package, f"Symm{LOSSES[name][0]}")(**arguments)
        return partial(both_ways, loss_func, embeddings, labels)

    points = embeddings.detach()
    found: dict[str, Callable[[], object]] = {"floor": lambda: points @ points.t() @ points}
    found |= {version: ours(package) for version, package in versions.items()}
    if name != "miner" and size <= LOSSES[name][1]:
        theirs = getattr(losses, LOSSES[name][0])()
        found["PML"] = partial(both_ways, theirs, embeddings, labels)
    if m is None:
        found["semi-hard"] = ours(pml_symm, hardness="semihard")
    elif size <= _LARGEST_MATERIALIZED:
        found["materialized"] = ours(pml_symm, synthesizer=Materialized())
    return found


def both_ways(loss_func: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> None:
    """One forward and one backward pass."""
    embeddings.grad = None
    loss_func(embeddings, labels).backward()


def measure(contestants: Contestants, seconds: float, device: str) -> dict[str, Any]:
    """For each contestant: median and interquartile range of the time, and the memory.

    Times are in milliseconds. All run in turn, so that other load slows them equally; and
    forwards and backwards, because each finds in the cache what the one before it used.
    """
    wait = torch.cuda.synchronize if device == "cuda" else nullcontext
    for run in contestants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    turn = list(contestants.items())
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(next(iter(times.values()))) < 3:
        turn.reverse()
        for name, run in turn:
            wait()
            begin = time.perf_counter()
            run()
            wait()
            times[name].append(1000 * (time.perf_counter() - begin))
    row: dict[str, Any] = {}
    for name, found in times.items():
        low, median, high = statistics.quantiles(found, n=4)
        row[f"{name} ms"], row[f"{name} spread"] = median, high - low
        row[f"{name} MiB"] = _peak_memory(contestants[name]) / 2**20
    return row


def _peak_memory(run: Callable[[], object]) -> int:
    """The peak of bytes held by torch's allocators, above those held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = record.profiler.kineto_results.events()
    changes = [
        event.nbytes()
        for event in sorted(events, key=lambda event: event.start_ns())
        if event.name() == "[memory]"
    ]
    return max(accumulate(changes, initial=0))


def kernels(
    size: int, embedding_size: int, versions: Mapping[str, ModuleType], device: str
) -> dict[str, Any]:
    """How many kernels N-pairs starts, with a promised batch and a GPU's blocks."""
    labels = torch.arange(size, device=device) // 2
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)
    loss_funcs = {"PML": losses.NPairsLoss()} | {
        version: package.SymmNPairsLoss(samples_per_class=2)
        for version, package in versions.items()
    }
    row: dict[str, Any] = {KERNELS: size}
    with mock.patch.multiple(search, _CANDIDATES={}, _HALVED={}):
        for name, loss_func in loss_funcs.items():
            row[name] = _count_kernels(partial(both_ways, loss_func, embeddings, labels))
    return row


def _count_kernels(run: Callable[[], object]) -> int:
    """How many operators compute or copy: on a GPU, small ones take equally long."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        run()
    return sum(
        x.count
        for x in record.key_averages()
        if x.key.startswith("aten::") and x.key.removeprefix("aten::") not in _NO_KERNEL
    )


def whole_steps(embedding_size: int, seconds: float, device: str) -> list[dict[str, Any]]:
    """Milliseconds of a training step of the demo's trunk at the paper's batch size."""
    torch.manual_seed(0)
    images = torch.randn(STEP_BATCH, 1, 32, 32, device=device)
    labels = torch.arange(STEP_BATCH, device=device) // 2
    model = torch.nn.Sequential(
        small_convnet(), torch.nn.Linear(64 * 32, embedding_size)
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters())

    def step(loss_func: torch.nn.Module) -> None:
        optimizer.zero_grad()
        loss_func(model(images), labels).backward()
        optimizer.step()

    rows = []
    for name, (class_name, _) in LOSSES.items():
        found = {
            "PML": partial(step, getattr(losses, class_name)()),
            "Symm": partial(step, getattr(pml_symm, f"Symm{class_name}")()),
        }
        rows.append({"whole step, batch 128": name, **measure(found, seconds, device)})
    return rows
