"""A restored random state continues with the same numbers."""

import io
import random

import numpy as np
import torch

from benchmarks.training import random_state


def draw():
    return random.random(), np.random.normal(), float(torch.randn(()))


def test_draws_repeat_after_it_is_restored():
    random_state.seed(0)
    draw()  # an odd number of normals: NumPy keeps the second of each two
    file = io.BytesIO()
    torch.save(random_state.get(), file)
    expected = [draw() for _ in range(3)]
    file.seek(0)
    random_state.restore(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_a_seed_starts_all_of_them():
    random_state.seed(3)
    first = draw()
    random_state.seed(3)
    assert draw() == first
