"""Choose hyper-parameters by MAP@R on validation classes, without the test split."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..methods.methods import METHODS
from ..reporting import convergence, figures, tables
from ..reporting.convergence import Results
from .runs import PlannedRun, Runs, Variant

_CRITERION = "mean_average_precision_at_r"
_SHARED = ("learning_rate", "weight_decay", "head_factor")  # what any method can search


class Trial(NamedTuple):
    """A choice of hyper-parameters, and its results.

    Attributes:
        choice: fields of Settings: learning_rate, possibly weight_decay and head_factor,
            and trainer_options if the method searches another parameter.
        runs: what training.run returned, one for each split.
    """

    choice: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    @property
    def shares(self) -> list[float]:
        """The last MAP@R on the validation classes, of each run."""
        return [last_map(run) for run in self.runs]

    @property
    def mean(self) -> float:
        """The mean of shares, by which choices are compared."""
        return statistics.mean(self.shares)


Trials = Mapping[str, Sequence[Trial]]
"""Variant -> its trials."""


class Search:
    """A search that is the same for all variants, each of which is searched for itself.

    Every combination of values, also of the parameter that a method searches for itself,
    is trained once in each split.

    Args:
        runs, variants: plans the runs, and what to search for.
        values: learning_rate, weight_decay and head_factor -> the values to try; without
            any, those of the variant.
        splits: fields of Settings that define a split: its seed, and possibly its fold.

    Raises:
        ValueError: there are no learning rates, a value is repeated, or settings are
            invalid.
    """

    def __init__(
        self,
        runs: Runs,
        variants: Mapping[str, Variant],
        values: Mapping[str, Sequence[float]],
        splits: Sequence[Mapping[str, int]],
    ) -> None:
        for name, own in values.items():
            missing = name == "learning_rate" and not own
            # As they are in the names of folders.
            if missing or len({f"{x:g}" for x in own}) != len(own):
                raise ValueError(
                    f"{name}s must be at least one, all different, got {list(own)}"
                )
        self._splits = splits
        self._choices = {
            label: _choices(variant.method, values) for label, variant in variants.items()
        }
        self.plan: list[PlannedRun] = [
            runs.planned(
                name_of(label, choice, split),
                **{**variants[label].settings, **choice, **split},
                method=variants[label].method,
                touch_test=False,
            )
            for label, own in self._choices.items()
            for choice in own
            for split in splits
        ]

    def trials(self, results: Iterable[Mapping[str, Any]]) -> dict[str, list[Trial]]:
        """The trials, from the results of the plan in its order."""
        found = iter(results)
        return {
            label: [Trial(choice, [next(found) for _ in self._splits]) for choice in own]
            for label, own in self._choices.items()
        }


def _choices(method: str, values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    shared = {name: own for name, own in values.items() if own}
    searched = METHODS[method].searched
    choices = [dict(zip(shared, x, strict=True)) for x in product(*shared.values())]
    options = [dict(zip(searched, x, strict=True)) for x in product(*searched.values())]
    return [{**x, "trainer_options": y or None} for x, y in product(choices, options)]


def name_of(label: str, choice: Mapping[str, Any], split: Mapping[str, int]) -> str:
    """The name of a run, without its seed.

    >>> name_of("HDML", {"learning_rate": 1e-3, "trainer_options": {"alpha": 2}}, {})
    'HDML, rate = 0.001, alpha = 2'
    """
    parts = [label, f"rate = {choice['learning_rate']:g}"]
    parts += [f"{name} = {value:g}" for name, value in list(_values(choice).items())[1:]]
    if "fold" in split:
        parts.append(f"fold = {split['fold']}")
    return ", ".join(parts)


def best(trials: Trials) -> dict[str, Trial]:
    """Variant -> the trial with the largest mean; the first of equal ones."""
    return {label: max(own, key=lambda trial: trial.mean) for label, own in trials.items()}


def choice_rows(trials: Trials) -> list[list[str]]:
    """A header, and for each variant a row with its choice."""
    (first, *_), *_ = trials.values()
    shared = [name for name in _SHARED if name in first.choice]
    table = [["", *map(_title, shared), "other", "MAP@R, validation"]]
    for label, trial in best(trials).items():
        cells = [f"{trial.choice[name]:g}" for name in shared]
        mean = f"{100 * trial.mean:.1f}"
        table.append([label, *cells, ", ".join(_options(trial.choice)), mean])
    return table


def at_the_edge(trials: Trials) -> str:
    """A sentence that names choices at an end of the tried values; empty without any."""
    names = []
    for label, trial in best(trials).items():
        tried = [_values(x.choice) for x in trials[label]]
        for name, value in _values(trial.choice).items():
            values = {x[name] for x in tried}
            # Nothing is below 0.
            if len(values) > 1 and value and value in (min(values), max(values)):
                names.append(f"{label} ({name} = {value:g})")
    if not names:
        return ""
    return (
        "Chosen at an end of the values tried, so a value beyond may be better: "
        f"{'; '.join(names)}."
    )


def draw(trials: Trials, bases: tables.Bases, out: Path) -> None:
    """Write validation.png: MAP@R by learning rate, each at the best of other values."""
    lines = {}
    for label, own in trials.items():
        # Of those with the same rate, the best one is the last.
        ordered = sorted(own, key=lambda trial: trial.mean)
        by_rate = {trial.choice["learning_rate"]: trial.shares for trial in ordered}
        rates = sorted(by_rate)
        lines[label] = rates, 100 * np.array([by_rate[rate] for rate in rates]).T
    titles = ("learning rate", "MAP@R on validation classes (%)")
    figures.draw_lines(lines, bases, titles, ("log", "linear"), out / "validation.png")


def write_csv(
    runs: Iterable[tuple[str, Mapping[str, Any]]], path: Path, metrics: Iterable[str] = ()
) -> None:
    """Write a line for each named run, unrounded, with empty metrics for untested runs."""
    header = ["method", *_SHARED, "other", "fold", "seed"]
    header += [f"validation_{_CRITERION}", "rise", *metrics]
    rows: list[list[object]] = [[*header]]
    for label, run in runs:
        settings = run["settings"]
        # Earlier versions had no weight decay.
        choice = [settings.get(name, 0.0) for name in _SHARED]
        choice.append("; ".join(_options(settings)))
        split = [settings["fold"], settings["seed"]]
        tested = [run["test"].get(metric, "") for metric in metrics]
        last = "diverged" if "diverged" in run else last_map(run)
        rows.append([label, *choice, *split, last, convergence.rise(run), *tested])
    tables.write_csv(path, rows)


def runs_of(trials: Trials) -> Iterator[tuple[str, Trial, Mapping[str, Any]]]:
    """The variant, the trial, and what training.run returned, of every run."""
    for label, own in trials.items():
        for trial in own:
            for run in trial.runs:
                yield label, trial, run


def without_diverged(trials: Trials, results: Results) -> tuple[Results, str]:
    """The results that did not diverge, and a sentence about all runs that did.

    Raises:
        ValueError: all results did.
    """
    searched = [(name_of(label, x.choice, {}), run) for label, x, run in runs_of(trials)]
    tested = [(label, run) for label, runs in results.items() for run in runs]
    diverged = convergence.diverged([*searched, *tested])
    finite: dict[str, list[convergence.Result]] = {}
    for label, run in tested:
        if "diverged" not in run:
            finite.setdefault(label, []).append(run)
    if not finite:
        raise ValueError(diverged)
    return finite, diverged


def last_map(run: Mapping[str, Any]) -> float:
    """MAP@R on the validation classes after the last step, a share of 1.

    0 for a run that diverged, so that it loses against all others.
    """
    return 0.0 if "diverged" in run else run["val"][_CRITERION][-1]


def _values(choice: Mapping[str, Any]) -> dict[str, float]:
    """Title -> value of all searched parameters, the learning rate first."""
    return {
        **{_title(name): choice[name] for name in _SHARED if name in choice},
        **(choice.get("trainer_options") or {}),
    }


def _title(name: str) -> str:
    return name.replace("_", " ")


def _options(choice: Mapping[str, Any]) -> list[str]:
    """'name = value' of the parameters that a method searches for itself."""
    options = choice.get("trainer_options") or {}
    return [f"{name} = {value:g}" for name, value in options.items()]
