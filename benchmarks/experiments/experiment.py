"""Experiments: train variants with several seeds, and write tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from ..reporting import convergence, figures, tables
from ..reporting.convergence import Results
from ..training import processes
from . import search
from .command import PRESETS, Configured
from .runs import PlannedRun, Runs, Schedule, Variant


@dataclass(frozen=True, kw_only=True)
class Experiment(Configured):
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
        schedule: how to train the runs.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    head_factors: tuple[float, ...] = ()
    search_seeds: tuple[int, ...] = (1000,)
    published: tyro.conf.Suppress[bool] = False
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out

    def variants(self) -> Mapping[str, Variant]:
        """Name -> variant: the rows of the table."""
        raise NotImplementedError

    def run(self) -> tuple[str, Path | None]:
        """Search, if there are learning rates to choose from, train, and write.

        Raises:
            ValueError: there are no seeds or variants, a seed is repeated, also between
                seeds and search_seeds, jobs is below 1, settings are invalid, or every run
                diverged.
        """
        variants = self.variants()
        self._check(variants)
        runs = Runs(self, self.folder, self.schedule)
        grid = None
        if any(self._searched.values()):
            splits = [{"seed": seed} for seed in self.search_seeds]
            grid = search.Search(runs, variants, self._searched, splits)
        # The choices will change its settings, but not its number of runs.
        plan = self._plan(runs, variants, {})
        if self.schedule.dry_run:
            return runs.describe([*(grid.plan if grid else []), *plan]), None
        trials: search.Trials = {}
        if grid is not None:
            trials = grid.trials(runs.train(grid.plan, plan))
            plan = self._plan(runs, variants, search.best(trials))
        results: dict[str, list[dict[str, Any]]] = {label: [] for label in variants}
        for planned, result in zip(plan, runs.train(plan), strict=True):
            results[planned.label].append(result)
        if not processes.is_first():
            return "", None
        finite, diverged = search.without_diverged(trials, results)
        bases = {label: variant.bases for label, variant in variants.items()}
        tables.write_csv(self.folder / "table.csv", tables.run_rows(finite))
        if trials:
            searched = [(label, run) for label, _, run in search.runs_of(trials)]
            search.write_csv(searched, self.folder / "search.csv")
            search.draw(trials, bases, self.folder)
        for curve in figures.CURVES:
            figures.draw_curve(finite, bases, curve, self.folder / f"{curve.file}.png")
        parts = self._report(finite, trials, bases, diverged, runs.machine())
        return tables.write(self.folder / "table.md", *parts), self.folder

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
        usual = PRESETS[self.preset].settings if self.preset else type(self.settings)()
        for name, values in self._searched.items():
            flag = f"--{name.replace('_', '-')}"
            if values and getattr(self.settings, name) != getattr(usual, name):
                raise ValueError(
                    f"{flag} is not used where {flag}s are searched: leave out one of them "
                    f"({flag}s without a value turns off a preset's search)"
                )
        if not variants:
            raise ValueError("methods must name at least one method")
        for name in set.intersection(*(set(x.settings) for x in variants.values())):
            if getattr(self.settings, name, None) != getattr(usual, name, None):
                raise ValueError(
                    f"--{name.replace('_', '-')} is not used: every variant has its own, "
                    f"got {getattr(self.settings, name)}"
                )

    def _plan(
        self,
        runs: Runs,
        variants: Mapping[str, Variant],
        chosen: Mapping[str, search.Trial],
    ) -> list[PlannedRun]:
        # Seed by seed, so that other load on the machine slows all variants equally.
        searched = [name for name, values in self._searched.items() if values]
        return [
            runs.planned(
                label,
                [*searched, "trainer_options"] if searched else (),
                **{**variant.settings, **(chosen[label].choice if chosen else {})},
                method=variant.method,
                seed=seed,
            )
            for seed in self.seeds
            for label, variant in variants.items()
        ]

    def _report(
        self,
        results: Results,
        trials: search.Trials,
        bases: tables.Bases,
        diverged: str,
        machine: str,
    ) -> list[str]:
        """The paragraphs of table.md."""
        first, *_ = next(iter(results.values()))
        # Of glyphs, every seed has other classes.
        numbers = {run["test_images"] for own in results.values() for run in own}
        items = sorted({min(numbers), max(numbers)})
        settings, seeds = self.settings, len(self.seeds)
        dataset = self.source.name(settings.dataset) or settings.dataset
        parts = [
            f"Percent on {first['test_classes']:,} unseen classes "
            f"({' to '.join(f'{x:,}' for x in items)} items) of {dataset} after "
            f"{settings.steps} steps of batch {settings.batch_size}; mean ± standard "
            f"deviation over {seeds} seed{'s' * (seeds > 1)}.",
            convergence.not_converged(results),
            tables.markdown(tables.accuracy_rows(results)),
            diverged,
        ]
        parts += tables.differences("seed", tables.difference_rows(results, bases))
        if trials:
            tried = " and the ".join(
                f"{name.replace('_', ' ')}s {', '.join(f'{x:g}' for x in values)}"
                for name, values in self._searched.items()
                if values
            )
            searched = ", ".join(map(str, self.search_seeds))
            parts += [
                f"Chosen among the {tried}, by MAP@R on the validation classes of "
                f"seed{'s' * (len(self.search_seeds) > 1)} {searched}:",
                tables.markdown(search.choice_rows(trials)),
                search.at_the_edge(trials),
            ]
        parts.append(machine)
        if self.published:
            published = tables.published_rows(results, settings.dataset)
            parts += ["Beside the paper's Tables 1 to 3:", tables.markdown(published)]
        return parts
