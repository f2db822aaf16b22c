"""Tables of results, as CSV and as Markdown."""

from __future__ import annotations

import csv
import math
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_metric_learning
import torch
from scipy.stats import ttest_1samp, ttest_rel

from . import convergence
from .convergence import Result, Results

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
COMPARED = {x: COLUMNS[x] for x in ("recall_at_1", "mean_average_precision_at_r")}
RISE = "rise, last quarter"

PAPER_DATASETS = {"cub": "CUB", "cars": "CARS", "sop": "SOP"}
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


def percentages(runs: Sequence[Result], metric: str) -> list[float]:
    """A metric on the test classes, in percent, of each run."""
    return [100 * run["test"][metric] for run in runs]


def mean_and_spread(values: Sequence[float], digits: int = 1, sign: str = "") -> str:
    """Mean ± standard deviation; the mean alone for a single value.

    >>> mean_and_spread([80.0, 81.0, 82.0])
    '81.0 ± 1.0'
    """
    mean = f"{np.mean(values):{sign}.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def mean_and_interval(values: Sequence[float]) -> str:
    """Mean with Student's 95 % interval; the mean alone for a single value.

    >>> mean_and_interval([1.0, 2.0, 3.0])
    '2.0 [-0.5, 4.5]'
    """
    if len(values) == 1:
        return f"{values[0]:.1f}"
    low, high = ttest_1samp(values, 0).confidence_interval()
    return f"{statistics.mean(values):.1f} [{low:.1f}, {high:.1f}]"


def mean_rise(runs: Sequence[Result]) -> str:
    """Mean ± standard deviation of the rises, in points; empty if it cannot be told."""
    values = convergence.rises(runs)
    return mean_and_spread(values, sign="+") if values else ""


def paired(
    runs: Sequence[Result], base: Sequence[Result]
) -> tuple[list[Result], list[Result]]:
    """The runs of both that have a partner of the same seed and fold, in the same order."""
    by_split, by_split_of_base = (
        {(x["settings"]["seed"], x["settings"].get("fold")): x for x in own}
        for own in (runs, base)
    )
    both = [split for split in by_split if split in by_split_of_base]
    return [by_split[x] for x in both], [by_split_of_base[x] for x in both]


class Difference(NamedTuple):
    """A mean difference in points and its 95 % interval, which is nan for a single pair.

    >>> str(Difference(-0.5, -19.56, 18.56))
    '-0.50 [-19.56, +18.56] (ties)'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:+.2f} (one seed: no interval)"
        verdict = "wins" if self.low > 0 else "loses" if self.high < 0 else "ties"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] ({verdict})"


def difference(
    runs: Sequence[Result], paired_with: Sequence[Result], metric: str
) -> Difference:
    """The difference of runs minus those that they are paired with."""
    values, base = percentages(runs, metric), percentages(paired_with, metric)
    mean = statistics.mean(values) - statistics.mean(base)
    if len(values) == 1:
        return Difference(mean, math.nan, math.nan)
    return Difference(mean, *ttest_rel(values, base).confidence_interval())


def accuracy_rows(results: Results) -> list[list[str]]:
    """A header, and a row for each variant.

    Percentages, how much MAP@R on the validation classes rose in the last quarter of the
    steps, and milliseconds per step.
    """
    rows = [["method", *COLUMNS.values(), RISE, "ms/step"]]
    for label, runs in results.items():
        cells = [mean_and_spread(percentages(runs, metric)) for metric in COLUMNS]
        pace = mean_and_spread([1000 * run["seconds_per_step"] for run in runs], 0)
        # The first step of an epoch has no time.
        pace = "no time" if "nan" in pace else pace
        rows.append([label, *cells, mean_rise(runs), pace])
    return rows


def difference_rows(
    results: Results, bases: Bases, metrics: Mapping[str, str] = COMPARED
) -> list[list[str]]:
    """A header, and a row for each variant and base that share seeds.

    Comparisons with a variant that was still rising have convergence.MARK.
    """
    rows = [["", "minus", *(f"{title}, points [95 %]" for title in metrics.values())]]
    for label, runs in results.items():
        for base in bases.get(label, ()):
            own, others = paired(runs, results.get(base, ()))
            if own:
                is_rising = any(map(convergence.is_rising, (runs, results[base])))
                mark = f" {convergence.MARK}" * is_rising
                cells = [f"{difference(own, others, x)}{mark}" for x in metrics]
                rows.append([label, base, *cells])
    return rows


def note(rows: Sequence[Sequence[str]]) -> str:
    """What the mark in rows of differences means; empty without a mark."""
    marked = any(convergence.MARK in cell for row in rows for cell in row)
    return convergence.NOTE * marked


def published_rows(results: Results, dataset: str) -> list[list[str]]:
    """A header, and a row for each method: measured and published recall@1.

    For a dataset that is not in the paper, the published values of all three datasets.
    """
    names = list(PAPER_DATASETS)
    places = [names.index(dataset)] if dataset in names else range(len(names))
    titles = [f"paper, {PAPER_DATASETS[names[i]]}" for i in places]
    rows = [["R@1", f"here, {dataset}", *titles]]
    for label, runs in results.items():
        if label in PUBLISHED:
            here = mean_and_spread(percentages(runs, "recall_at_1"))
            rows.append([label, here, *(f"{PUBLISHED[label][i]:.1f}" for i in places)])
    return rows


def run_rows(results: Results) -> list[list[object]]:
    """A header, and a row for each run, unrounded; its rise is in points."""
    rows: list[list[object]] = [["method", "seed", *COLUMNS, "rise", "seconds_per_step"]]
    for label, runs in results.items():
        for run in runs:
            values = [run["test"][metric] for metric in COLUMNS]
            values += [convergence.rise(run), run["seconds_per_step"]]
            rows.append([label, run["settings"]["seed"], *values])
    return rows


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows; the first is the header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


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


def document(*parts: str) -> str:
    """Tables and sentences, one below the other, without the empty ones."""
    return "\n\n".join(filter(None, parts)) + "\n"


def differences(paired_by: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """The paragraphs about difference_rows, paired by seed or fold; none without any."""
    if len(rows) == 1:
        return []
    return [f"Paired by {paired_by}:", markdown(rows), note(rows)]


def write(path: Path, *parts: str) -> str:
    """Write a document to a file, whose folder is made, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = document(*parts)
    path.write_text(text, encoding="utf-8")
    return text


def machine(threads: int | None = None) -> str:
    """The machine, its threads and the versions that results were computed with."""
    return (
        f"{threads or torch.get_num_threads()} threads, {platform.machine()}, "
        f"{platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, pytorch-metric-learning "
        f"{pytorch_metric_learning.__version__}"
    )
