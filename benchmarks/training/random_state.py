"""The state of every random number generator that a run draws from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """Seed all generators with one number."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def get() -> dict[str, Any]:
    """The states of all generators, as plain values and tensors."""
    of_numpy: dict[str, Any] = np.random.get_state(legacy=False)
    # torch.load with weights_only=True does not load NumPy arrays.
    of_numpy["state"]["key"] = of_numpy["state"]["key"].tolist()
    state = {
        "python": random.getstate(),
        "numpy": of_numpy,
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any]) -> None:
    """Restore what get returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
