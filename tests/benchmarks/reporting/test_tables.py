"""The code makes the documentation's tables from the committed runs beside them."""

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


def validations(line):
    """Validations with the rise of a line; none for tables of earlier versions."""
    if not line.get("rise"):
        return {}
    maps = [0, 0, 0, float(line["rise"]) / 100]
    return {"step": [1, 2, 3, 4], "mean_average_precision_at_r": maps}


def committed_results(folder, metrics):
    """Method -> the results of its runs, in the format of tables.py."""
    results = {}
    with (folder / "table.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            if all(line[metric] for metric in metrics):
                test = {metric: float(line[metric]) for metric in metrics}
                settings = {"seed": line["seed"], "fold": line.get("fold")}
                run = {"settings": settings, "test": test, "val": validations(line)}
                results.setdefault(line["method"], []).append(run)
    return results


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda x: x.name)
def test_paired_differences(folder):
    _, text = (folder / "table.md").read_text(encoding="utf-8").split("Paired by")
    # A table of a search's choices may follow.
    lines = text.split("\n\n")[1].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    bases = {}
    for label, base, *_ in cells:
        bases.setdefault(label, []).append(base)
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


def runs_of(*percentages):
    return [{"test": {"F1": x / 100}} for x in percentages]


def difference(runs, base):
    return str(tables.difference(runs, base, "F1"))


def test_runs_that_are_all_alike_tie():
    alike = runs_of(80.0, 81.0, 82.5)
    assert difference(alike, alike) == "+0.00 [+0.00, +0.00] (ties)"


def test_differences_and_verdicts():
    found = difference(runs_of(81.0, 82.1, 83.0), runs_of(80.0, 81.0, 82.0))
    assert found == "+1.03 [+0.89, +1.18] (wins)"
    found = difference(runs_of(81.0, 79.0), runs_of(80.0, 81.0))
    assert found == "-0.50 [-19.56, +18.56] (ties)"
    assert tables.difference(runs_of(81.0, 79.0), runs_of(80.0, 81.0), "F1").mean == -0.5
    assert difference(runs_of(80.0), runs_of(79.0)) == "+1.00 (one seed: no interval)"


def test_runs_are_paired_by_seed_not_by_order():
    def found(recalls):
        return [
            {"settings": {"seed": seed}, "test": dict.fromkeys(tables.COMPARED, recall)}
            for seed, recall in recalls.items()
        ]

    results = {
        "Symm": found({0: 0.80, 1: 0.90, 2: 0.70}),
        "base": found({2: 0.69, 1: 0.88, 3: 0.10}),
        "control": found({0: 0.80}),
        "of other seeds": found({7: 0.80}),
    }
    bases = {"Symm": ("base", "control", "of other seeds", "not there")}
    rows = tables.difference_rows(results, bases)
    assert [row[:2] for row in rows[1:]] == [["Symm", "base"], ["Symm", "control"]]
    assert rows[1][2].startswith("+1.50 [")
    assert rows[2][2] == "+0.00 (one seed: no interval)"


def test_each_measure_is_in_its_column():
    values = {name: number / 100 for number, name in enumerate(tables.COLUMNS, start=11)}
    result = {"test": values, "seconds_per_step": 0.25, "settings": {"seed": 0}}
    header, row = tables.accuracy_rows({"a": [result]})
    found = dict(zip(header, row, strict=True))
    names = ("R@1", "R@2", "R@4", "R@8", "MAP@R", "NMI", "F1")
    assert [float(found[name]) for name in names] == [11, 12, 13, 14, 15, 16, 17]
    assert found["ms/step"] == "250"


def test_the_published_numbers_are_the_paper_s():
    """Recall@1 on CUB-200-2011, CARS196 and SOP, from Tables 1 to 3."""
    assert tables.PUBLISHED == {
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
