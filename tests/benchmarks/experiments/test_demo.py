"""The demo, with few classes and steps: what it writes, and how it resumes."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.reporting.tables import difference_rows
from benchmarks.training import run
from benchmarks.training.records import read
from benchmarks.training.settings import Settings

TINY = shlex.split("--steps 4 --test-interval 2 --batch-size 8 --width 2 --max-classes 8")
TWO = ["--methods", "N-pairs", "Symm + N-pairs", "--seeds", "0", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out), *TINY, *TWO]) == 0
    return out


def test_it_writes_tables_and_figures(finished):
    with (finished / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("N-pairs", "0"),
        ("N-pairs", "1"),
        ("Symm + N-pairs", "0"),
        ("Symm + N-pairs", "1"),
    ]
    for row in rows:
        recalls = [float(row[f"recall_at_{k}"]) for k in (1, 2, 4, 8)]
        assert 0 < recalls[0] <= recalls[1] <= recalls[2] <= recalls[3] <= 1
        assert float(row["seconds_per_step"]) > 0
    text = (finished / "table.md").read_text()
    assert "| Symm + N-pairs |" in text
    assert "Paired by seed:" in text
    assert "Machine:" in text and "Time:" in text
    names = ("accuracy", "synthetic_ratio", "angle", "loss", "gradient")
    for figure in (f"{name}.png" for name in names):
        assert (finished / figure).read_bytes().startswith(b"\x89PNG")


def test_every_run_keeps_its_settings_and_records(finished):
    folders = sorted(finished.glob("*-seed*"))
    assert len(folders) == 4
    for folder in folders:
        assert [path.name for path in folder.glob("*.pt")] == ["checkpoint.pt"]
        result = read(finished / "records.db", folder.name)
        settings = json.loads((folder / "settings.json").read_text())
        assert settings == result["settings"]
        assert result["settings"]["steps"] == 4
        assert result["val"]["step"] == [2, 4]
        endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert {".db", ".csv"} <= endings
        assert any((folder / "tensorboard").iterdir())
    ratios = read(finished / "records.db", "symm+n-pairs-seed0")
    assert all(0 <= x <= 1 for x in ratios["synthetic_ratio"]["ratio"])


def forbid(monkeypatch):
    def train(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(run, "_Run", train)


def test_finished_runs_are_not_trained_again(finished, tmp_path, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    forbid(monkeypatch)
    assert main(["demo", "--out", str(copy), *TINY, *TWO]) == 0
    assert (copy / "table.csv").read_text() == (finished / "table.csv").read_text()
    assert "Time:" not in (copy / "table.md").read_text()  # it would be that of nothing


def test_more_steps_train_finished_runs_on(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "copy")
    arguments = ["demo", "--out", str(copy), *TINY, *TWO, "--steps", "6"]
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| to train on | 2 |") == 4
    assert "for 4 runs" in shown
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "run 4 of 4: Symm + N-pairs, seed 1; about 1 minute for 1 run" in shown
    assert "after 6 steps" in shown
    assert read(copy / "records.db", "n-pairs-seed0")["val"]["step"] == [2, 4, 6]


def test_force_trains_again(finished, tmp_path, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    forbid(monkeypatch)
    with pytest.raises(AssertionError, match="trained again"):
        main(["demo", "--out", str(copy), *TINY, *TWO, "--force"])


def test_a_stopped_command_with_force_says_what_it_left(tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_Run", stop)
    assert main(["demo", "--out", str(tmp_path), *TINY, *TWO, "--force"]) == 130
    error = capsys.readouterr().err
    assert "leaves runs that it has not reached as they were" in error


def test_a_finished_run_with_other_settings_is_kept(finished, monkeypatch, capsys):
    before = read(finished / "records.db", "n-pairs-seed0")
    forbid(monkeypatch)
    arguments = ["demo", "--out", str(finished), *TINY, *TWO, "--learning-rate", "0.01"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "learning_rate was 0.001, is 0.01" in error
    assert "--force" in error
    assert read(finished / "records.db", "n-pairs-seed0") == before


def test_a_stopped_demo_goes_on_where_it_was(finished, tmp_path, monkeypatch, capsys):
    arguments = ["demo", "--out", str(tmp_path), *TINY, *TWO]
    real, calls = run._Run, []

    def stop_in_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(run, "_Run", stop_in_the_third)
    assert main(arguments) == 130
    assert "the same command continues from here" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "Time: " not in capsys.readouterr().out  # the command ran twice
    assert len(calls) == 5

    def without_times(path):
        with (path / "table.csv").open() as file:
            return [row[:-1] for row in csv.reader(file)]

    # The same seed gives the same table.
    assert without_times(tmp_path) == without_times(finished)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be a multiple of test_interval, both at least 1"),
        (["--steps", "7"], "got 7 and 50"),
        (["--batch-size", "9"], "batch_size must be a multiple of m"),
        (["--seeds", "1", "1"], r"seeds must be at least one, all different, got [1, 1]"),
        (
            ["--max-classes", "0"],
            "max_classes must be at least batch_size / m = 64 classes, got 0",
        ),
        (["--embedding-size", "0"], "embedding_size must be at least 1, got 0"),
        (["--width", "-1"], "width must be at least 1, got -1"),
        (["--learning-rate", "-1"], "learning_rate must be a finite positive number"),
        (["--learning-rate", "nan"], "learning_rate must be a finite positive number"),
        (["--weight-decay", "-0.1"], "weight_decay must be a finite number >= 0, got -0.1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    arguments, message, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_batch_of_more_classes_than_there_are_is_refused(tmp_path):
    settings = Settings("N-pairs", 0, batch_size=4000)
    with pytest.raises(ValueError, match=r"training split must be .* = 2000 classes"):
        run.run(settings, tmp_path / "run")


def test_an_unknown_method_is_refused_with_the_choices(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--methods", "Tripel"])
    error = capsys.readouterr().err
    assert "Tripel" in error
    assert "Symm + Triplet" in error


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["demo", "--out", str(tmp_path / "file"), *TINY]) == 2
    assert "file" in capsys.readouterr().err


def test_help_runs_as_a_module():
    text = subprocess.run(
        [sys.executable, "-m", "benchmarks", "demo", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout
    assert "--seeds" in text
    assert "not trained again" in text


def test_a_single_seed_claims_nothing():
    result = {
        "settings": {"seed": 0},
        "test": {"recall_at_1": 0.5, "mean_average_precision_at_r": 0.4},
    }
    rows = difference_rows(
        {"N-pairs": [result], "Symm + N-pairs": [result]}, {"Symm + N-pairs": ["N-pairs"]}
    )
    assert rows[1][:2] == ["Symm + N-pairs", "N-pairs"]
    assert rows[1][2:] == 2 * ["+0.00 (one seed: no interval)"]
