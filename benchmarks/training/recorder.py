"""Recording a run with record-keeper and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import nn

from ..methods.methods import BaseLossFirst
from . import processes, records

_SYNTHETIC_QUERIES = "synthetic_queries_val"
_ANGLE = "angle_val"
_STEPS = "steps"
_EVERY = 10  # how often to record a step, from the first step of an epoch on


class Recorder:
    """Records a run with PML's hooks, and reads the recorded curves.

    Args:
        folder: of the run. The database of all runs is in its parent folder.
        is_new: whether nothing of this run is recorded yet.

    Attributes:
        hooks: PML's, for trainers and testers.
    """

    def __init__(self, folder: Path, is_new: bool) -> None:
        self._record_keeper, _, self._tensorboard = logging_presets.get_record_keeper(
            str(folder / "records"),
            str(folder / "tensorboard"),
            global_db_path=str(folder.parent / records.DATABASE),
            experiment_name=folder.name,
            is_new_experiment=is_new,
        )
        self.hooks = logging_presets.HookContainer(
            self._record_keeper,
            primary_metric="recall_at_1",
            save_models=False,
            log_freq=_EVERY,
        )

    def add_step(self, trainer: BaseTrainer) -> None:
        """PML's hook at the end of a step: record losses, and the gradient's length.

        PML's own records lack most of the first steps, where losses differ most.
        """
        self.hooks.end_of_iteration_hook(trainer)
        step = trainer.get_global_iteration()
        if step < _EVERY or trainer.iteration % _EVERY == 0:
            modules = [*trainer.models.values(), *trainer.loss_funcs.values()]
            self._record_keeper.update_records(
                {
                    "loss": trainer.losses["total_loss"].item(),
                    "gradient_norm": gradient_norm(modules),
                },
                step,
                parent_name=_STEPS,
            )

    def over_steps(self, column: str) -> dict[str, list]:
        """The recorded "loss" of all terms together, or "gradient_norm".

        Empty for a run that started with a version that did not record them.
        """
        rows = self._rows(_STEPS)
        if rows.get("~iteration~", [])[:1] != [0]:
            return {"step": [], column: []}
        return {"step": rows["~iteration~"], column: rows[column]}

    def save(self) -> None:
        """Write the records since the last evaluation to the disk."""
        self._record_keeper.save_records()

    def add_synthetic_queries(self, epoch: int, recall_at_1: float) -> None:
        """Record recall@1 with synthetic points as queries."""
        self._record_keeper.update_records(
            {"recall_at_1": recall_at_1}, epoch, parent_name=_SYNTHETIC_QUERIES
        )

    def synthetic_queries(self) -> dict[str, list]:
        """The recorded recall@1 with synthetic queries, over the epochs."""
        return self._over_epochs(_SYNTHETIC_QUERIES, "recall_at_1")

    def add_angle(self, epoch: int, degrees: float) -> None:
        """Record the mean angle between source and axis."""
        self._record_keeper.update_records({"degrees": degrees}, epoch, parent_name=_ANGLE)

    def angle(self) -> dict[str, list]:
        """The recorded mean angles, over the epochs."""
        return self._over_epochs(_ANGLE, "degrees")

    def synthetic_ratio(self, loss: nn.Module, miner: nn.Module | None) -> dict[str, list]:
        """The share of synthetic negatives over the steps; empty for methods without."""
        source = loss if miner is None else miner
        # Record-keeper's table names of modules, and of modules inside modules.
        group = "metric_loss" if miner is None else "tuple_miner"
        if miner is None and processes.world_size() > 1:
            group += f"_{DistributedLossWrapper.__name__}__modules_loss"
        if isinstance(source, BaseLossFirst):
            group += f"_{BaseLossFirst.__name__}__modules_symm"
            source = source.symm
        rows = self._rows(f"{group}_{type(source).__name__}")
        if "synthetic_ratio" not in rows:
            return {"step": [], "ratio": []}
        return {"step": rows["~iteration~"], "ratio": rows["synthetic_ratio"]}

    def finish(self, result: dict[str, Any], step: int) -> None:
        """Record the run's result; from then on the run is finished.

        Args:
            result: what run returns.
            step: the run's last step.
        """
        records.finish(self._record_keeper, result, step)
        self._tensorboard.close()

    def _over_epochs(self, table: str, column: str) -> dict[str, list]:
        rows = self._rows(table)
        return {"epoch": rows.get("~iteration~", []), column: rows.get(column, [])}

    def _rows(self, table: str) -> dict[str, list]:
        """Column -> values; none if there is no such table."""
        if not self._record_keeper.table_exists(table):
            return {}
        return self._record_keeper.query(f"SELECT * FROM {table}", return_dict=True)


def gradient_norm(modules: Iterable[nn.Module]) -> float:
    """The length of the gradient of all parameters together.

    >>> layer = nn.Linear(2, 1)
    >>> layer(torch.tensor([3.0, 4.0])).sum().backward()
    >>> round(gradient_norm([layer]) ** 2, 3)  # 3 * 3 + 4 * 4, and 1 of the bias
    26.0
    """
    norms = [
        torch.linalg.vector_norm(parameter.grad)
        for module in modules
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
