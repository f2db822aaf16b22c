"""The protocol of "A Metric Learning Reality Check" (Musgrave et al., ECCV 2020)."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from ..data.datasets import FOLDS
from ..methods.methods import METHODS
from ..reporting import figures, tables
from ..reporting.machine import machine
from ..training import processes
from ..training.settings import CommonSettings
from .command import MethodNames
from .runs import PlannedRun, Runs, describe
from .variants import DEMO_METHODS

METRICS = {
    "recall_at_1": "P@1",
    "r_precision": "R-precision",
    "mean_average_precision_at_r": "MAP@R",
}
LEARNING_RATES = (3e-4, 1e-3, 3e-3)

Validation = Mapping[str, Mapping[float, Sequence[float]]]
"""Method -> learning rate -> a share of 1 for each fold."""


@dataclass(frozen=True, kw_only=True)
class SearchedSettings(CommonSettings):
    """What all runs share where the learning rate is searched for.

    Attributes:
        learning_rate: each run has its own.
    """

    learning_rate: tyro.conf.Suppress[float] = LEARNING_RATES[0]


@dataclass(frozen=True, kw_only=True)
class RealityCheck(Runs):
    """Choose learning rates on validation folds, then test once (Musgrave et al., 2020).

    Four parts of the training classes validate in turn; the learning rate with the
    largest mean MAP@R over them is each method's own. Then its four models, one a fold,
    are tested, and the mean over them has Student's 95 % interval.

    Attributes:
        methods: any methods.
        learning_rates: what is tried, equally for every method.
        seed: of splits, weights and batches.
    """

    out: Path = Path("runs/reality-check")
    methods: MethodNames = DEMO_METHODS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    seed: int = 0
    settings: SearchedSettings = field(default_factory=SearchedSettings)

    def run(self) -> str:
        """Search, test, and write table.md, table.csv and validation.png.

        Returns:
            The contents of table.md, or of the plan of the search.

        Raises:
            ValueError: no methods or learning rates, jobs below 1, or settings that do
                not fit.
        """
        if not self.methods or not self.learning_rates:
            raise ValueError("methods and learning_rates must each have at least one")
        started = time.perf_counter()
        search = [
            self._planned(method, rate, fold, touch_test=False)
            for method in self.methods
            for rate in self.learning_rates
            for fold in range(FOLDS)
        ]
        if self.dry_run:
            return describe(search)
        searched = self.train(search)
        found = iter(searched)
        validation: Validation = {
            method: {
                rate: [_last_map(next(found)) for _ in range(FOLDS)]
                for rate in self.learning_rates
            }
            for method in self.methods
        }
        chosen = {
            method: max(folds, key=lambda rate: statistics.mean(folds[rate]))
            for method, folds in validation.items()
        }
        final = [
            self._planned(method, rate, fold, touch_test=True)
            for method, rate in chosen.items()
            for fold in range(FOLDS)
        ]
        found = iter(self.train(final))
        tested = {method: [next(found) for _ in range(FOLDS)] for method in self.methods}
        if not processes.is_first():
            return ""
        bases = {method: METHODS[method].bases for method in self.methods}
        text = "\n\n".join(
            [
                f"{FOLDS} folds of {self.settings.steps} steps, percent; test: mean of the "
                f"{FOLDS} models [95 %].",
                tables.markdown(_rows(validation, chosen, tested)),
                "Paired by fold:",
                tables.markdown(tables.difference_rows(tested, bases, METRICS)),
                f"Machine: {machine()}. Time: {(time.perf_counter() - started) / 60:.1f} "
                "minutes.",
            ]
        )
        (self.out / "table.md").write_text(text + "\n")
        every = searched + [run for runs in tested.values() for run in runs]
        _write_csv(every, self.out / "table.csv")
        figures.by_learning_rate(
            validation,
            bases,
            "MAP@R on the validation folds (%)",
            self.out / "validation.png",
        )
        return text + "\n"

    def _planned(self, method: str, rate: float, fold: int, touch_test: bool) -> PlannedRun:
        return self.planned(
            f"{method}, rate = {rate:g}, fold = {fold}{', tested' * touch_test}",
            method=method,
            seed=self.seed,
            learning_rate=rate,
            fold=fold,
            touch_test=touch_test,
        )


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
            tables.mean_and_interval(tables.percentages(runs, metric)) for metric in METRICS
        ]
        mean = f"{100 * statistics.mean(validation[method][rate]):.1f}"
        rows.append([method, f"{rate:g}", mean, *cells])
    return rows
