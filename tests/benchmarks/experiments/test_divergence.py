"""Runs that diverge are named, and do not keep the others from finishing."""

import csv
import shlex

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.reporting import finished_runs
from benchmarks.training.evaluator import Evaluator
from benchmarks.training.records import read_all
from benchmarks.training.run import run
from benchmarks.training.trainers import StepwiseMixin
from tests.benchmarks.training.test_checkpoint import METHODS, settings_of

TINY = shlex.split("--steps 4 --test-interval 2 --batch-size 8 --width 2 --max-classes 8")


def compare(out, *more):
    return main(["compare", "--out", str(out), *TINY, "--seeds", "0", *more])


def spoil(trainer):
    """Make an embedder useless, as too large a step does."""
    with torch.no_grad():
        trainer.models["embedder"].weight.fill_(torch.nan)


@pytest.fixture
def _n_pairs_diverges(monkeypatch):
    """N-pairs alone diverges, in its third step."""
    real = StepwiseMixin.forward_and_backward

    def step(self):
        is_symm = "Symm" in type(self.loss_funcs["metric_loss"]).__name__
        if self.get_global_iteration() == 2 and not is_symm:
            spoil(self)
        real(self)

    monkeypatch.setattr(StepwiseMixin, "forward_and_backward", step)


@pytest.mark.usefixtures("_n_pairs_diverges")
def test_the_table_is_written_for_the_others(tmp_path, capsys, caplog):
    methods = ["--methods", "N-pairs", "Symm + N-pairs"]
    for _ in range(2):  # again, it is not trained again
        assert compare(tmp_path, *methods) == 0
        table = (tmp_path / "table.md").read_text()
        assert "Diverged: N-pairs, seed 0, at step 3 (the loss is not finite)." in table
        assert "| Symm + N-pairs |" in table and "| N-pairs |" not in table
        assert table in capsys.readouterr().out
    folder = tmp_path / "n-pairs-seed0"
    message = f"{folder} diverged at step 3: the loss is not finite"
    assert [x.getMessage() for x in caplog.records].count(message) == 1
    found = finished_runs.read(tmp_path)
    assert list(found.variants) == ["Symm + N-pairs"]
    assert "N-pairs, seed 0, at step 3" in found.diverged
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0
    assert "Diverged: N-pairs, seed 0" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("_n_pairs_diverges")
def test_without_any_other_run_there_is_no_table(tmp_path, capsys):
    assert compare(tmp_path, "--methods", "N-pairs") == 2
    assert "error: Diverged: N-pairs, seed 0, at step 3" in capsys.readouterr().err


def test_a_learning_rate_at_which_training_diverges_loses(tmp_path):
    more = ["--methods", "Contrastive", "--learning-rates", "1e20", "1e-3"]
    assert compare(tmp_path, *more) == 0
    table = (tmp_path / "table.md").read_text()
    assert "| Contrastive | 0.001 |" in table
    assert "Diverged: Contrastive, rate = 1e+20, seed 1000, at step " in table
    with (tmp_path / "search.csv").open() as file:
        found = {
            row["learning_rate"]: row["validation_mean_average_precision_at_r"]
            for row in csv.DictReader(file)
        }
    assert found["1e+20"] == "diverged" and float(found["0.001"]) > 0


def test_embeddings_that_are_not_finite(tmp_path, monkeypatch):
    real = Evaluator.validate

    def validate(self, trainer):
        if trainer.epoch == 2:
            spoil(trainer)
        real(self, trainer)

    monkeypatch.setattr(Evaluator, "validate", validate)
    result = run(settings_of("N-pairs"), tmp_path / "run")
    assert result["diverged"] == {"step": 4, "what": "an embedding"}
    assert read_all(tmp_path / "records.db") == {"run": result}


@pytest.mark.parametrize("name", METHODS)
def test_no_method_ends_with_another_error(name, tmp_path, monkeypatch):
    real = StepwiseMixin.forward_and_backward

    def step(self):
        spoil(self)
        real(self)

    monkeypatch.setattr(StepwiseMixin, "forward_and_backward", step)
    assert run(settings_of(name), tmp_path / "run")["diverged"]["step"] == 1
