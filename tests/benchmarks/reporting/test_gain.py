"""python -m benchmarks gain: what it compares, and what it draws."""

import csv
import shlex
import shutil

import pytest

from benchmarks.__main__ import main
from benchmarks.reporting import finished_runs, gain, tables
from benchmarks.reporting.finished_runs import FinishedRuns

TINY = shlex.split("--steps 2 --test-interval 2 --batch-size 8 --width 2 --max-classes 6")


def runs_of(method, recalls, angle=30.0):
    return [
        {
            "settings": {"method": method, "seed": seed},
            "test": {"recall_at_1": x, "mean_average_precision_at_r": x / 2},
            "angle": {"step": [0, 2], "degrees": [80.0, angle + seed]},
        }
        for seed, x in enumerate(recalls)
    ]


def test_against_base_and_control_at_the_angle_of_the_control(tmp_path, monkeypatch):
    base, control = "N-pairs", "N-pairs, hardest originals"
    variants = {
        base: runs_of(base, [0.5, 0.6], angle=10),
        control: runs_of(control, [0.55, 0.63], angle=20),
        "Symm + N-pairs": runs_of("Symm + N-pairs", [0.56, 0.66, 0.1], angle=50),
    }
    bases = {base: (), control: (base,), "Symm + N-pairs": (base, control)}
    (found,) = gain.gains_of(FinishedRuns("some", variants, bases, {}))
    assert {x[:3] for x in found} == {("some", "Symm + N-pairs", 20.5)}
    (over_control,) = (
        x for x in found if (x.against, x.metric) == ("hardest originals", "recall_at_1")
    )
    assert over_control.seeds == 2
    own = variants["Symm + N-pairs"][:2]
    expected = tables.difference(own, variants[control], "recall_at_1")
    assert over_control.difference == pytest.approx(expected)
    # Without a control, the angle is the base's.
    del variants[control]
    (found,) = gain.gains_of(
        FinishedRuns("some", variants, {"Symm + N-pairs": (base,)}, {})
    )
    assert {(x.angle, x.against) for x in found} == {(10.5, "base loss")}


def test_the_gain_of_angular_is_over_the_normalized_base():
    base, normalized, symm = "Angular", "Angular, all normalized", "Symm + Angular"
    variants = {
        base: runs_of(base, [0.1, 0.2]),
        normalized: runs_of(normalized, [0.5, 0.6]),
        symm: runs_of(symm, [0.7, 0.8]),
    }
    bases = {symm: (base, normalized)}
    (found,) = gain.gains_of(FinishedRuns("some", variants, bases, {}))
    (over_base,) = (x.difference.mean for x in found if x.metric == "recall_at_1")
    assert over_base == pytest.approx(20)
    del variants[normalized]
    (found,) = gain.gains_of(FinishedRuns("some", variants, {symm: (base,)}, {}))
    (over_base,) = (x.difference.mean for x in found if x.metric == "recall_at_1")
    assert over_base == pytest.approx(60)


def test_runs_without_an_angle_are_not_compared():
    variants = {
        "Triplet": runs_of("Triplet", [0.5]),
        "Symm + Triplet": runs_of("Symm + Triplet", [0.5]),
    }
    del variants["Triplet"][0]["angle"]
    runs = FinishedRuns("old", variants, {"Symm + Triplet": ("Triplet",)}, {})
    assert gain.gains_of(runs) == []


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "glyphs"
    arguments = ["compare", "--out", str(out), *TINY, "--seeds", "0", "--methods"]
    assert main([*arguments, "Triplet", "Symm + Triplet"]) == 0
    return out


def test_it_writes_a_table_and_a_figure(out, tmp_path, capsys, monkeypatch):
    real = finished_runs.read

    def read(folder):
        """The folder's runs; for one name, runs that are made up."""
        if folder.name != "texts":
            return real(folder)
        variants = {
            "Triplet": runs_of("Triplet", [0.5, 0.6, 0.7]),
            "Triplet, hardest originals": runs_of("Triplet, hardest originals", [0.5]),
            "Symm + Triplet": runs_of("Symm + Triplet", [0.9, 0.98, 1.0]),
        }
        bases = {"Symm + Triplet": ("Triplet", "Triplet, hardest originals")}
        return FinishedRuns("texts", variants, bases, {})

    monkeypatch.setattr(finished_runs, "read", read)
    arguments = ["gain", str(out), "texts", "--out", str(tmp_path / "gain")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "gain" / "gain.md").read_text() in shown
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| texts | Symm + Triplet | 30.0 | +36.00 [")
    assert "(one seed: no interval) | +20.00 (one seed: no interval) |" in lines[2]
    assert lines[3].startswith("| glyphs | Symm + Triplet |")
    assert lines[3].endswith("|  |  |")
    assert "Converged or not: unknown for glyphs, texts." in shown
    with (tmp_path / "gain" / "gain.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["experiment"], row["seeds"]) for row in rows] == [
        *2 * [("texts", "3")],
        *2 * [("texts", "1")],
        *2 * [("glyphs", "1")],
    ]
    assert float(rows[0]["mean"]) == pytest.approx(36)
    assert float(rows[0]["low"]) < 36 < float(rows[0]["high"])
    assert (tmp_path / "gain" / "gain.png").read_bytes().startswith(b"\x89PNG")


def test_folders_of_one_name_are_told_apart(out, tmp_path, capsys):
    again = tmp_path / "again" / out.name
    shutil.copytree(out, again)
    folders = [str(out), str(again)]
    assert main(["gain", *folders, "--out", str(tmp_path / "gain")]) == 0
    shown = capsys.readouterr().out
    assert "| again/glyphs | Symm + Triplet" in shown
    assert f"| {out.parent.name}/glyphs | Symm + Triplet" in shown


def test_folders_that_say_nothing_are_named(tmp_path, capsys):
    assert main(["gain", "--out", str(tmp_path / "gain")]) == 2
    assert "name at least one output folder" in capsys.readouterr().err
    assert main(["gain", str(tmp_path / "none"), "--out", str(tmp_path / "gain")]) == 2
    assert f"{tmp_path / 'none'} holds no finished runs" in capsys.readouterr().err
    assert not (tmp_path / "gain").exists()
