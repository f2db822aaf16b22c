"""Records of runs with record-keeper and TensorBoard: writing, reading and changing them.

A run has its own database in its folder; records.db beside that folder has all runs.
"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from record_keeper.db_utils import DBManager
from torch import nn
from torch.utils.tensorboard import SummaryWriter

DATABASE = "records.db"
_OWN = Path("records", "logs.db")  # the database of one run, in its folder
_RESULTS = "results"
_STEPS = "steps"
_EVERY = 10  # how often to record a step, from the first step of an epoch on
# What validations measure -> its table and its column.
_VALIDATED = {
    "synthetic_queries": ("synthetic_queries_val", "recall_at_1"),
    "angle": ("angle_val", "degrees"),
}
# Recorded by epoch; all other tables are recorded by step.
_BY_EPOCH = ("accuracies", *_VALIDATED)
_OF_THE_TEST = "_TEST_vs_self"  # the end of a table's name


class Recorder:
    """Records a run with PML's hooks, and reads the recorded curves.

    A run is new if nothing of it is recorded yet.
    """

    def __init__(self, folder: Path, is_new: bool) -> None:
        self._own = folder / _OWN
        self._record_keeper, _, self._tensorboard = logging_presets.get_record_keeper(
            str(folder / "records"),
            str(folder / "tensorboard"),
            global_db_path=str(folder.parent / DATABASE),
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
            values = {
                "loss": trainer.losses["total_loss"].item(),
                "gradient_norm": gradient_norm(modules),
            }
            self._record_keeper.update_records(values, step, parent_name=_STEPS)

    def over_steps(self, column: str) -> dict[str, list]:
        """The recorded "loss" of all terms together, or "gradient_norm".

        Empty for a run that started with a version that did not record them.
        """
        rows = self._rows(_STEPS)
        if rows.get("~iteration~", [])[:1] != [0]:
            return {"step": [], column: []}
        return {"step": rows["~iteration~"], column: rows[column]}

    def synthetic_ratio(self) -> dict[str, list]:
        """The share of synthetic negatives over the steps; empty for methods without."""
        # Record-keeper names a table after the modules around the one that records it.
        for table in _tables(DBManager(str(self._own))):
            rows = self._rows(table)
            if "synthetic_ratio" in rows:
                return {"step": rows["~iteration~"], "ratio": rows["synthetic_ratio"]}
        return {"step": [], "ratio": []}

    def add_validated(self, series: str, epoch: int, value: float) -> None:
        """Record "angle", or "synthetic_queries": recall@1 of synthetic points."""
        table, column = _VALIDATED[series]
        self._record_keeper.update_records({column: value}, epoch, parent_name=table)

    def validated(self, series: str) -> dict[str, list]:
        """What add_validated recorded, over the epochs."""
        table, column = _VALIDATED[series]
        rows = self._rows(table)
        return {"epoch": rows.get("~iteration~", []), column: rows.get(column, [])}

    def save(self) -> None:
        """Write the records since the last evaluation to the disk."""
        self._record_keeper.save_records()

    def finish(self, result: dict[str, Any], step: int) -> None:
        """Record what run returns, and the last step; from then on the run is finished."""
        # Save all other records first, so that a run with a result is complete.
        self.save()
        settings = result["settings"]
        values = {
            "method": settings["method"],
            "seed": settings["seed"],
            **result["test"],
            "seconds_per_step": result["seconds_per_step"],
            "result": json.dumps(result),
        }
        self._record_keeper.update_records(values, step, parent_name=_RESULTS)
        self.save()
        self._tensorboard.close()

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
    parameters = [x for module in modules for x in module.parameters()]
    # The length is returned, and nothing is longer than infinity.
    return float(nn.utils.clip_grad_norm_(parameters, torch.inf))


def read_all(database: Path) -> dict[str, dict[str, Any]]:
    """Experiment -> what run returned, of all finished runs; the file need not exist.

    Raises:
        ValueError: the file is damaged.
    """
    _put_together(database)
    if not database.exists():
        return {}
    manager = DBManager(str(database), is_global=True)
    if not manager.table_exists(_RESULTS):
        return {}
    rows = manager.query(
        f"SELECT experiment_name, result FROM {_RESULTS} JOIN experiment_ids "
        f"ON experiment_id = experiment_ids.id ORDER BY {_RESULTS}.id"
    )
    return {row["experiment_name"]: json.loads(row["result"]) for row in rows}


def read(database: Path, experiment: str) -> dict[str, Any] | None:
    """The result of one finished run, as read_all has it; None without one."""
    return read_all(database).get(experiment)


def _put_together(database: Path) -> None:
    """If the file does not exist, create it from the records in the runs' folders."""
    if database.exists():
        try:
            DBManager(str(database)).query("PRAGMA schema_version")
        except sqlite3.OperationalError:
            raise  # locked by another process, or cannot be read
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{database} is damaged ({error}): move it away, and the same command "
                "rebuilds it from the records in the runs' folders"
            ) from error
        return
    for own in sorted(database.parent.glob(f"*/{_OWN}")):
        if _RESULTS in _tables(DBManager(str(own))):
            _add(own, database)


