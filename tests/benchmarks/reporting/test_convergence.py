"""Rows that were still rising: which they are, and where a reader learns of it."""

import csv
import shlex

import pytest

from benchmarks.__main__ import main
from benchmarks.reporting import convergence, gain, tables
from benchmarks.reporting.finished_runs import FinishedRuns

TINY = shlex.split("--test-interval 2 --batch-size 8 --width 2 --max-classes 8 --seeds 0")


def run_of(maps, seed=0, method="N-pairs"):
    steps = [10 * number for number in range(1, len(maps) + 1)]
    return {
        "settings": {"seed": seed, "steps": steps[-1], "method": method},
        "val": {"step": steps, "mean_average_precision_at_r": [x / 100 for x in maps]},
        "test": dict.fromkeys(tables.COLUMNS, 0.5),
        "seconds_per_step": 0.1,
        "angle": {"step": [0], "degrees": [45.0]},
    }


def runs_of(*rises, method="N-pairs"):
    return [run_of([1, 2, 3, 3 + x], seed, method) for seed, x in enumerate(rises)]


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ([0, 10, 20, 21], 1),
        ([0, 9, 9, 9, 9, 5, 9, 8], 3),  # it starts at the sixth of eight validations
        ([0, 10, 11, 12, 13], 1.25),  # it starts at 37.5 of 50 steps, between two
        ([0, 10, 20], None),
    ],
)
def test_the_last_quarter(maps, expected):
    found = convergence.rise(run_of(maps))
    assert found is None if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rises", "expected"),
    [
        ([0.6], True),
        ([0.4], False),
        ([0.9, 0.3, 0.6], True),  # more than half a point, however far the seeds differ
        ([3.0, -2.0, 0.8], True),
        ([0.2, 0.25, 0.3], True),  # little, but the same for all seeds
        ([0.05, 0.06, 0.07], False),  # less than a table shows
        ([0.4, -0.3, 0.3], False),
        ([-3.0, -3.1], False),
    ],
)
def test_what_is_still_rising(rises, expected):
    assert convergence.is_rising(runs_of(*rises)) == expected


def test_the_sentence_names_rows_and_the_flag():
    results = {"a": runs_of(2.0), "b": runs_of(0.0), "c": runs_of(0.2, 0.21)}
    text = convergence.not_converged(results)
    assert text.startswith("Not converged: a; c. ")
    assert "--steps 80" in text
    assert convergence.not_converged({"b": results["b"]}) == ""
    text = convergence.not_converged({"b": results["b"], "short": [run_of([1, 2, 3])]})
    assert "unknown, with fewer than 4 validations" in text


def test_comparisons_with_a_rising_row_are_marked():
    results = {"Symm": runs_of(0.0), "base": runs_of(2.0), "control": runs_of(0.0)}
    rows = tables.difference_rows(results, {"Symm": ("base", "control")})
    assert all(cell.endswith(" †") for cell in rows[1][2:])
    assert not any("†" in cell for cell in rows[2])
    assert tables.note(rows) == "† At least one of the two was still rising."
    assert tables.note([rows[2]]) == ""
    assert [row[-2] for row in tables.accuracy_rows(results)[1:]] == [
        "+0.0",
        "+2.0",
        "+0.0",
    ]


def test_gains_with_a_rising_row_are_marked(tmp_path, monkeypatch):
    method = "Symm + N-pairs"
    variants = {
        "N-pairs": runs_of(0.0),
        "N-pairs, hardest originals": runs_of(2.0, method="N-pairs, hardest originals"),
        method: runs_of(0.0, method=method),
    }
    bases = {method: ("N-pairs", "N-pairs, hardest originals")}
    found = FinishedRuns("cars", variants, bases, {})
    monkeypatch.setattr(gain.finished_runs, "read", lambda folder: found)
    text, _ = gain.Gain(out=tmp_path, runs=(tmp_path,)).run()
    cells = text.splitlines()[2].strip("| ").split(" | ")
    assert ["†" in cell for cell in cells[3:]] == [False, False, True, True]
    assert "† At least one of the two was still rising." in text
    with (tmp_path / "gain.csv").open(newline="") as file:
        rising = {row["against"]: row["rising"] for row in csv.DictReader(file)}
    assert rising == {"base loss": "False", "hardest originals": "True"}


def test_compare_says_so_above_its_table(tmp_path, capsys, monkeypatch):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--methods", "N-pairs"]
    assert main([*arguments, "--steps", "4"]) == 0
    assert "Converged or not: unknown" in capsys.readouterr().out
    monkeypatch.setattr(convergence, "MUCH", -100)
    assert main([*arguments, "--steps", "8"]) == 0
    shown = capsys.readouterr().out
    text = (tmp_path / "table.md").read_text()
    for place in (shown, text):
        before, _ = place.split("| method |")
        assert "Not converged: N-pairs." in before
        assert "--steps 16" in before
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert f"| {float(row['rise']):+.1f} |" in text
