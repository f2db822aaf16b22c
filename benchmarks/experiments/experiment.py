"""Experiments: variants trained with several seeds, in tables and figures."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tqdm import tqdm

from ..methods.methods import METHODS
from ..reporting import figures, tables
from ..reporting.machine import machine
from ..training import interruption, processes
from ..training.records import DATABASE, read
from ..training.settings import Settings, Source
from ..training.training import run

PAPER_METHODS = (
    *("Triplet", "Triplet, semi-hard", "DAML + Triplet", "HDML + Triplet"),
    *("Symm + Triplet", "Symm + Triplet, semi-hard"),
    *("N-pairs", "DAML + N-pairs", "HDML + N-pairs", "Symm + N-pairs"),
    *("Angular", "Symm + Angular", "Lifted", "Symm + Lifted"),
)
SYNTHETICS_METHODS = ("Symm + Triplet", "Symm + N-pairs", "Symm + Angular", "Symm + Lifted")
DEMO_METHODS = ("N-pairs", "Symm + N-pairs", "Triplet", "Symm + Triplet")


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        method: a name in METHODS.
        settings: fields of Settings that it has of its own.
        base: the name of the variant that it is compared with, if it is in the table.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None


def of_methods(methods: Sequence[str]) -> dict[str, Variant]:
    """Methods as they are, each compared with its base.

    >>> of_methods(["Symm + N-pairs"])["Symm + N-pairs"].base
    'N-pairs'
    """
    return {name: Variant(name, {}, METHODS[name].base) for name in methods}


def _one_setting(method: str, name: str, values: Sequence[Any]) -> dict[str, Variant]:
    base = METHODS[method].base
    assert base is not None
    variants = {base: Variant(base)}
    for value in values:
        label = f"{method}, {name} = {value}"
        variants[label] = Variant(method, {name: value}, base)
    return variants


def _synthesis() -> dict[str, Variant]:
    variants = {}
    for base in ("Triplet", "N-pairs", "Lifted"):
        originals = f"{base}, hardest originals"
        variants[base] = Variant(base)
        variants[originals] = Variant(originals, base=base)
        variants[f"Symm + {base}"] = Variant(f"Symm + {base}", base=originals)
    return variants


def _pairings() -> dict[str, Variant]:
    variants = {}
    for m, pairings in ((2, ("all",)), (4, ("all", "ring")), (8, ("all", "ring"))):
        base = f"Triplet, m = {m}"
        variants[base] = Variant("Triplet", {"m": m})
        for pairing in pairings:
            label = f"Symm + Triplet, m = {m}, pairing = {pairing}"
            variants[label] = Variant("Symm + Triplet", {"m": m, "pairing": pairing}, base)
    return variants


ABLATIONS: dict[str, dict[str, Variant]] = {
    "similarity": _one_setting("Symm + N-pairs", "alpha", (1.5, 2.0, 2.5)),
    "norm": _one_setting("Symm + N-pairs", "beta", (0.5, 1.0, 1.5)),
    "hardness": _one_setting("Symm + N-pairs", "hardness", ("hardest", 2, 4, 8, 16)),
    "candidates": _one_setting("Symm + N-pairs", "candidates", ("all", "official")),
    "pairing": _pairings(),
    "synthesis": _synthesis(),
}
"""Name -> the variants of one of the paper's ablations, or of the control, synthesis."""


REGIME_STARTS: dict[str, dict[str, Any]] = {
    "from scratch": {"start": "scratch"},
    # Fine-tuned at a low rate, with the head at ten times it.
    "pre-trained": {"start": "softmax", "learning_rate": 1e-4, "head_factor": 10.0},
}
REGIME_CLASSES = {"100 classes": 100, "400 classes": 400, "all classes": None}


def regimes(methods: Sequence[str] = DEMO_METHODS) -> dict[str, Variant]:
    """Methods over where the trunk starts and how many classes there are.

    Args:
        methods: names in METHODS; each Symm method is compared with its base.
    """
    variants = {}
    for start, of_start in REGIME_STARTS.items():
        for classes, number in REGIME_CLASSES.items():
            settings = {
                **of_start,
                "train_classes": number,
                "augment": True,
                "reserve": True,
            }
            where = f", {start}, {classes}"
            for method in methods:
                base = METHODS[method].base
                variants[method + where] = Variant(
                    method, settings, None if base is None else base + where
                )
    return variants


