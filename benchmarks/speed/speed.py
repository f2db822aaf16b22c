"""The cost of the losses: PML's, ours, ours on materialized points, and the floor."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import pml_symm

from ..reporting.tables import machine, markdown, write, write_csv
from . import measuring
from .measuring import CONTESTANTS, KERNELS, LOSSES

BOUNDS = {
    "losses / baseline, batch 128": 1.0,
    "losses / baseline, batch 512": 1.25,
    "losses / baseline, batch 2048": 2.0,
    "losses / baseline, batch 8192": 2.0,
    "miner / baseline": 1.1,
    "semi-hard / hardest": 5.0,
    KERNELS: 180,
}
"""The most that something may cost, in units of what is named after the slash; and the most
kernels that N-pairs may start, forward and backward."""

KERNEL_BATCHES = (128, 2048)

Row = Mapping[str, Any]


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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measure what the losses cost, compared with PML's own.

    Time forward and backward passes of the losses and the miner. Compare them with PML's
    own losses, with the same losses on materialized synthetic points, and with a lower
    bound: a product of the batch with itself and one more.

    Attributes:
        out: output folder.
        batches: batch sizes.
        embedding_size: dimensions of an embedding.
        seconds: how long to repeat each comparison.
        device: where to compute.
        baseline: a checkout with another version of pml_symm, to measure as well.
    """

    out: Path = Path("runs/speed")
    batches: tuple[int, ...] = (128, 512, 2048, 8192)
    embedding_size: int = 512
    seconds: float = 5.0
    device: Literal["cpu", "cuda"] = "cpu"
    baseline: Path | None = None

    def run(self) -> tuple[str, Path]:
        """Measure, and write speed.csv, speed.md and speed.png.

        Batches have two samples of a class, at 512 also four.

        Raises:
            ValueError: a batch size is not a multiple of four, embedding_size is below 1,
                there is no such device, or baseline has no pml_symm.
        """
        batches, embedding_size, device = self.batches, self.embedding_size, self.device
        if not batches or any(size < 4 or size % 4 for size in batches):
            raise ValueError(f"batches must be multiples of four, got {list(batches)}")
        if embedding_size < 1:
            raise ValueError(f"embedding_size must be at least 1, got {embedding_size}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but torch finds no CUDA device")
        versions = {"Symm": pml_symm}
        if self.baseline is not None:
            versions["baseline"] = measuring.load(self.baseline)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.ones(_LARGE_TENSOR_BYTES, dtype=torch.uint8)
        equal = [(size, 2) for size in batches] + [(512, 4)] * (512 in batches)
        plan = [
            *((f"batch {size}, m = {m}", torch.arange(size) // m, m) for size, m in equal),
            *((title, labels, None) for title, labels in MANY_SAMPLES.items()),
        ]
        rows: list[Row] = []
        many: list[Row] = []
        bar = tqdm([*product(plan, [*LOSSES, "miner"])], unit="comparison")
        for (title, labels, m), name in bar:
            bar.set_description(f"{name}, {title}")
            compared = {"Symm": pml_symm} if m is None else versions
            labels = labels.to(device)
            found = measuring.contestants_of(name, labels, embedding_size, compared, m)
            measured = measuring.measure(found, self.seconds, device)
            if m is None:
                many.append({"batch of": title, "loss": name, **measured})
            else:
                rows.append({"loss": name, "batch": len(labels), "m": m, **measured})
        kernels = [
            measuring.kernels(size, embedding_size, versions, device)
            for size in KERNEL_BATCHES
        ]
        steps = measuring.whole_steps(embedding_size, self.seconds, device)
        columns = [f"{x} {unit}" for x in CONTESTANTS for unit in ("ms", "spread", "MiB")]
        header = ["loss", "batch", "m", *columns]
        lines = ([row.get(x) for x in header] for row in rows)
        write_csv(self.out / "speed.csv", [header, *lines])
        _draw(rows, self.out / "speed.png")
        text = write(
            self.out / "speed.md",
            _table(
                rows,
                *("loss", "batch", "m", "PML, ms", "baseline, ms", "Symm, ms"),
                *("Symm / PML", "Symm / baseline", "Symm / floor", "materialized / Symm"),
                *("Symm, MiB", "baseline, MiB", "materialized, MiB"),
            ),
            markdown(_bound_rows(rows, many, kernels)),
            _table(
                many,
                *("batch of", "loss", "PML, ms", "Symm, ms", "semi-hard, ms"),
                *("semi-hard / Symm", "PML, MiB", "Symm, MiB", "semi-hard, MiB"),
            ),
            _table(kernels, KERNELS, "PML", "baseline", "Symm"),
            _table(steps, "whole step, batch 128", "PML, ms", "Symm, ms", "Symm / PML"),
            f"D = {embedding_size}, float32, {_processor(device)}, {machine()}.",
        )
        return text, self.out


def _table(rows: Sequence[Row], *columns: str) -> str:
    return markdown([columns, *([_cell(row, x) for x in columns] for row in rows)])


def _cell(row: Row, column: str) -> str:
    """A time, a memory, a ratio of times, or what the row has by the column's name."""
    if " / " in column:
        above, below = (row.get(f"{x} ms") for x in column.split(" / "))
        return f"{above / below:.2f}" if above and below else ""
    name, _, unit = column.partition(", ")
    value = row.get(f"{name} {unit}" if unit in ("ms", "MiB") else column, "")
    if unit == "ms" and value:
        return f"{value:.2f} ± {row[f'{name} spread'] / 2:.2f}"
    return f"{value:.1f}" if unit == "MiB" and value != "" else str(value)


def _bound_rows(
    rows: Sequence[Row], many: Sequence[Row], kernels: Sequence[Row]
) -> list[list[str]]:
    """A header, and for each bound how many values are within it, and which are not."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if "baseline ms" in row:
            loss, batch, m = row["loss"], row["batch"], row["m"]
            ratio = row["Symm ms"] / row["baseline ms"]
            if loss == "miner":
                found["miner / baseline"][f"batch {batch}, m = {m}"] = ratio
            else:
                found[f"losses / baseline, batch {batch}"][f"{loss}, m = {m}"] = ratio
    for row in many:
        name = f"{row['loss']}, {row['batch of']}"
        found["semi-hard / hardest"][name] = row["semi-hard ms"] / row["Symm ms"]
    for row in kernels:
        found[KERNELS][f"batch {row[KERNELS]}"] = row["Symm"]
    table = [["bound", "at most", "rows", "within", "missed"]]
    for bound, most in BOUNDS.items():
        if own := found[bound]:
            missed = [f"{name}: {x:.4g}" for name, x in own.items() if x > most]
            numbers = (most, len(own), len(own) - len(missed))
            table.append([bound, *map(str, numbers), "; ".join(missed)])
    return table


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return model[1] if model else platform.processor()


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the time of every loss with two samples per class against the batch size."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(LOSSES), sharey=True)
    styles = {
        "PML": "C0--o",
        "baseline": "C3-.o",
        "Symm": "C1-o",
        "materialized": "C2:o",
        "floor": "k-",
    }
    for panel, name in zip(panels, LOSSES, strict=True):
        for contestant, style in styles.items():
            points = [
                (row["batch"], row[f"{contestant} ms"])
                for row in rows
                if row["loss"] == name and row["m"] == 2 and f"{contestant} ms" in row
            ]
            if points:
                panel.loglog(*zip(*points, strict=True), style, ms=3, label=contestant)
        panel.set_title(name)
        panel.set_xlabel("batch")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("forward + backward, ms")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=len(names), frameon=False
    )
    figure.savefig(path)
