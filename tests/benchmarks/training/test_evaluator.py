"""The measurements on embeddings in a validation."""

import pytest
import torch

from benchmarks.data.glyphs import glyphs
from benchmarks.training import evaluator
from benchmarks.training.evaluator import mean_angle
from benchmarks.training.run import run
from pml_symm import SymmSynthesizer
from tests.benchmarks.training.test_checkpoint import settings_of


def test_the_angle_is_that_of_each_point_to_the_next_of_its_class():
    degrees = torch.deg2rad(torch.tensor([0.0, 0.01, 80.0, 50.0, 120.0, 200.0]))
    embeddings = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    # Classes of two and of three, and one that has no pair.
    labels = torch.tensor([4, 4, 9, 9, 9, 1])
    expected = (2 * 0.01 + 30 + 70 + 40) / 5
    assert mean_angle(embeddings, labels) == pytest.approx(expected, rel=1e-4)
    only_small = mean_angle(embeddings[:2], labels[:2])
    assert only_small == pytest.approx(0.01, rel=1e-3)


def test_each_split_is_evaluated_by_itself(tmp_path, monkeypatch):
    settings = settings_of("N-pairs")
    splits, seen = glyphs(settings.split), []
    real = evaluator.FiniteTester.test

    def test(self, datasets, *args, **kwargs):
        seen.append({name: set(x.labels.tolist()) for name, x in datasets.items()})
        return real(self, datasets, *args, **kwargs)

    monkeypatch.setattr(evaluator.FiniteTester, "test", test)
    run(settings, tmp_path / "run")
    val, tested = (set(x.labels.tolist()) for x in (splits.val, splits.test))
    assert seen[-1] == {"test": tested}
    assert len(seen) > 1
    assert all(of_val == {"val": val} for of_val in seen[:-1])


def test_recall_of_synthetic_queries():
    degrees = torch.deg2rad(torch.tensor([0.0, 60.0, 118.0, 121.0]))
    points = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    # 0 about 60 is 120, among the other class; -60, 124 and 115 are not.
    labels = torch.tensor([0, 0, 1, 1])
    found = evaluator.recall_of_synthetic(SymmSynthesizer(), points, labels)
    assert found == 0.75
