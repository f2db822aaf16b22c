"""The resources that a long run uses are written after each validation."""

import csv
from functools import partial

from benchmarks.__main__ import main
from benchmarks.experiments import soak
from benchmarks.training.settings import Settings


def test_usage_is_written_after_each_validation(tmp_path, capsys, monkeypatch):
    tiny = partial(Settings, batch_size=8, width=2, max_classes=8)
    monkeypatch.setattr(soak, "Settings", tiny)
    out = tmp_path / "out"
    arguments = ["soak", "--out", str(out), "--steps", "6", "--test-interval", "2"]
    assert main(arguments) == 0
    assert "threads by " in capsys.readouterr().out
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["2", "4", "6"]
    assert all(float(line["memory"]) > 50 for line in lines)
    assert all(int(line["files"]) > 0 and int(line["threads"]) > 0 for line in lines)
    # It does not know what a stopped run had used.
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_run_that_diverges_at_once_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(soak, "run", lambda *arguments, **options: {"diverged": {}})
    assert main(["soak", "--out", str(tmp_path)]) == 2
    assert "diverged before its first validation" in capsys.readouterr().err
