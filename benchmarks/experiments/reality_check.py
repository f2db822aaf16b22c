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
from .command import MethodNames
from .runs import Runs
from .search import (
    Search,
    Trials,
    at_the_edge,
    best,
    choice_rows,
    draw,
    name_of,
    named_runs,
    write_csv,
)
from .variants import DEMO_METHODS, of_methods

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
class RealityCheck(Runs):
    """Choose learning rates on validation folds, then test once (Musgrave et al., 2020).

    Each of four parts of the training classes is the validation split in turn. A method
    gets the learning rate with the largest mean MAP@R over them. Then its four models,
    one for each fold, are tested; the table has their mean with Student's 95 % interval.

    Attributes:
        methods: what to train.
        learning_rates: the values to try, the same for every method.
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
            ValueError: there are no methods or learning rates, jobs is below 1, or
                settings are invalid.
        """
        if not self.methods:
            raise ValueError("methods must name at least one method")
        clock = self._clock()
        variants = of_methods(self.methods)
        folds = [{"seed": self.seed, "fold": fold} for fold in range(FOLDS)]
        search = Search(self, variants, {"learning_rate": self.learning_rates}, folds)
        if self.dry_run:
            return self.describe(search.plan)
        searched = self.train(search.plan)
        trials = search.trials(searched)
        chosen = best(trials)
        final = [
            self.planned(
                f"{name_of(method, trial.choice, fold)}, tested",
                **{**trial.choice, **fold},
                method=method,
            )
            for method, trial in chosen.items()
            for fold in folds
        ]
        found = iter(self.train(final))
        every = {method: [next(found) for _ in folds] for method in self.methods}
        if not processes.is_first():
            return ""
        diverged = convergence.diverged(
            [*named_runs(trials), *((x, run) for x, runs in every.items() for run in runs)]
        )
        tested = convergence.without_diverged(every)
        if not tested:
            raise ValueError(diverged)
        bases = {method: variant.bases for method, variant in variants.items()}
        differences = tables.difference_rows(tested, bases, METRICS)
        text = tables.document(
            f"{FOLDS} folds of {self.settings.steps} steps, percent; test: mean of the "
            f"{FOLDS} models [95 %].",
            convergence.not_converged(tested),
            tables.markdown(_rows(trials, tested)),
            diverged,
            at_the_edge(trials),
            "Paired by fold:",
            tables.markdown(differences),
            tables.note(differences),
            f"Machine: {tables.machine()}.{clock()}",
        )
        (self.out / "table.md").write_text(text, encoding="utf-8")
        runs = [*searched, *(run for runs in tested.values() for run in runs)]
        write_csv(
            [(run["settings"]["method"], run) for run in runs],
            self.out / "table.csv",
            METRICS,
        )
        draw(trials, bases, self.out)
        return text


def _rows(trials: Trials, tested: Results) -> list[list[str]]:
    header, *chosen = choice_rows(trials)
    rows = [row for row in chosen if row[0] in tested]
    return [
        [*header, *METRICS.values(), tables.RISE],
        *(
            [
                *row,
                *(
                    tables.mean_and_interval(tables.percentages(runs, metric))
                    for metric in METRICS
                ),
                tables.mean_rise(runs),
            ]
            for row, runs in zip(rows, tested.values(), strict=True)
        ),
    ]
