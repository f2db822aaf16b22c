"""python -m benchmarks compare and ablate: every method, the records, the plan."""

import csv
import shlex
import sqlite3

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.commands import ABLATIONS
from benchmarks.methods.methods import METHODS, Synthesis
from benchmarks.reporting.tables import published_rows
from benchmarks.training import records
from benchmarks.training.run import run
from benchmarks.training.settings import Settings

TINY = shlex.split("--steps 4 --test-interval 2 --batch-size 8 --width 2 --max-classes 8")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name, tmp_path):
    settings = Settings(
        name, 0, steps=4, test_interval=2, batch_size=8, width=2, max_classes=4
    )
    result = run(settings, tmp_path / "run")
    assert 0 < result["test"]["recall_at_1"] <= 1
    assert result["val"]["step"] == [2, 4]
    queries = result["synthetic_queries"]
    assert queries["step"] == ([2, 4] if METHODS[name].is_symm else [])
    assert all(0 <= recall <= 1 for recall in queries["recall_at_1"])
    assert result["angle"]["step"] == [0, 2, 4]
    assert all(0 < degrees < 180 for degrees in result["angle"]["degrees"])
    for series in ("loss", "gradient_norm"):
        assert result[series]["step"] == [0, 1, 2, 3]
        assert all(value > 0 for value in result[series][series])
    ratios = result["synthetic_ratio"]["ratio"]
    assert bool(ratios) == METHODS[name].is_symm
    # None where a step had no negative to select.
    assert all(ratio is None or 0 <= ratio <= 1 for ratio in ratios)


def test_bases_are_methods():
    for method in METHODS.values():
        assert method.base is None or METHODS[method.base].base in (None, "Triplet")
        if method.control is not None:
            control = METHODS[method.control]
            assert method.is_symm and not control.is_symm
            assert control.base == method.base
            assert control.normalized_base == method.normalized_base
        if method.normalized_base is not None:
            assert METHODS[method.normalized_base].base == method.base


def test_angular_with_normalized_negatives_is_that_of_normalized_points():
    embeddings, labels = 5 * torch.randn(12, 4), torch.arange(6).repeat(2)
    unit = torch.nn.functional.normalize(embeddings)
    (ours, _), (theirs, _) = (
        METHODS[name].make(Synthesis()) for name in ("Angular, all normalized", "Angular")
    )
    torch.testing.assert_close(ours(embeddings, labels), theirs(unit, labels))
    assert (theirs(embeddings, labels) - theirs(unit, labels)).abs() > 0.01


def test_without_synthesis_the_hardest_originals_compete():
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(6, 4))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    loss, miner = METHODS["N-pairs, hardest originals"].make(Synthesis())
    loss.embedding_regularizer = None
    products = embeddings @ embeddings.t()
    logits = products.view(3, 2, 3, 2).amax(dim=(1, 3))
    logits = torch.diagonal_scatter(logits, products[[0, 2, 4], [1, 3, 5]])
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(3))
    torch.testing.assert_close(loss(embeddings, labels), expected)
    assert miner is None


def test_what_an_ablation_varies_reaches_the_loss():
    synthesis = Synthesis(alpha=1.5, beta=0.5, pairing="ring", hardness=4)
    loss, _ = METHODS["Symm + N-pairs"].make(synthesis)
    synthesizer = loss.synthesizer
    assert (synthesizer.alpha, synthesizer.beta, synthesizer.pairing) == (1.5, 0.5, "ring")
    assert loss.hardness == 4
    loss, _ = METHODS["Symm + Angular"].make(Synthesis(candidates="official"))
    assert loss.candidates == "official"
    _, miner = METHODS["SymmMiner + Triplet"].make(synthesis)
    assert (miner.synthesizer.alpha, miner.hardness) == (1.5, 4)
    loss, _ = METHODS["SymmLoss(Margin)"].make(synthesis)
    assert (loss.miner.synthesizer.beta, loss.miner.hardness) == (0.5, 4)


def without_times(path):
    with (path / "table.csv").open() as file:
        return [row[:-1] for row in csv.reader(file)]


