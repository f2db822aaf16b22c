"""The demo: base losses against Symm on the glyphs, in a few minutes on a laptop."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_metric_learning
import torch

from . import figures, tables
from .methods import METHODS
from .training import Settings, run


def demo(
    out: Path,
    seeds: Sequence[int],
    force: bool = False,
    methods: Sequence[str] = tuple(METHODS),
    **settings: Any,
) -> str:
    """Train every method with every seed, and write tables and figures.

    Args:
        out: the folder to write to: a folder for each run, which a later call does not
            train again, and table.csv, table.md, accuracy.png, synthetic_ratio.png.
        seeds: one run of every method for each.
        force: train finished runs again.
        methods: names in METHODS.
        **settings: fields of Settings.

    Returns:
        The contents of table.md.

    Raises:
        ValueError: no seeds or methods, a repeated seed, or settings that do not fit.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be at least one, all different, got {list(seeds)}")
    if not methods:
        raise ValueError("methods must name at least one method")
    started = time.perf_counter()
    plan = [
        # Seed by seed, so that the machine's moods fall on all methods alike.
        Settings(method, seed, **settings)
        for seed in seeds
        for method in methods
    ]
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for number, item in enumerate(plan, start=1):
        print(f"\nrun {number} of {len(plan)}: {item.method}, seed {item.seed}", flush=True)
        folder = out / f"{item.method.lower().replace(' ', '')}-seed{item.seed}"
        results[item.method].append(run(item, folder, force))
    tables.write_csv(results, out / "table.csv")
    text = _report(results, plan[0], seeds, time.perf_counter() - started)
    (out / "table.md").write_text(text)
    figures.curves(
        results,
        ("val", "step", "recall_at_1"),
        "recall@1 on validation classes (%)",
        out / "accuracy.png",
    )
    figures.curves(
        results,
        ("synthetic_ratio", "step", "ratio"),
        "negatives with a synthetic end (%)",
        out / "synthetic_ratio.png",
    )
    return text


def _report(
    results: tables.Results, settings: Settings, seeds: Sequence[int], seconds: float
) -> str:
    first = next(iter(results.values()))[0]
    parts = [
        f"Percent on {first['test_classes']:,} unseen classes ({first['test_images']:,} "
        f"glyph images) after {settings.steps} steps of batch {settings.batch_size}; "
        f"mean ± standard deviation over {len(seeds)} seed{'s' * (len(seeds) > 1)}.",
        tables.markdown(tables.accuracy_rows(results)),
    ]
    differences = tables.difference_rows(results)
    if len(differences) > 1:
        parts += ["Paired by seed:", tables.markdown(differences)]
    parts.append(f"Machine: {_machine()}. Time: {seconds / 60:.1f} minutes.")
    return "\n\n".join(parts) + "\n"


def _machine() -> str:
    return (
        f"{torch.get_num_threads()} threads, {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, pytorch-metric-learning "
        f"{pytorch_metric_learning.__version__}"
    )
