"""The measurements on embeddings in a validation."""

import pytest
import torch

from benchmarks.training.evaluator import mean_angle


def test_the_angle_is_that_of_each_point_to_the_next_of_its_class():
    degrees = torch.deg2rad(torch.tensor([0.0, 0.01, 80.0, 50.0, 120.0, 200.0]))
    embeddings = torch.stack([degrees.cos(), degrees.sin()], dim=1)
    # Classes of two and of three, and one that has no pair.
    labels = torch.tensor([4, 4, 9, 9, 9, 1])
    expected = (2 * 0.01 + 30 + 70 + 40) / 5
    assert mean_angle(embeddings, labels) == pytest.approx(expected, rel=1e-4)
    only_small = mean_angle(embeddings[:2], labels[:2])
    assert only_small == pytest.approx(0.01, rel=1e-3)
