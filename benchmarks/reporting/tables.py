"""Tables of results, as CSV and as Markdown."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp, ttest_rel

from . import convergence

Runs = Sequence[Mapping[str, Any]]
"""What training.run returned, one for each seed."""

Results = Mapping[str, Runs]
"""Variant -> its runs."""

Bases = Mapping[str, Sequence[str]]
"""Variant -> the variants that it is compared with, its base loss first."""

COLUMNS = {
    "recall_at_1": "R@1",
    "recall_at_2": "R@2",
    "recall_at_4": "R@4",
    "recall_at_8": "R@8",
    "mean_average_precision_at_r": "MAP@R",
    "NMI": "NMI",
    "F1": "F1",
}


PUBLISHED = {
    "Triplet": (35.9, 45.1, 53.9),
    "Triplet, semi-hard": (40.6, 53.2, 57.8),
    "DAML + Triplet": (37.6, 60.6, 58.1),
    "HDML + Triplet": (43.6, 61.0, 58.5),
    "Symm + Triplet": (51.4, 69.7, 65.7),
    "Symm + Triplet, semi-hard": (55.0, 68.5, 68.5),
    "N-pairs": (51.9, 68.9, 66.4),
    "DAML + N-pairs": (52.7, 75.1, 68.4),
    "HDML + N-pairs": (53.7, 79.1, 68.7),
    "Symm + N-pairs": (55.9, 76.5, 73.2),
    "Angular": (53.6, 71.3, 67.9),
    "Symm + Angular": (54.9, 75.5, 73.1),
    "Lifted": (46.9, 59.9, 62.6),
    "Symm + Lifted": (54.9, 66.6, 72.3),
}
"""Method -> recall@1 in percent on CUB-200-2011, CARS196 and Stanford Online Products,
from Tables 1 to 3 of Gu & Ko, AAAI 2020."""

PAPER_DATASETS = {"cub": "CUB", "cars": "CARS", "sop": "SOP"}


RISE = "rise, last quarter"


COMPARED = {x: COLUMNS[x] for x in ("recall_at_1", "mean_average_precision_at_r")}


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation; the mean alone for a single value.

    >>> mean_and_spread([80.0, 81.0, 82.0])
    '81.0 ± 1.0'
    """
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def percentages(runs: Runs, metric: str) -> list[float]:
    """A metric on the test classes, in percent, of each run."""
    return [100 * run["test"][metric] for run in runs]


def paired(runs: Runs, base: Runs) -> tuple[Runs, Runs]:
    """The runs of both that have a partner of the same seed and fold, in the same order."""

    def by_split(runs: Runs) -> dict[tuple[int, int | None], Mapping[str, Any]]:
        return {(x["settings"]["seed"], x["settings"].get("fold")): x for x in runs}

    first, second = by_split(runs), by_split(base)
    both = [split for split in first if split in second]
    return [first[x] for x in both], [second[x] for x in both]


def mean_and_interval(values: Sequence[float]) -> str:
    """Mean with Student's 95 % interval; the mean alone for a single value.

    >>> mean_and_interval([1.0, 2.0, 3.0])
    '2.0 [-0.5, 4.5]'
    """
    if len(values) == 1:
        return f"{values[0]:.1f}"
    low, high = ttest_1samp(values, 0).confidence_interval()
    return f"{statistics.mean(values):.1f} [{low:.1f}, {high:.1f}]"


class Difference(NamedTuple):
    """A mean difference and its 95 % interval, which is nan for a single pair."""

    mean: float
    low: float
    high: float


def difference(values: Sequence[float], base: Sequence[float]) -> Difference:
    """The difference of values minus base, paired.

    >>> difference([81.0, 79.0], [80.0, 81.0]).mean
    -0.5
    """
    mean = statistics.mean(values) - statistics.mean(base)
    if len(values) == 1:
        return Difference(mean, math.nan, math.nan)
    return Difference(mean, *ttest_rel(values, base).confidence_interval())


