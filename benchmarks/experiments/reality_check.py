"""The protocol of "A Metric Learning Reality Check" (Musgrave et al., ECCV 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from ..data.splits import FOLDS
from ..reporting import convergence, tables
from ..reporting.convergence import Results
from ..training import processes
from ..training.settings import CommonSettings
from . import search
from .command import DEMO_METHODS, Configured, MethodNames
from .runs import Runs, Schedule, of_methods

METRICS = {
    "recall_at_1": "P@1",
    "r_precision": "R-precision",
    "mean_average_precision_at_r": "MAP@R",
}
LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True, kw_only=True)
class SearchedSettings(CommonSettings):
    """Shared settings of a search for the learning rate.

    Attributes:
        learning_rate: each run has its own.
    """

    learning_rate: tyro.conf.Suppress[float] = LEARNING_RATES[0]


@dataclass(frozen=True, kw_only=True)
class RealityCheck(Configured):
    """Choose learning rates on validation folds, then test once (Musgrave et al., 2020).

    Each of four parts of the training classes is the validation split in turn. A method
    gets the learning rate with the largest mean MAP@R over them. Then its four models,
    one for each fold, are tested; the table has their mean with Student's 95 % interval.

    Attributes:
        methods: what to train.
        learning_rates: the values to try, the same for every method.
        seed: of splits, weights and batches.
        schedule: how to train the runs.
    """

    out: Path = Path("runs/reality-check")
    methods: MethodNames = DEMO_METHODS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    seed: int = 0
    settings: SearchedSettings = field(default_factory=SearchedSettings)
    schedule: Schedule = field(default_factory=Schedule)

    def run(self) -> tuple[str, Path | None]:
        """Search, test, and write table.md, table.csv and validation.png.

        Raises:
            ValueError: there are no methods or learning rates, jobs is below 1, or
                settings are invalid.
        """
        if not self.methods:
            raise ValueError("methods must name at least one method")
        runs = Runs(self, self.out, self.schedule)
        variants = of_methods(self.methods)
        folds = [{"seed": self.seed, "fold": fold} for fold in range(FOLDS)]
        grid = search.Search(runs, variants, {"learning_rate": self.learning_rates}, folds)
        if self.schedule.dry_run:
            return runs.describe(grid.plan), None
        searched = runs.train(grid.plan)
        trials = grid.trials(searched)
        final = [
            runs.planned(
                f"{search.name_of(method, trial.choice, fold)}, tested",
                **{**trial.choice, **fold},
                method=method,
            )
            for method, trial in search.best(trials).items()
            for fold in folds
        ]
        found = iter(runs.train(final))
        results = {method: [next(found) for _ in folds] for method in variants}
        if not processes.is_first():
            return "", None
        tested, diverged = search.without_diverged(trials, results)
        bases = {method: variant.bases for method, variant in variants.items()}
        differences = tables.difference_rows(tested, bases, METRICS)
        text = tables.write(
            self.out / "table.md",
            f"{FOLDS} folds of {self.settings.steps} steps, percent; test: mean of the "
            f"{FOLDS} models [95 %].",
            convergence.not_converged(tested),
            tables.markdown(_rows(trials, tested)),
            diverged,
            search.at_the_edge(trials),
            *tables.differences("fold", differences),
            runs.machine(),
        )
        every = [*searched, *(run for own in tested.values() for run in own)]
        lines = [(run["settings"]["method"], run) for run in every]
        search.write_csv(lines, self.out / "table.csv", METRICS)
        search.draw(trials, bases, self.out)
        return text, self.out


def _rows(trials: search.Trials, tested: Results) -> list[list[str]]:
    header, *chosen = search.choice_rows(trials)
    rows = [[*header, *METRICS.values(), tables.RISE]]
    for row in chosen:
        if runs := tested.get(row[0]):
            shares = [tables.percentages(runs, metric) for metric in METRICS]
            cells = map(tables.mean_and_interval, shares)
            rows.append([*row, *cells, tables.mean_rise(runs)])
    return rows
