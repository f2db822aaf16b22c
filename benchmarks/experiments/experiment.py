"""Experiments: variants trained with several seeds, in tables and figures."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..reporting import figures, tables
from ..reporting.machine import machine
from ..training import processes
from ..training.settings import Settings
from .runs import Runs, describe
from .variants import Variant


@dataclass(frozen=True, kw_only=True)
class Experiment(Runs):
    """Train every variant with every seed, and write tables and figures.

    The output folder has a folder for each run, which a later call does not train again,
    record-keeper's database of all runs, records.db, and table.csv, table.md,
    accuracy.png, synthetic_ratio.png, synthetic_queries.png and angle.png.

    Attributes:
        seeds: one run of every variant for each.
        published: whether the paper's numbers stand beside those measured.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    published: ClassVar[bool] = False

    @abstractmethod
    def variants(self) -> Mapping[str, Variant]:
        """Name -> variant: the rows of the table."""

    def run(self) -> str:
        """Train, and write tables and figures.

        Returns:
            The contents of table.md, or of the plan.

        Raises:
            ValueError: no seeds or variants, a repeated seed, jobs below 1, or settings
                that do not fit.
        """
        seeds, variants = self.seeds, self.variants()
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(
                f"seeds must be at least one, all different, got {list(seeds)}"
            )
        if not variants:
            raise ValueError("methods must name at least one method")
        started = time.perf_counter()
        # Seed by seed, so that the machine's moods fall on all variants alike.
        plan = [
            self.planned(label, method=variant.method, seed=seed, **variant.settings)
            for seed in seeds
            for label, variant in variants.items()
        ]
        if self.dry_run:
            return describe(plan)
        results: dict[str, list[dict[str, Any]]] = {label: [] for label in variants}
        for planned, result in zip(plan, self.train(plan), strict=True):
            results[planned.label].append(result)
        if not processes.is_first():
            return ""
        return self._write(results, plan[0].settings, time.perf_counter() - started)

    def _write(self, results: tables.Results, settings: Settings, seconds: float) -> str:
        out = self.destination
        bases = {label: variant.bases for label, variant in self.variants().items()}
        tables.write_csv(results, out / "table.csv")
        text = _report(results, bases, settings, seconds, self.jobs)
        if self.published:
            table = tables.markdown(tables.published_rows(results, settings.dataset))
            text = f"{text}\nBeside the paper's Tables 1 to 3:\n\n{table}\n"
        (out / "table.md").write_text(text)
        for curve in figures.CURVES:
            figures.curves(results, bases, curve, out / f"{curve.file}.png")
        return text


def _report(
    results: tables.Results,
    bases: tables.Bases,
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