def paired_difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean of values minus base, with its 95 % interval and the verdict.

    >>> paired_difference([81.0, 82.1, 83.0], [80.0, 81.0, 82.0])
    '+1.03 [+0.89, +1.18] (wins)'
    >>> paired_difference([81.0, 79.0], [80.0, 81.0])
    '-0.50 [-19.56, +18.56] (ties)'
    """
    mean, low, high = difference(values, base)
    if len(values) == 1:
        return f"{mean:+.2f} (one seed: no interval)"
    verdict = "wins" if low > 0 else "loses" if high < 0 else "ties"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] ({verdict})"


def accuracy_rows(results: Results) -> list[list[str]]:
    """A header, and a row for each method.

    Percentages, how much MAP@R on the validation classes rose in the last quarter of the
    steps, and milliseconds per step.
    """
    rows = [["method", *COLUMNS.values(), RISE, "ms/step"]]
    for method, runs in results.items():
        cells = [mean_and_spread(percentages(runs, metric)) for metric in COLUMNS]
        milliseconds = [1000 * run["seconds_per_step"] for run in runs]
        rise = convergence.cell(runs)
        pace = mean_and_spread(milliseconds, 0)
        # The first step of an epoch has no time.
        rows.append([method, *cells, rise, "no time" if "nan" in pace else pace])
    return rows


def difference_rows(
    results: Results, bases: Bases, metrics: Mapping[str, str] = COMPARED
) -> list[list[str]]:
    """A header, and a row for each variant and base that share seeds.

    Comparisons with a row that was still rising have convergence.MARK.

    Args:
        results: the runs.
        bases: which variants to compare.
        metrics: metric -> its title.
    """
    rows = [["", "minus", *(f"{title}, points [95 %]" for title in metrics.values())]]
    for label, runs in results.items():
        for base in bases.get(label, ()):
            own, others = paired(runs, results.get(base, ()))
            if own:
                rising = any(map(convergence.is_rising, (runs, results[base])))
                mark = f" {convergence.MARK}" * rising
                cells = [
                    paired_difference(percentages(own, metric), percentages(others, metric))
                    + mark
                    for metric in metrics
                ]
                rows.append([label, base, *cells])
    return rows


def published_rows(results: Results, dataset: str) -> list[list[str]]:
    """A header, and a row for each method: measured and published recall@1.

    For a dataset that is not in the paper, the published values of all three datasets.
    """
    places = [i for i, name in enumerate(PAPER_DATASETS) if name == dataset]
    places = places or list(range(len(PAPER_DATASETS)))
    titles = list(PAPER_DATASETS.values())
    rows = [["R@1", f"here, {dataset}", *(f"paper, {titles[i]}" for i in places)]]
    for label, runs in results.items():
        if label in PUBLISHED:
            here = mean_and_spread(percentages(runs, "recall_at_1"))
            rows.append([label, here, *(f"{PUBLISHED[label][i]:.1f}" for i in places)])
    return rows


def note(rows: Sequence[Sequence[str]]) -> str:
    """What the mark in rows of differences means; empty without a mark."""
    marked = any(convergence.MARK in cell for row in rows for cell in row)
    return convergence.NOTE * marked


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first row is the header.

    >>> print(markdown([["method", "R@1"], ["N-pairs", "80.0"]]))
    | method | R@1 |
    | --- | --- |
    | N-pairs | 80.0 |
    """
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_csv(results: Results, path: Path) -> None:
    """Write a line for each run, unrounded; its rise is in points."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", *COLUMNS, "rise", "seconds_per_step"])
        for method, runs in results.items():
            for run in runs:
                values = [run["test"][metric] for metric in COLUMNS]
                values += [convergence.rise(run), run["seconds_per_step"]]
                writer.writerow([method, run["settings"]["seed"], *values])