@pytest.fixture
def _one_thread():
    """Use one thread, so that sums have the same order for any number of jobs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_several_jobs_give_the_same_table(tmp_path, capfd):
    methods = ["--methods", "Triplet", "Symm + Triplet", "--seeds", "0", "1"]
    for jobs in ("1", "2"):
        out = str(tmp_path / jobs)
        assert main(["compare", "--out", out, *TINY, *methods, "--jobs", jobs]) == 0
        lines = capfd.readouterr().out.splitlines()
        for name in ("Triplet, seed 0", "Symm + Triplet, seed 1"):
            states = [line.split(": ")[1] for line in lines if line[9:].startswith(name)]
            first = int(jobs) - 1  # "starting", for a process
            assert states[first:][:3] == ["reading data", "training", "testing"]
        assert any(line.startswith("Machine: 1 threads") for line in lines)
    assert without_times(tmp_path / "1") == without_times(tmp_path / "2")


def test_one_database_has_every_run_once(tmp_path):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--seeds", "0", "--methods"]
    assert main([*arguments, "Triplet", "N-pairs"]) == 0
    assert main([*arguments, "Triplet", "N-pairs", "--force"]) == 0
    with sqlite3.connect(tmp_path / "records.db") as database:
        names = database.execute(
            "SELECT experiment_name, method, recall_at_1 FROM results "
            "JOIN experiment_ids ON experiment_id = experiment_ids.id"
        ).fetchall()
    assert sorted(row[:2] for row in names) == [
        ("n-pairs-seed0", "N-pairs"),
        ("triplet-seed0", "Triplet"),
    ]
    with (tmp_path / "table.csv").open() as file:
        table = {row["method"]: row["recall_at_1"] for row in csv.DictReader(file)}
    assert {method: str(recall) for _, method, recall in names} == table


def test_forgetting_a_run_that_was_never_recorded(tmp_path):
    records.forget(tmp_path / "no.db", "run")
    assert not (tmp_path / "no.db").exists()


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", "--out", str(out), "--seeds", "0", "1", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("to train") == 2 * len(METHODS)
    assert not out.exists()


def test_a_dry_run_refuses_what_the_command_would(tmp_path, capsys):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--seeds", "0"]
    arguments += ["--methods", "Triplet"]
    assert main(arguments) == 0
    assert main([*arguments, "--m", "4", "--dry-run"]) == 2
    assert "(m was 2, is 4)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations(name, tmp_path, capsys):
    arguments = ["ablate", name, "--out", str(tmp_path), *TINY[:4], "--width", "2"]
    arguments += ["--batch-size", "16", "--max-classes", "8", "--seeds", "0"]
    if name == "start":  # 100 steps on the base loss, and then others
        arguments += ["--steps", "102", "--test-interval", "51"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for label in ABLATIONS[name]:
        assert f"| {label} |" in shown
    assert (tmp_path / name / "accuracy.png").stat().st_size > 0


def test_the_paper_table_has_the_published_numbers(tmp_path, capsys):
    arguments = ["paper-table", "--out", str(tmp_path), *TINY, "--seeds", "0", "--methods"]
    assert main([*arguments, "N-pairs", "Symm + N-pairs"]) == 0
    shown = capsys.readouterr().out
    assert "| R@1 | here, glyphs | paper, CUB | paper, CARS | paper, SOP |" in shown
    assert "| 55.9 | 76.5 | 73.2 |" in shown
    assert "55.9" in (tmp_path / "table.md").read_text()


def test_a_published_dataset_shows_its_own_numbers():
    result = {"test": {"recall_at_1": 0.5}}
    rows = published_rows({"Angular": [result], "Margin": [result]}, "cars")
    assert rows == [["R@1", "here, cars", "paper, CARS"], ["Angular", "50.0", "71.3"]]


def test_the_synthetics_command_draws_the_queries(tmp_path):
    arguments = ["synthetics", "--out", str(tmp_path), *TINY, "--seeds", "0"]
    assert main([*arguments, "--methods", "Symm + Lifted"]) == 0
    assert (tmp_path / "synthetic_queries.png").stat().st_size > 0
    with sqlite3.connect(tmp_path / "records.db") as database:
        rows = database.execute("SELECT recall_at_1 FROM synthetic_queries_val").fetchall()
    assert len(rows) == 2


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_jobs_must_be_positive(tmp_path, capsys, flags):
    assert main(["compare", "--out", str(tmp_path), "--jobs", "0", *flags]) == 2
    assert "jobs must be at least 1, got 0" in capsys.readouterr().err


def test_a_setting_that_does_not_fit_the_method_is_refused(tmp_path, capsys):
    arguments = ["compare", "--out", str(tmp_path / "out"), "--candidates", "official"]
    assert main([*arguments, "--hardness", "2", "--methods", "Symm + N-pairs"]) == 2
    assert "candidates" in capsys.readouterr().err
    assert main([*arguments, "--methods", "Symm + Lifted"]) == 2
    assert "candidates='official' does not fit Symm + Lifted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_losses_have_the_constants_of_the_pages():
    x, labels = (
        3 * torch.nn.functional.normalize(torch.randn(8, 4)),
        torch.arange(4).repeat(2),
    )
    for name in ("N-pairs", "Symm + N-pairs"):
        loss, _ = METHODS[name].make(Synthesis())
        whole = loss(x, labels)
        loss.embedding_regularizer = None
        assert (whole - loss(x, labels)).item() == pytest.approx(0.001 * 9, rel=1e-3)
    for name in ("Triplet", "Symm + Triplet", "DAML + Triplet"):
        assert METHODS[name].make(Synthesis())[0].margin == 0.1
    assert METHODS["Symm + Triplet, semi-hard"].make(Synthesis())[0].hardness == "semihard"
