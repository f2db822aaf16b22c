"""The cost of the losses: PML's, ours, ours on materialized points, and the floor."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from pytorch_metric_learning import losses
from torch import Tensor
from tqdm import tqdm

import pml_symm
from pml_symm.functional import search

from ..models.trunks import small_convnet
from .contestants import CONTESTANTS, LOSSES, both_ways, contestants_of, load
from .measuring import count_kernels, measure
from .tables import KERNELS, draw, report

KERNEL_BATCHES = (128, 2048)

Row = dict[str, Any]


def _at_random(size: int, weights: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(weights, size, replacement=True, generator=generator)


MANY_SAMPLES = {
    "two classes of 64": torch.arange(128) // 64,
    "ten random classes": _at_random(256, torch.ones(10)),
    "64 classes of 4": torch.arange(256) // 4,
    "Zipf-like sizes": _at_random(256, 1 / torch.arange(1.0, 65.0)),
}
"""Name -> labels of a batch with more than two samples of a class."""

# Allocated and freed first, as in a training step. Before a large allocation was freed,
# the C library returns small ones to the system, and zeroing new pages takes longer than
# the loss.
_LARGE_TENSOR_BYTES = 28 << 20


def speed(
    out: Path,
    batches: Sequence[int],
    embedding_size: int,
    seconds: float,
    device: str,
    baseline: Path | None = None,
) -> str:
    """Measure every loss and the miner at every batch size, and write the results.

    Args:
        out: the folder to write to: speed.csv, speed.md and speed.png.
        batches: batch sizes, multiples of four; with two samples of a class, and at 512
            also with four.
        embedding_size: D.
        seconds: how long to repeat a comparison; at least three rounds.
        device: "cpu" or "cuda".
        baseline: a checkout with another version of pml_symm, to measure as well.

    Returns:
        The contents of speed.md.

    Raises:
        ValueError: a batch size is not a multiple of four, there is no such device, or
            baseline has no pml_symm.
    """
    if not batches or any(size < 4 or size % 4 for size in batches):
        raise ValueError(f"batches must be multiples of four, got {list(batches)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device")
    versions = {"Symm": pml_symm}
    if baseline is not None:
        versions["baseline"] = load(baseline)
    out.mkdir(parents=True, exist_ok=True)
    torch.ones(_LARGE_TENSOR_BYTES, dtype=torch.uint8)
    names = [*LOSSES, "miner"]
    rows: list[Row] = []
    many: list[Row] = []
    plan = [(size, 2) for size in batches] + [(512, 4)] * (512 in batches)
    with tqdm(total=(len(plan) + len(MANY_SAMPLES)) * len(names), unit="comparison") as bar:
        for size, m in plan:
            labels = torch.arange(size // m, device=device).repeat_interleave(m)
            for name in names:
                bar.set_description(f"{name}, batch {size}, m = {m}")
                found = contestants_of(name, labels, embedding_size, versions, m)
                row = {"loss": name, "batch": size, "m": m}
                rows.append(row | measure(found, seconds, device))
                bar.update()
        for title, labels in MANY_SAMPLES.items():
            for name in names:
                bar.set_description(f"{name}, {title}")
                found = contestants_of(
                    name, labels.to(device), embedding_size, {"Symm": pml_symm}
                )
                row = {"batch of": title, "loss": name}
                many.append(row | measure(found, seconds, device))
                bar.update()
    kernels = [_kernels(size, embedding_size, versions, device) for size in KERNEL_BATCHES]
    steps = _whole_steps(embedding_size, seconds, device)
    columns = [f"{x} {unit}" for x in CONTESTANTS for unit in ("ms", "spread", "MiB")]
    with (out / "speed.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["loss", "batch", "m", *columns])
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, out / "speed.png")
    text = report(rows, many, kernels, steps, embedding_size, device)
    (out / "speed.md").write_text(text, encoding="utf-8")
    return text


def _kernels(
    size: int, embedding_size: int, versions: dict[str, ModuleType], device: str
) -> Row:
    """How many kernels N-pairs starts, with a promised batch and a GPU's blocks."""
    labels = torch.arange(size // 2, device=device).repeat_interleave(2)
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)
    loss_funcs = {"PML": losses.NPairsLoss()} | {
        version: package.SymmNPairsLoss(samples_per_class=2)
        for version, package in versions.items()
    }
    row: Row = {KERNELS: size}
    with mock.patch.multiple(search, _CANDIDATES={}, _HALVED={}):
        for name, loss_func in loss_funcs.items():
            row[name] = count_kernels(partial(both_ways, loss_func, embeddings, labels))
    return row


def _whole_steps(embedding_size: int, seconds: float, device: str) -> list[Row]:
    """Milliseconds of a training step of the demo's trunk at the paper's batch size."""
    torch.manual_seed(0)
    images = torch.randn(128, 1, 32, 32, device=device)
    labels = torch.arange(64, device=device).repeat_interleave(2)
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
        row = {"whole step, batch 128": name}
        rows.append(row | measure(found, seconds, device))
    return rows