def experiment(
    out: Path,
    variants: Mapping[str, Variant],
    seeds: Sequence[int],
    force: bool = False,
    jobs: int = 1,
    dry_run: bool = False,
    source: Source | None = None,
    published: bool = False,
    **settings: Any,
) -> str:
    """Train every variant with every seed, and write tables and figures.

    Args:
        out: the folder to write to: a folder for each run, which a later call does not
            train again, record-keeper's database of all runs, records.db, and table.csv,
            table.md, accuracy.png, synthetic_ratio.png and synthetic_queries.png.
        variants: name -> variant.
        seeds: one run of every variant for each.
        force: train finished runs again.
        jobs: runs at a time, each in a process of its own with its share of the cores.
        source: where a dataset of photographs is.
        published: put the paper's numbers beside those measured.
        dry_run: say what would be trained, and write nothing.
        **settings: fields of Settings.

    Returns:
        The contents of table.md, or of the plan.

    Raises:
        ValueError: no seeds or variants, a repeated seed, jobs below 1, or settings that
            do not fit.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be at least one, all different, got {list(seeds)}")
    if not variants:
        raise ValueError("methods must name at least one method")
    started = time.perf_counter()
    # Seed by seed, so that the machine's moods fall on all variants alike.
    plan = [
        (label, run_folder(out, label, seed), _settings(variant, seed, settings))
        for seed in seeds
        for label, variant in variants.items()
    ]
    if dry_run:
        return describe(plan)
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in variants}
    for (label, _, _), result in zip(
        plan, run_all(out, plan, force, jobs, source), strict=True
    ):
        results[label].append(result)
    if not processes.is_first():
        return ""
    bases = {label: variant.base for label, variant in variants.items()}
    tables.write_csv(results, out / "table.csv")
    text = _report(results, bases, plan[0][2], time.perf_counter() - started, jobs)
    if published:
        table = tables.markdown(tables.published_rows(results, plan[0][2].dataset))
        text = f"{text}\nBeside the paper's Tables 1 to 3:\n\n{table}\n"
    (out / "table.md").write_text(text)
    for (series, values), axis_label in figures.CURVES.items():
        name = "accuracy" if series == "val" else series
        figures.curves(
            results, bases, (series, "step", values), axis_label, out / f"{name}.png"
        )
    return text


Plan = list[tuple[str, Path, Settings]]


def _settings(variant: Variant, seed: int, given: Mapping[str, Any]) -> Settings:
    own = {"method": variant.method, "seed": seed, **variant.settings}
    return Settings(**{**given, **own})


def run_folder(out: Path, label: str, seed: int) -> Path:
    """Where a run of a variant is, by names that every file system takes."""
    name = re.sub(r"[^a-z0-9.+=()-]+", "", label.lower().replace(", ", "-"))
    return out / f"{name}-seed{seed}"


def describe(plan: Plan) -> str:
    """Which runs of a plan are finished, and which would be trained."""
    rows = [["run", "", "batches"]]
    rows += [
        [
            str(folder),
            "finished" if read(folder.parent / DATABASE, folder.name) else "to train",
            str(settings.steps),
        ]
        for _, folder, settings in plan
    ]
    return tables.markdown(rows) + "\n"


def run_all(
    out: Path, plan: Plan, force: bool, jobs: int, source: Source | None
) -> list[dict[str, Any]]:
    """Train what is not finished, and give the results of all, in the plan's order.

    Raises:
        ValueError: jobs below 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs > 1 and processes.world_size() > 1:
        raise ValueError(f"jobs must be 1 where several processes train, got {jobs}")
    if jobs == 1:
        results = []
        for number, (label, folder, settings) in enumerate(plan, start=1):
            if processes.is_first():
                print(
                    f"\nrun {number} of {len(plan)}: {label}, seed {settings.seed}",
                    flush=True,
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            results.append(run(settings, folder, force, source))
        return results
    out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with (
        # The bars of several runs at a time would overwrite each other.
        mock.patch.dict(os.environ, TQDM_DISABLE="1"),
        ProcessPoolExecutor(
            jobs, get_context("spawn"), _prepare_worker, (threads,)
        ) as pool,
        interruption.passed_to_children(),
    ):
        try:
            futures = [
                pool.submit(run, settings, folder, force, source)
                for _, folder, settings in plan
            ]
            for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
                future.result()  # raises what the run raised
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _prepare_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    interruption.prepare_worker()


def _report(
    results: tables.Results,
    bases: Mapping[str, str | None],
    settings: Settings,
    seconds: float,
    jobs: int,
) -> str:
    runs = next(iter(results.values()))
    first = runs[0]
    parts = [
        f"Percent on {first['test_classes']:,} unseen classes ({first['test_images']:,} "
        f"images) of {settings.dataset} after {settings.steps} steps of batch "
        f"{settings.batch_size}; "
        f"mean ± standard deviation over {len(runs)} seed{'s' * (len(runs) > 1)}.",
        tables.markdown(tables.accuracy_rows(results)),
    ]
    differences = tables.difference_rows(results, bases)
    if len(differences) > 1:
        parts += ["Paired by seed:", tables.markdown(differences)]
    at_a_time = f", {jobs} runs at a time" if jobs > 1 else ""
    parts.append(f"Machine: {machine()}{at_a_time}. Time: {seconds / 60:.1f} minutes.")
    return "\n\n".join(parts) + "\n"