def _add(own: Path, database: Path) -> None:
    """Add what the database of one run has."""
    manager, whole = DBManager(str(own)), DBManager(str(database), is_global=True)
    experiment = own.relative_to(database.parent).parts[0]
    whole.new_experiment(experiment)
    for table in _tables(manager):
        if rows := _rows(manager, table):
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            whole.write(table, columns, experiment)


def forget(database: Path, experiment: str) -> None:
    """Remove all records of a run, so that it can be recorded again."""
    if not database.exists():
        return
    manager = DBManager(str(database), is_global=True)
    for table in _tables(manager):
        manager.execute(
            f"DELETE FROM [{table}] WHERE experiment_id = "
            "(SELECT id FROM experiment_ids WHERE experiment_name=?)",
            (experiment,),
        )
    manager.delete_experiment(experiment)


def trim(database: Path, experiment: str, epoch: int, step: int) -> None:
    """Remove the records of a run after its checkpoint's epoch and step, and of its end.

    They are removed from its own database, from which its rows in the database of all
    runs, its CSV files and TensorBoard's log are written again.
    """
    folder = database.parent / experiment
    manager = DBManager(str(folder / _OWN))
    # TensorBoard would show steps twice that are trained again.
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for table in _tables(manager):
            kept = f"[~iteration~] < {int(step)}"
            if table.startswith(_BY_EPOCH):
                kept = f"[~iteration~] <= {int(epoch)}"
            if table.endswith(_OF_THE_TEST):
                kept = "FALSE"
            manager.execute(f"DELETE FROM [{table}] WHERE NOT ({kept})")
            _write_anew(table, manager, folder, writer)
    forget(database, experiment)
    _add(folder / _OWN, database)


def _write_anew(
    table: str, manager: DBManager, folder: Path, writer: SummaryWriter
) -> None:
    """Write a table's rows as record-keeper does: to a CSV file and to TensorBoard."""
    path = (folder / _OWN).with_name(f"{table}.csv")
    rows = _rows(manager, table)
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, rows[0], lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)
    for row in rows:
        for name, value in row.items():
            if name != "~iteration~" and isinstance(value, int | float):
                writer.add_scalar(f"{table}/{name}", value, row["~iteration~"])


def _rows(manager: DBManager, table: str) -> list[dict[str, Any]]:
    """Rows, column -> value, without the database's id of each row."""
    rows = [dict(row) for row in manager.query(f"SELECT * FROM [{table}]")]
    for row in rows:
        del row["id"]
    return rows


def _tables(manager: DBManager) -> list[str]:
    rows = manager.query(
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' "
        "AND name != 'experiment_ids'"
    )
    return [row["name"] for row in rows]
