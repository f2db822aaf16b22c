"""Checkpoints of PML trainers: everything that their next step depends on."""

from __future__ import annotations

import logging
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.trainers import BaseTrainer

from ..data.files import written_whole

LOGGER = logging.getLogger(__name__)

NAME = "checkpoint.pt"  # after an epoch
PREVIOUS = "checkpoint.previous.pt"  # after the epoch before
WITHIN = "within-epoch.pt"  # of a run that was stopped between two steps
_PARTS = ("models", "optimizers", "lr_schedulers", "loss_funcs", "mining_funcs")


def save(
    path: Path, trainer: BaseTrainer, own: dict[str, Any], iteration: int | None = None
) -> None:
    """Write everything that a trainer needs to continue, or no file.

    Args:
        path: of the file. One after an epoch that exists already becomes PREVIOUS.
        trainer: at the end of an epoch, or between two of its steps.
        own: the caller's state, plain Python values.
        iteration: how many steps of the epoch are done; None at its end.
    """
    state = {
        # How many epochs are complete, and how many steps of the next one.
        "epoch": trainer.epoch if iteration is None else trainer.epoch - 1,
        "iteration": iteration or 0,
        "parts": {
            part: {name: x.state_dict() for name, x in getattr(trainer, part).items()}
            for part in _PARTS
        },
        # A trainer's state between steps, in addition to that of PML's trainers.
        "trainer": trainer.state_dict() if hasattr(trainer, "state_dict") else None,
        "own": own,
        "random": random_state(),
    }
    with written_whole(path) as file:
        torch.save(state, file)
        if path.name == NAME and path.exists():
            path.replace(path.with_name(PREVIOUS))


def load(path: Path) -> dict[str, Any] | None:
    """What save wrote; None if the file does not exist or, with a warning, is damaged."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        LOGGER.warning("%s is damaged and is not used: %s", path, error)
        return None


def restore(state: dict[str, Any], trainer: BaseTrainer) -> None:
    """Restore all but the random state: the caller does that last."""
    for part in _PARTS:
        for name, saved in state["parts"][part].items():
            getattr(trainer, part)[name].load_state_dict(saved)
    if state["trainer"] is not None:
        trainer.load_state_dict(state["trainer"])


def seed_all(number: int) -> None:
    """Seed all generators that a run draws from with one number."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def random_state() -> dict[str, Any]:
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


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore what random_state returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
