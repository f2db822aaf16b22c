"""Offline hard negatives: classes that the model confuses are in the same batch."""

import numpy as np
import pytest
import torch

from benchmarks.training.samplers import HardClassSampler

# Twelve classes of four images, in three clusters of four classes.
LABELS = np.arange(12).repeat(4)


def embeddings():
    generator = torch.Generator().manual_seed(0)
    clusters = torch.eye(3).repeat_interleave(4, dim=0)
    noise = 0.01 * torch.randn(48, 3, generator=generator)
    return clusters.repeat_interleave(4, dim=0) + noise


def batches(sampler, batch_size):
    rows = np.array(list(sampler))
    return rows.reshape(-1, batch_size)


def test_batches_are_balanced_before_and_after():
    sampler = HardClassSampler(LABELS, m=2, batch_size=16, length_before_new_iter=80)
    for _ in range(2):
        found = batches(sampler, 16)
        assert found.shape == (len(sampler) // 16, 16) == (5, 16)
        for batch in found:
            _, counts = np.unique(LABELS[batch], return_counts=True)
            assert counts.tolist() == [2] * 8
        sampler.refresh(embeddings())


def test_confused_classes_are_sampled_together():
    sampler = HardClassSampler(LABELS, m=2, batch_size=8, length_before_new_iter=400)
    sampler.refresh(embeddings())
    for batch in batches(sampler, 8):
        assert len(set(LABELS[batch] // 4)) == 1


def test_confused_images_are_sampled():
    points = embeddings()
    # Two images of class 1 look like class 0, the others are far from it.
    points[4:6] = torch.tensor([1.0, 0.0, 0.0])
    points[6:8] = torch.tensor([1.0, 0.4, 0.0])
    sampler = HardClassSampler(LABELS, 2, 4, length_before_new_iter=400, group_size=2)
    sampler.refresh(points)
    for batch in batches(sampler, 4):
        if LABELS[batch[0]] == 0 and LABELS[batch[2]] == 1:
            assert set(batch[2:].tolist()) == {4, 5}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        HardClassSampler(LABELS, 2, 8, group_size=1)
    sampler = HardClassSampler(LABELS, 2, 8)
    with pytest.raises(ValueError, match=r"each of 48 labels, got shape \(3, 2\)"):
        sampler.refresh(torch.zeros(3, 2))
