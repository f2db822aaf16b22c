"""Checkpoints of PML trainers: everything that the next step depends on."""

from __future__ import annotations

import logging
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.trainers import BaseTrainer

LOGGER = logging.getLogger(__name__)

NAME = "checkpoint.pt"
_PARTS = ("models", "optimizers", "lr_schedulers", "loss_funcs", "mining_funcs")
# Of trainers that keep something of their own from step to step: HDML.
_NUMBERS = ("last_average", "_sum", "_count", "_of_epoch")


def save(path: Path, trainer: BaseTrainer, own: dict[str, Any]) -> None:
    """Write what a trainer needs to go on after this epoch, all of it or nothing.

    Args:
        path: of the file, which is replaced.
        trainer: at the end of an epoch.
        own: the caller's, of plain Python values.
    """
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    key = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    state = {
        "epoch": trainer.epoch,
        "parts": {
            part: {name: x.state_dict() for name, x in getattr(trainer, part).items()}
            for part in _PARTS
        },
        "numbers": {x: getattr(trainer, x) for x in _NUMBERS if hasattr(trainer, x)},
        "own": own,
        "torch": torch.get_rng_state(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """What save wrote, or None, with a warning, if the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        LOGGER.warning("%s is damaged; its run starts again: %s", path, error)
        return None


def restore_modules(state: dict[str, Any], trainer: BaseTrainer) -> None:
    """Everything but the random states, which the caller may still disturb."""
    for part in _PARTS:
        for name, saved in state["parts"][part].items():
            getattr(trainer, part)[name].load_state_dict(saved)
    for name, value in state["numbers"].items():
        setattr(trainer, name, value)


def restore_random(state: dict[str, Any]) -> None:
    """The random states, right before the next epoch."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    key = state["numpy"]["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(
        {**state["numpy"], "state": {**state["numpy"]["state"], "key": key}}
    )
    random.setstate(state["python"])
