"""Experiments: train variants with several seeds, and write tables and figures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tyro

from ..reporting import convergence, figures, tables
from ..reporting.convergence import Results
from ..training import processes
from ..training.settings import Settings
from .runs import PlannedRun, Runs
from .search import (
    Search,
    Trial,
    Trials,
    at_the_edge,
    best,
    choice_rows,
    named_runs,
    write_trials,
)
from .variants import Variant


@dataclass(frozen=True, kw_only=True)
class Experiment(Runs):
    """Train every variant with every seed, and write tables and figures.

    The output folder has a folder for each run, which a later call does not train again,
    record-keeper's database of all runs, records.db, locks, and table.csv, table.md,
    accuracy.png, synthetic_ratio.png, synthetic_queries.png, angle.png, loss.png and
    gradient.png; with learning_rates, also search.csv and validation.png.

    Attributes:
        seeds: one run of every variant for each.
        learning_rates: each variant gets the one of these with the largest MAP@R on
            validation classes; the test split is not used. DAML and HDML get the best
            value of one of their own parameters, too.
        weight_decays: with learning_rates, the weight decays to choose from, too: each
            variant gets the best combination. By default all have that of the settings.
        head_factors: the same for head_factor.
        search_seeds: seeds of the runs that choose; none of seeds.
        published: whether to show the paper's numbers beside the measured ones.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    head_factors: tuple[float, ...] = ()
    search_seeds: tuple[int, ...] = (1000,)
    published: tyro.conf.Suppress[bool] = False

    @abstractmethod
    def variants(self) -> Mapping[str, Variant]:
        """Name -> variant: the rows of the table."""

    def run(self) -> str:
        """Search, if there are learning rates to choose from, train, and write.

        Returns:
            The contents of table.md, or of the plan.

        Raises:
            ValueError: there are no seeds or variants, a seed is repeated, also between
                seeds and search_seeds, jobs is below 1, settings are invalid, or every run
                diverged.
        """
        variants = self.variants()
        self._check(variants)
        clock = self._clock()
        search = None
        if any(self._searched.values()):
            splits = [{"seed": seed} for seed in self.search_seeds]
            search = Search(self, variants, self._searched, splits)
        # The choices will change its settings, but not its number of runs.
        plan = self._plan(variants, {})
        if self.dry_run:
            return self.describe([*(search.plan if search else []), *plan])
        trials: Trials = {}
        if search is not None:
            trials = search.trials(self.train(search.plan, plan))
            plan = self._plan(variants, best(trials))
        results: dict[str, list[dict[str, Any]]] = {label: [] for label in variants}
        for planned, result in zip(plan, self.train(plan), strict=True):
            results[planned.label].append(result)
        if not processes.is_first():
            return ""
        diverged = convergence.diverged(
            [
                *named_runs(trials),
                *((label, run) for label, runs in results.items() for run in runs),
            ]
        )
        finite = convergence.without_diverged(results)
        if not finite:
            raise ValueError(diverged)
        return self._write(finite, trials, plan[0].settings, diverged, clock())

    @property
    def _searched(self) -> dict[str, tuple[float, ...]]:
        """Field of Settings -> the values to choose from."""
        return {
            "learning_rate": self.learning_rates,
            "weight_decay": self.weight_decays,
            "head_factor": self.head_factors,
        }

    def _check(self, variants: Mapping[str, Variant]) -> None:
        seeds, search_seeds = self.seeds, self.search_seeds
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(
                f"seeds must be at least one, all different, got {list(seeds)}"
            )
        if self.learning_rates and (
            not search_seeds
            or len({*seeds, *search_seeds}) != len(seeds) + len(search_seeds)
        ):
            raise ValueError(
                "search_seeds must be at least one, all different and none of seeds = "
                f"{list(seeds)}, got {list(search_seeds)}"
            )
        if not variants:
            raise ValueError("methods must name at least one method")

    def _plan(
        self, variants: Mapping[str, Variant], chosen: Mapping[str, Trial]
    ) -> list[PlannedRun]:
        # Seed by seed, so that other load on the machine slows all variants equally.
        return [
            self.planned(
                label,
                **{**variant.settings, **(chosen[label].choice if chosen else {})},
                method=variant.method,
                seed=seed,
            )
            for seed in self.seeds
            for label, variant in variants.items()
        ]

    def _write(
        self,
        results: Results,
        trials: Trials,
        settings: Settings,
        diverged: str,
        duration: str,
    ) -> str:
        out = self.destination
        bases = {label: variant.bases for label, variant in self.variants().items()}
        tables.write_csv(out / "table.csv", tables.run_rows(results))
        if trials:
            write_trials(trials, bases, out)
        text = self._report(results, trials, bases, settings, diverged, duration)
        if self.published:
            table = tables.markdown(tables.published_rows(results, settings.dataset))
            text = f"{text}\nBeside the paper's Tables 1 to 3:\n\n{table}\n"
        (out / "table.md").write_text(text, encoding="utf-8")
        for curve in figures.CURVES:
            figures.draw_curve(results, bases, curve, out / f"{curve.file}.png")
        return text

    def _report(
        self,
        results: Results,
        trials: Trials,
        bases: tables.Bases,
        settings: Settings,
        diverged: str,
        duration: str,
    ) -> str:
        first, *_ = next(iter(results.values()))
        seeds = len(self.seeds)
        dataset = settings.data or settings.dataset
        parts = [
            f"Percent on {first['test_classes']:,} unseen classes "
            f"({first['test_images']:,} items) of {dataset} after "
            f"{settings.steps} steps of batch {settings.batch_size}; mean ± standard "
            f"deviation over {seeds} seed{'s' * (seeds > 1)}.",
            convergence.not_converged(results),
            tables.markdown(tables.accuracy_rows(results)),
            diverged,
        ]
        differences = tables.difference_rows(results, bases)
        if len(differences) > 1:
            parts += [
                "Paired by seed:",
                tables.markdown(differences),
                tables.note(differences),
            ]
        if trials:
            tried = " and the ".join(
                f"{name.replace('_', ' ')}s {', '.join(f'{x:g}' for x in values)}"
                for name, values in self._searched.items()
                if values
            )
            searched = ", ".join(map(str, self.search_seeds))
            parts += [
                f"Chosen among the {tried}, by MAP@R on the validation classes of seed "
                f"{searched}:",
                tables.markdown(choice_rows(trials)),
                at_the_edge(trials),
            ]
        at_a_time = f", {self.jobs} runs at a time" if self.jobs > 1 else ""
        parts.append(f"Machine: {tables.machine()}{at_a_time}.{duration}")
        return tables.document(*parts)
