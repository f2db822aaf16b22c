"""The tables in the documentation are what the code makes of the runs beside them."""

import csv
from pathlib import Path

import pytest

from benchmarks.experiments import reality_check
from benchmarks.reporting import tables

DOCS = Path(__file__).parents[3] / "docs"
REALITY_CHECK = DOCS / "benchmarks" / "reality-check"
COMPARISONS = sorted(
    path.parent
    for path in DOCS.glob("**/table.md")
    if "Paired by" in path.read_text() and (path.parent / "table.csv").exists()
)


def committed_results(folder, metrics):
    """Method -> what its runs found, as tables.py takes it."""
    results = {}
    with (folder / "table.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if all(line[metric] for metric in metrics):
                test = {metric: float(line[metric]) for metric in metrics}
                results.setdefault(line["method"], []).append({"test": test})
    return results


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda x: x.name)
def test_paired_differences(folder):
    _, text = (folder / "table.md").read_text().split("Paired by")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    bases = {label: base for label, base, *_ in cells}
    metrics = reality_check.METRICS if folder == REALITY_CHECK else tables.COMPARED
    rows = tables.difference_rows(committed_results(folder, metrics), bases, metrics)
    assert len(bases) > 0
    assert tables.markdown(rows) == "\n".join(lines)


def test_intervals_of_means():
    text = (REALITY_CHECK / "table.md").read_text()
    for method, runs in committed_results(REALITY_CHECK, reality_check.METRICS).items():
        cells = [
            tables.mean_and_interval(tables.percentages(runs, metric))
            for metric in reality_check.METRICS
        ]
        assert f"| {' | '.join(cells)} |" in text, method


def test_runs_that_are_all_alike_tie():
    values = [80.0, 81.0, 82.5]
    assert tables.paired_difference(values, values) == "+0.00 [+0.00, +0.00] (ties)"
    assert tables.paired_difference([80.0], [79.0]) == "+1.00 (one seed: says nothing)"
