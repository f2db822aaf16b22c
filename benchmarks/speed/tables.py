"""What was measured, as tables, and as a figure."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ..reporting.machine import machine
from ..reporting.tables import markdown
from .contestants import LOSSES

BASELINE_BOUNDS = {128: 1.0, 512: 1.25, 2048: 2.0, 8192: 2.0}
"""Batch -> the most that a loss may cost, in units of the baseline's cost."""

MINER_BOUND = 1.1
"""The most that the miner may cost, in units of the baseline's cost."""

SEMIHARD_BOUND = 5.0
"""The most that "semihard" may cost, in units of "hardest"."""

KERNEL_BOUND = 180
"""The most kernels that N-pairs may start, forward and backward."""

KERNELS = "kernels of N-pairs, by batch"

Row = Mapping[str, Any]


def report(
    rows: Sequence[Row],
    many: Sequence[Row],
    kernels: Sequence[Row],
    steps: Sequence[Row],
    embedding_size: int,
    device: str,
) -> str:
    """All tables, and on which machine they were measured."""
    tables = [
        _table(
            rows,
            *("loss", "batch", "m", "PML, ms", "baseline, ms", "Symm, ms"),
            *("Symm / PML", "Symm / baseline", "Symm / floor", "materialized / Symm"),
            *("Symm, MiB", "baseline, MiB", "materialized, MiB"),
        ),
        _table(
            list(_against_bounds(rows, many, kernels)),
            *("bound", "at most", "rows", "within", "missed"),
        ),
        _table(
            many,
            *("batch of", "loss", "PML, ms", "Symm, ms", "semi-hard, ms"),
            *("semi-hard / Symm", "PML, MiB", "Symm, MiB", "semi-hard, MiB"),
        ),
        _table(kernels, KERNELS, "PML", "baseline", "Symm"),
        _table(steps, "whole step, batch 128", "PML, ms", "Symm, ms", "Symm / PML"),
    ]
    where = f"D = {embedding_size}, float32, {_processor(device)}, {machine()}."
    return "\n\n".join([*tables, where]) + "\n"


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


def _against_bounds(
    rows: Sequence[Row], many: Sequence[Row], kernels: Sequence[Row]
) -> Iterator[Row]:
    """How many values are within each bound, and which are not."""
    compared = [row for row in rows if "baseline ms" in row]
    for batch, bound in BASELINE_BOUNDS.items():
        found = {
            f"{row['loss']}, m = {row['m']}": row["Symm ms"] / row["baseline ms"]
            for row in compared
            if row["batch"] == batch and row["loss"] != "miner"
        }
        yield from _against(f"losses / baseline, batch {batch}", bound, found)
    found = {
        f"batch {row['batch']}, m = {row['m']}": row["Symm ms"] / row["baseline ms"]
        for row in compared
        if row["loss"] == "miner"
    }
    yield from _against("miner / baseline", MINER_BOUND, found)
    found = {
        f"{row['loss']}, {row['batch of']}": row["semi-hard ms"] / row["Symm ms"]
        for row in many
    }
    yield from _against("semi-hard / hardest", SEMIHARD_BOUND, found)
    found = {f"batch {row[KERNELS]}": row["Symm"] for row in kernels}
    yield from _against(KERNELS, KERNEL_BOUND, found)


def _against(title: str, bound: float, found: Mapping[str, float]) -> Iterator[Row]:
    if not found:
        return
    missed = [f"{name}: {value:.4g}" for name, value in found.items() if value > bound]
    yield {
        "bound": title,
        "at most": bound,
        "rows": len(found),
        "within": len(found) - len(missed),
        "missed": "; ".join(missed),
    }


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return model[1] if model else platform.processor()


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the time of every loss with two samples per class against the batch size."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(LOSSES), sharey=True)
    for panel, name in zip(panels, LOSSES, strict=True):
        for contestant, style in (
            ("PML", "C0--o"),
            ("baseline", "C3-.o"),
            ("Symm", "C1-o"),
            ("materialized", "C2:o"),
            ("floor", "k-"),
        ):
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
