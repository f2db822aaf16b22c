"""Time, memory, and the number of kernels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from .contestants import Contestants

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


def measure(contestants: Contestants, seconds: float, device: str) -> dict[str, Any]:
    """For each contestant: median and interquartile range of the time, and the memory."""
    row: dict[str, Any] = {}
    for name, found in _interleaved(contestants, seconds, device).items():
        low, median, high = statistics.quantiles(found, n=4)
        row[f"{name} ms"], row[f"{name} spread"] = median, high - low
        row[f"{name} MiB"] = _peak_memory(contestants[name]) / 2**20
    return row


def _interleaved(
    contestants: Contestants, seconds: float, device: str
) -> dict[str, list[float]]:
    """Milliseconds, measured in turn, so that other load slows all of them equally."""
    wait = torch.cuda.synchronize if device == "cuda" else nullcontext
    for run in contestants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(next(iter(times.values()))) < 3:
        for name, run in contestants.items():
            wait()
            begin = time.perf_counter()
            run()
            wait()
            times[name].append(1000 * (time.perf_counter() - begin))
    return times


def _peak_memory(run: Callable[[], object]) -> int:
    """The peak of bytes held by torch's allocators, above those held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [
        event
        for event in record.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def count_kernels(run: Callable[[], object]) -> int:
    """How many operators compute or copy: on a GPU, small ones take equally long."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        run()
    return sum(
        x.count
        for x in record.key_averages()
        if x.key.startswith("aten::") and x.key.removeprefix("aten::") not in _NO_KERNEL
    )
