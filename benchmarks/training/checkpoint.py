"""Checkpoints of PML trainers: everything that the next step depends on."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.trainers import BaseTrainer

from ..data.files import written_whole
from . import random_state

LOGGER = logging.getLogger(__name__)

NAME = "checkpoint.pt"  # after an epoch
PREVIOUS = "checkpoint.previous.pt"  # the one before
WITHIN = "within-epoch.pt"  # of a run that was stopped between two steps
_PARTS = ("models", "optimizers", "lr_schedulers", "loss_funcs", "mining_funcs")


def save(
    path: Path, trainer: BaseTrainer, own: dict[str, Any], iteration: int | None = None
) -> None:
    """Write what a trainer needs to go on, all of it or nothing.

    Args:
        path: of the file. If it is there already, it becomes PREVIOUS.
        trainer: at the end of an epoch, or between two of its steps.
        own: the caller's, of plain Python values.
        iteration: how many steps of the epoch are done; None at its end.
    """
    state = {
        # How many are complete, and how much of the next one.
        "epoch": trainer.epoch if iteration is None else trainer.epoch - 1,
        "iteration": iteration or 0,
        "parts": {
            part: {name: x.state_dict() for name, x in getattr(trainer, part).items()}
            for part in _PARTS
        },
        # What a trainer keeps from step to step, beside what PML's keep.
        "trainer": trainer.state_dict() if hasattr(trainer, "state_dict") else None,
        "own": own,
        "random": random_state.get(),
    }
    with written_whole(path) as file:
        torch.save(state, file)
        if path.exists():
            path.replace(path.with_name(PREVIOUS))


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of an epoch's end that is not damaged, or None."""
    return load(folder / NAME) or load(folder / PREVIOUS)


def load(path: Path) -> dict[str, Any] | None:
    """What save wrote, or None if it is not there or, with a warning, damaged."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        LOGGER.warning("%s is damaged, the one before is used: %s", path, error)
        return None


def remove(folder: Path) -> None:
    """Remove all checkpoints of a run that is finished."""
    for name in (NAME, PREVIOUS, WITHIN):
        (folder / name).unlink(missing_ok=True)


def restore(state: dict[str, Any], trainer: BaseTrainer) -> None:
    """Everything but the random state, which the caller may still disturb."""
    for part in _PARTS:
        for name, saved in state["parts"][part].items():
            getattr(trainer, part)[name].load_state_dict(saved)
    if state["trainer"] is not None:
        trainer.load_state_dict(state["trainer"])
