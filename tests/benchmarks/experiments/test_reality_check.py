"""Hyper-parameters from validation folds, and a test split that is used once."""

import csv

import pytest

from benchmarks.__main__ import main
from benchmarks.data.glyphs import glyphs
from benchmarks.data.splits import FOLDS, SplitOptions
from benchmarks.experiments import runs
from benchmarks.reporting import finished_runs
from benchmarks.training.records import read
from benchmarks.training.settings import Settings

TINY = ["--steps", "2", "--test-interval", "2", "--batch-size", "8", "--width", "2"]


def test_folds_share_nothing_and_leave_the_test_alone():
    usual = glyphs(SplitOptions(seed=1))
    both = set(usual.train.labels) | set(usual.val.labels)
    folds = [glyphs(SplitOptions(seed=1, fold=fold)) for fold in range(FOLDS)]
    for fold in folds:
        assert not set(fold.train.labels) & set(fold.val.labels)
        assert set(fold.train.labels) | set(fold.val.labels) == both
        assert (fold.test.labels == usual.test.labels).all()
    validated = [set(fold.val.labels) for fold in folds]
    assert set.union(*validated) == both
    assert sum(map(len, validated)) == len(both)


def test_a_fold_that_is_not_there():
    with pytest.raises(ValueError, match="fold must be from 0 to 3, got 4"):
        SplitOptions(seed=0, fold=4)
    with pytest.raises(ValueError, match="fold must be from 0 to 3, got 4"):
        Settings("N-pairs", 0, fold=4)


def test_only_the_chosen_rate_is_tested(tmp_path, capsys):
    arguments = ["reality-check", "--out", str(tmp_path), *TINY, "--max-classes", "6"]
    arguments += ["--methods", "N-pairs", "Symm + N-pairs", "N-pairs"]
    arguments += ["--learning-rates", "0.001", "0.1"]
    assert main(arguments) == 0
    of_variants = finished_runs.read(tmp_path).variants
    assert {label: len(own) for label, own in of_variants.items()} == {
        "N-pairs": FOLDS,
        "Symm + N-pairs": FOLDS,
    }
    shown = capsys.readouterr().out
    assert "| Symm + N-pairs | N-pairs |" in shown
    folders = list(tmp_path.glob("*-seed*"))
    results = [read(tmp_path / "records.db", path.name) for path in folders]
    searched = [x for x in results if not x["settings"]["touch_test"]]
    tested = [x for x in results if x["settings"]["touch_test"]]
    assert len(searched) == 2 * 2 * 4
    assert all(x["test"] == {} for x in searched)
    assert len(tested) == 2 * 4
    assert all(0 < x["test"]["r_precision"] <= 1 for x in tested)
    # The chosen rate is the best on the validation folds.
    for method in ("N-pairs", "Symm + N-pairs"):
        means = {}
        for x in searched:
            if x["settings"]["method"] == method:
                rate = x["settings"]["learning_rate"]
                final = x["val"]["mean_average_precision_at_r"][-1]
                means[rate] = means.get(rate, 0) + final
        (rate,) = {
            x["settings"]["learning_rate"]
            for x in tested
            if x["settings"]["method"] == method
        }
        assert means[rate] == max(means.values())
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 16 + 8
    assert [line["r_precision"] != "" for line in lines] == [False] * 16 + [True] * 8
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_without_pairs_nothing_is_paired(tmp_path, capsys):
    arguments = ["reality-check", "--out", str(tmp_path), *TINY, "--max-classes", "6"]
    assert main([*arguments, "--methods", "Triplet", "--learning-rates", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "| Triplet | 0.1 |" in shown
    assert "Paired by fold" not in shown


def test_a_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "run", None)
    out = tmp_path / "out"
    arguments = ["reality-check", "--out", str(out), "--methods", "N-pairs", "--dry-run"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("to train") == 12
    assert not out.exists()
