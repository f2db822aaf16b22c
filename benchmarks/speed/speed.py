"""The cost of the losses: PML's, ours, ours on materialized points, and the floor."""

from __future__ import annotations

import csv
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytorch_metric_learning
import torch
from matplotlib.figure import Figure
from pytorch_metric_learning import losses
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

import pml_symm

from ..models.trunks import small_convnet
from ..reporting.tables import markdown
from .materialized import materialized

LOSSES = {
    "N-pairs": ("NPairsLoss", 1 << 20),
    "triplet": ("TripletMarginLoss", 512),
    "lifted": ("LiftedStructureLoss", 128),
    "angular": ("AngularLoss", 2048),
}
"""Name -> PML's class, and the largest batch at which it can be measured: PML's triplet
loss needs memory for every three samples, its lifted and angular losses for every two
pairs."""

FLOOR_BOUNDS = {"N-pairs": 2.5, "triplet": 2.5, "lifted": 2.5, "angular": 4.0}
"""Loss -> the most that ours may cost, in units of the floor, from batch 512 on."""

BASELINE_BOUND = 1.35
"""The most that ours may cost, in units of the baseline's cost."""


def _at_random(size: int, weights: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(weights, size, replacement=True, generator=generator)


MANY_SAMPLES = {
    "two classes of 64": torch.arange(128) // 64,
    "ten random classes": _at_random(256, torch.ones(10)),
    "Zipf-like sizes": _at_random(256, 1 / torch.arange(1.0, 65.0)),
}
"""Name -> labels of a batch with many samples of a class."""

# Allocated and freed first, as in a training step. Before a large allocation was freed,
# the C library returns small ones to the system, and zeroing new pages takes longer than
# the loss.
_LARGE_TENSOR_BYTES = 28 << 20

_PARTS = {
    "matrix products": {"mm", "bmm", "addmm", "addmm_", "baddbmm_"},
    "winner": {"max_pool2d_with_indices", "max", "topk"},
    "lookups": {"gather", "index_select", "index"},
    "copies": {"copy_", "cat", "fill_", "zero_"},
}
"""Column of the profile -> the operators that it sums up."""

# The materialized version stores every candidate: at 8192 it needs ten gigabytes.
_LARGEST_MATERIALIZED = 2048

Row = dict[str, Any]


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
        versions["baseline"] = _load(baseline)
    out.mkdir(parents=True, exist_ok=True)
    torch.ones(_LARGE_TENSOR_BYTES, dtype=torch.uint8)
    plan = [(size, 2) for size in batches] + [(512, 4)] * (512 in batches)
    rows: list[Row] = []
    names = [*LOSSES, "miner"]
    total = (len(plan) + len(MANY_SAMPLES)) * len(names) + 2
    many: list[Row] = []
    with tqdm(total=total, unit="comparison") as bar:
        for size, m in plan:
            labels = torch.arange(size // m, device=device).repeat_interleave(m)
            for name in names:
                bar.set_description(f"{name}, batch {size}, m = {m}")
                contestants = _contestants(name, labels, embedding_size, versions, m)
                row: Row = {"loss": name, "batch": size, "m": m}
                rows.append(row | _measure(contestants, seconds, device))
                bar.update()
        for title, labels in MANY_SAMPLES.items():
            for name in names:
                bar.set_description(f"{name}, {title}")
                contestants = _contestants(
                    name, labels.to(device), embedding_size, {"Symm": pml_symm}
                )
                row = {"batch of": title, "loss": name}
                many.append(row | _measure(contestants, seconds, device))
                bar.update()
        bar.set_description("whole steps")
        steps = _whole_steps(embedding_size, seconds, device)
        bar.update()
        bar.set_description("profiles")
        profiles = [
            _profile(version, package, name, size, embedding_size, device)
            for size in batches
            for name in LOSSES
            for version, package in versions.items()
        ]
        bar.update()
    with (out / "speed.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _draw(rows, out / "speed.png")
    text = _report(rows, many, steps, profiles, embedding_size, device)
    (out / "speed.md").write_text(text, encoding="utf-8")
    return text


def _load(checkout: Path) -> ModuleType:
    """pml_symm of another checkout, in addition to the imported one."""
    folder = checkout / "pml_symm"
    if not (folder / "__init__.py").is_file():
        raise ValueError(f"baseline must be a checkout with pml_symm, got {checkout}")
    spec = importlib.util.spec_from_file_location(
        "pml_symm_baseline",
        folder / "__init__.py",
        submodule_search_locations=[str(folder)],
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    return package


def _contestants(
    name: str,
    labels: Tensor,
    embedding_size: int,
    versions: Mapping[str, ModuleType],
    m: int | None = None,
) -> dict[str, Callable[[], object]]:
    """What is timed: a loss or the miner of every version, and what to compare it with."""
    torch.manual_seed(0)
    size, device = len(labels), labels.device
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)
    contestants: dict[str, Callable[[], object]] = {
        "floor": lambda: _floor(embeddings.detach())
    }
    for version, package in versions.items():
        if name == "miner":
            contestants[version] = partial(package.SymmMiner(), embeddings, labels)
            continue
        promised = {"samples_per_class": m} if device.type == "cuda" and m else {}
        ours = getattr(package, f"Symm{LOSSES[name][0]}")(**promised)
        contestants[version] = partial(_both_ways, ours, embeddings, labels)
    if name != "miner" and size <= LOSSES[name][1]:
        theirs = getattr(losses, LOSSES[name][0])()
        contestants["PML"] = partial(_both_ways, theirs, embeddings, labels)
    if m is not None and size <= _LARGEST_MATERIALIZED:
        on_originals = contestants["Symm"]

        def on_points() -> None:
            with materialized():
                on_originals()

        contestants["materialized"] = on_points
    return contestants


def _measure(
    contestants: Mapping[str, Callable[[], object]], seconds: float, device: str
) -> Row:
    times = _interleaved(contestants, seconds, device)
    row: Row = {}
    for contestant in ("floor", "PML", "baseline", "Symm", "materialized"):
        found = times.get(contestant)
        quartiles = statistics.quantiles(found, n=4) if found else None
        row[f"{contestant} ms"] = statistics.median(found) if found else None
        row[f"{contestant} spread"] = quartiles[2] - quartiles[0] if quartiles else None
        row[f"{contestant} MiB"] = (
            _peak_memory(contestants[contestant]) / 2**20 if found else None
        )
    return row


def _both_ways(loss_func: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> None:
    embeddings.grad = None
    loss_func(embeddings, labels).backward()


def _floor(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.t()) @ embeddings


def _interleaved(
    contestants: Mapping[str, Callable[[], object]], seconds: float, device: str
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


def _profile(
    version: str,
    package: ModuleType,
    name: str,
    size: int,
    embedding_size: int,
    device: str,
) -> Row:
    """How many operators a loss calls, and each part's share of their time."""
    torch.manual_seed(0)
    embeddings = torch.randn(size, embedding_size, device=device, requires_grad=True)
    labels = torch.arange(size // 2, device=device).repeat_interleave(2)
    loss_func = getattr(package, f"Symm{LOSSES[name][0]}")()
    _both_ways(loss_func, embeddings, labels)
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        _both_ways(loss_func, embeddings, labels)
    operators = [x for x in record.key_averages() if x.key.startswith("aten::")]
    times = {
        x.key.removeprefix("aten::"): (
            x.self_device_time_total if device == "cuda" else x.self_cpu_time_total
        )
        for x in operators
    }
    total = sum(times.values())
    row: Row = {
        "loss": name if version == "Symm" else f"{name}, {version}",
        "batch": size,
        "operators": sum(x.count for x in operators),
    }
    for part, members in _PARTS.items():
        row[part] = sum(times.get(member, 0) for member in members) / total
    row["all else"] = 1 - sum(row[part] for part in _PARTS)
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
        pair = {
            "PML": getattr(losses, class_name)(),
            "Symm": getattr(pml_symm, f"Symm{class_name}")(),
        }
        times = _interleaved(
            {key: partial(step, loss_func) for key, loss_func in pair.items()},
            seconds,
            device,
        )
        rows.append(
            {"loss": name} | {key: statistics.median(x) for key, x in times.items()}
        )
    return rows


def _draw(rows: Sequence[Row], path: Path) -> None:
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
                if row["loss"] == name and row["m"] == 2 and row[f"{contestant} ms"]
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


def _report(
    rows: Sequence[Row],
    many: Sequence[Row],
    steps: Sequence[Row],
    profiles: Sequence[Row],
    embedding_size: int,
    device: str,
) -> str:
    table = [
        [
            *("loss", "batch", "m", "PML, ms", "baseline, ms", "Symm, ms"),
            *("Symm / PML", "Symm / baseline", "Symm / floor", "materialized / Symm"),
            *("memory: Symm, MiB", "baseline, MiB", "materialized, MiB"),
        ]
    ]
    for row in rows:
        ours = row["Symm ms"]
        made = row["materialized ms"]
        table.append(
            [
                *(row["loss"], str(row["batch"]), str(row["m"])),
                *(_timing(row, x) for x in ("PML", "baseline", "Symm")),
                *(_ratio(row, x) for x in ("PML", "baseline", "floor")),
                f"{made / ours:.1f}" if made else "",
                *(_memory(row, x) for x in ("Symm", "baseline", "materialized")),
            ]
        )
    bounds = [["", "rows", "within", "of these, missed"]]
    bounds += _against_bounds(rows)
    of_many = [["batch of", "loss", "PML, ms", "Symm, ms", "PML, MiB", "Symm, MiB"]]
    of_many += [
        [
            *(row["batch of"], row["loss"]),
            *(_timing(row, x) for x in ("PML", "Symm")),
            *(_memory(row, x) for x in ("PML", "Symm")),
        ]
        for row in many
    ]
    whole = [["whole step, batch 128", "PML, ms", "Symm, ms", "Symm / PML"]]
    whole += [
        [x["loss"], f"{x['PML']:.1f}", f"{x['Symm']:.1f}", f"{x['Symm'] / x['PML']:.3f}"]
        for x in steps
    ]
    shares = [["profile of", "batch", "operators", *_PARTS, "all else"]]
    shares += [
        [x["loss"], str(x["batch"]), str(x["operators"])]
        + [f"{100 * x[part]:.0f} %" for part in (*_PARTS, "all else")]
        for x in profiles
    ]
    versions = (
        f"D = {embedding_size}, float32, {_machine(device)}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, "
        f"pytorch-metric-learning {pytorch_metric_learning.__version__}."
    )
    tables = [table, *([bounds] if len(bounds) > 1 else []), of_many, whole, shares]
    return "\n\n".join([*map(markdown, tables), versions]) + "\n"


def _against_bounds(rows: Sequence[Row]) -> list[list[str]]:
    """How many rows are within each bound, and which rows are not."""
    found = []
    compared = [row for row in rows if row["baseline ms"]]
    if compared:
        ratios = [row["Symm ms"] / row["baseline ms"] for row in compared]
        missed = [
            f"{row['loss']} {row['batch']}" + f", m = {row['m']}" * (row["m"] != 2)
            for row, ratio in zip(compared, ratios, strict=True)
            if ratio > BASELINE_BOUND
        ]
        found.append(_bound(f"Symm / baseline, {BASELINE_BOUND}", len(ratios), missed))
        mean = statistics.geometric_mean(ratios)
        found.append(["geometric mean of Symm / baseline", "", f"{mean:.2f}", ""])
    held = [
        row
        for row in rows
        if row["loss"] in FLOOR_BOUNDS and row["batch"] >= 512 and row["m"] == 2
    ]
    if held:
        missed = [
            f"{row['loss']} {row['batch']}"
            for row in held
            if row["Symm ms"] / row["floor ms"] > FLOOR_BOUNDS[row["loss"]]
        ]
        found.append(_bound("Symm / floor, 2.5 (angular 4)", len(held), missed))
    return found


def _bound(title: str, count: int, missed: Sequence[str]) -> list[str]:
    return [title, str(count), str(count - len(missed)), "; ".join(missed)]


def _ratio(row: Row, contestant: str) -> str:
    theirs = row[f"{contestant} ms"]
    return f"{row['Symm ms'] / theirs:.2f}" if theirs else ""


def _memory(row: Row, contestant: str) -> str:
    held = row[f"{contestant} MiB"]
    return f"{held:.1f}" if held is not None else ""


def _timing(row: Row, contestant: str) -> str:
    median, spread = row[f"{contestant} ms"], row[f"{contestant} spread"]
    return f"{median:.2f} ± {spread / 2:.2f}" if median else ""


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(":")[1].strip()
        for line in (
            cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
        )
        if line.startswith("model name")
    ]
    model = models[0] if models else platform.processor()
    return f"{model}, {torch.get_num_threads()} threads"
