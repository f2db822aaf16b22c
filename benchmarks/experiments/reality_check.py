"""The protocol of "A Metric Learning Reality Check" (Musgrave et al., ECCV 2020)."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.datasets import FOLDS
from ..methods.methods import METHODS
from ..reporting import figures, tables
from ..reporting.machine import machine
from ..training import processes
from ..training.settings import Settings, Source
from .experiment import DEMO_METHODS, describe, run_all, run_folder

METRICS = {
    "recall_at_1": "P@1",
    "r_precision": "R-precision",
    "mean_average_precision_at_r": "MAP@R",
}
LEARNING_RATES = (3e-4, 1e-3, 3e-3)

Validation = Mapping[str, Mapping[float, Sequence[float]]]
"""Method -> learning rate -> a share of 1 for each fold."""


def reality_check(
    out: Path,
    methods: Sequence[str] = DEMO_METHODS,
    learning_rates: Sequence[float] = LEARNING_RATES,
    seed: int = 0,
    force: bool = False,
    jobs: int = 1,
    dry_run: bool = False,
    source: Source | None = None,
    **settings: Any,
) -> str:
    """Choose the learning rate on validation folds, then test once.

    Four parts of the training classes validate in turn; the learning rate with the
    largest mean MAP@R over them is each method's own. Then its four models, one a fold,
    are tested, and the mean over them has Student's 95 % interval.

    Args:
        out: the folder to write to: a folder for each run, records.db, table.md,
            table.csv with a line for each run, and validation.png.
        methods: names in METHODS.
        learning_rates: what is tried, equally for every method.
        seed: of the splits, the weights and the batches.
        force: train finished runs again.
        jobs: runs at a time.
        dry_run: say what would be trained to choose, and write nothing.
        source: where a dataset of photographs is.
        **settings: fields of Settings.

    Returns:
        The contents of table.md, or of the plan.

    Raises:
        ValueError: no methods or learning rates, jobs below 1, or settings that do not
            fit.
    """
    if not methods or not learning_rates:
        raise ValueError("methods and learning_rates must each have at least one")
    started = time.perf_counter()
    given = {**settings, "seed": seed}
    search = [
        _item(out, given, method, rate, fold, touch_test=False)
        for method in methods
        for rate in learning_rates
        for fold in range(FOLDS)
    ]
    if dry_run:
        return describe(search)
    searched = run_all(out, search, force, jobs, source)
    found = iter(searched)
    validation: Validation = {
        method: {
            rate: [_last_map(next(found)) for _ in range(FOLDS)] for rate in learning_rates
        }
        for method in methods
    }
    chosen = {
        method: max(folds, key=lambda rate: statistics.mean(folds[rate]))
        for method, folds in validation.items()
    }
    final = [
        _item(out, given, method, rate, fold, touch_test=True)
        for method, rate in chosen.items()
        for fold in range(FOLDS)
    ]
    found = iter(run_all(out, final, force, jobs, source))
    tested = {method: [next(found) for _ in range(FOLDS)] for method in methods}
    if not processes.is_first():
        return ""
    bases = {method: METHODS[method].base for method in methods}
    text = "\n\n".join(
        [
            f"{FOLDS} folds of {final[0][2].steps} steps, percent; test: mean of the "
            f"{FOLDS} models [95 %].",
            tables.markdown(_rows(validation, chosen, tested)),
            "Paired by fold:",
            tables.markdown(tables.difference_rows(tested, bases, METRICS)),
            f"Machine: {machine()}. Time: {(time.perf_counter() - started) / 60:.1f} "
            "minutes.",
        ]
    )
    (out / "table.md").write_text(text + "\n")
    every = searched + [run for runs in tested.values() for run in runs]
    _write_csv(every, out / "table.csv")
    figures.by_learning_rate(
        validation, bases, "MAP@R on the validation folds (%)", out / "validation.png"
    )
    return text + "\n"


def _item(
    out: Path,
    given: Mapping[str, Any],
    method: str,
    rate: float,
    fold: int,
    touch_test: bool,
) -> tuple[str, Path, Settings]:
    label = f"{method}, rate = {rate:g}, fold = {fold}{', tested' * touch_test}"
    own = {
        "method": method,
        "learning_rate": rate,
        "fold": fold,
        "touch_test": touch_test,
    }
    settings = Settings(**{**given, **own})
    return label, run_folder(out, label, settings.seed), settings


def _last_map(result: Mapping[str, Any]) -> float:
    return result["val"]["mean_average_precision_at_r"][-1]


def _write_csv(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One line for each run, unrounded; those that were not tested have no metrics."""
    own = ("method", "learning_rate", "fold", "seed")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*own, "validation_mean_average_precision_at_r", *METRICS])
        for result in results:
            settings = [result["settings"][name] for name in own]
            metrics = [result["test"].get(metric, "") for metric in METRICS]
            writer.writerow([*settings, _last_map(result), *metrics])


def _rows(
    validation: Validation,
    chosen: Mapping[str, float],
    tested: tables.Results,
) -> list[list[str]]:
    rows = [["method", "learning rate", "MAP@R, validation", *METRICS.values()]]
    for method, runs in tested.items():
        rate = chosen[method]
        cells = [
            _interval([100 * run["test"][metric] for run in runs]) for metric in METRICS
        ]
        mean = f"{100 * statistics.mean(validation[method][rate]):.1f}"
        rows.append([method, f"{rate:g}", mean, *cells])
    return rows


def _interval(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    half = tables.half_interval(values)
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"
