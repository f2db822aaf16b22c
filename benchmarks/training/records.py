"""Records of runs with record-keeper and TensorBoard: writing, reading and changing them.

A run has its own database in its folder; records.db beside that folder has all runs.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from pytorch_metric_learning.trainers import BaseTrainer
from pytorch_metric_learning.utils import logging_presets
from record_keeper import RecordKeeper
from record_keeper.db_utils import DBManager
from record_keeper.utils import write_dict_of_lists_to_csv
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
        self._own = DBManager(str(folder / _OWN))
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
        recorded = _columns(self._own, _STEPS)
        if recorded.get("~iteration~", [])[:1] != [0]:
            return {"step": [], column: []}
        return {"step": recorded["~iteration~"], column: recorded[column]}

    def synthetic_ratio(self) -> dict[str, list]:
        """The share of synthetic negatives over the steps; empty for methods without."""
        # Record-keeper names a table after the modules around the one that records it.
        for table in _tables(self._own):
            columns = _columns(self._own, table)
            if "synthetic_ratio" in columns:
                return {"step": columns["~iteration~"], "ratio": columns["synthetic_ratio"]}
        return {"step": [], "ratio": []}

    def add_validated(self, series: str, epoch: int, value: float) -> None:
        """Record "angle", or "synthetic_queries": recall@1 of synthetic points."""
        table, column = _VALIDATED[series]
        self._record_keeper.update_records({column: value}, epoch, parent_name=table)

    def validated(self, series: str) -> dict[str, list]:
        """What add_validated recorded, over the epochs."""
        table, column = _VALIDATED[series]
        columns = _columns(self._own, table)
        return {"epoch": columns.get("~iteration~", []), column: columns.get(column, [])}

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
    manager = _of_all_runs(database)
    if manager is None or not manager.table_exists(_RESULTS):
        return {}
    rows = manager.query(
        f"SELECT experiment_name, result FROM {_RESULTS} JOIN experiment_ids "
        f"ON experiment_id = experiment_ids.id ORDER BY {_RESULTS}.id"
    )
    return {row["experiment_name"]: json.loads(row["result"]) for row in rows}


def read(database: Path, experiment: str) -> dict[str, Any] | None:
    """The result of one finished run, as read_all has it; None without one."""
    return read_all(database).get(experiment)


def _of_all_runs(database: Path) -> DBManager | None:
    """The database of all runs, made of their own ones if missing; None without any."""
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
    else:
        for own in sorted(database.parent.glob(f"*/{_OWN}")):
            if _RESULTS in _tables(DBManager(str(own))):
                _add(own, database)
    return DBManager(str(database), is_global=True) if database.exists() else None


def _add(own: Path, database: Path) -> None:
    """Add what the database of one run has."""
    manager, whole = DBManager(str(own)), DBManager(str(database), is_global=True)
    experiment = own.relative_to(database.parent).parts[0]
    whole.new_experiment(experiment)
    for table in _tables(manager):
        if columns := _columns(manager, table):
            whole.write(table, columns, experiment)


def forget(database: Path, experiment: str) -> None:
    """Remove all records of a run, so that it can be recorded again; others stay."""
    manager = _of_all_runs(database)
    if manager is None:
        return
    with closing(sqlite3.connect(manager.db_path, timeout=60)) as connection, connection:
        # record-keeper's tables declare ON DELETE CASCADE: an experiment's rows go with it.
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(
            "DELETE FROM experiment_ids WHERE experiment_name = ?", (experiment,)
        )


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
    columns = _columns(manager, table)
    if not columns:
        path.unlink(missing_ok=True)
        return
    write_dict_of_lists_to_csv(columns, path)
    record_keeper = RecordKeeper(writer)
    steps = columns.pop("~iteration~")
    for name, values in columns.items():
        for step, value in zip(steps, values, strict=True):
            record_keeper.append_data(table, name, value, step)


def _columns(manager: DBManager, table: str) -> dict[str, list]:
    """Column -> values, without the database's ids; none without a table or its rows."""
    rows = manager.query(f"SELECT * FROM [{table}]") if manager.table_exists(table) else []
    names = [name for name in dict(rows[0]) if name != "id"] if rows else []
    return {name: [row[name] for row in rows] for name in names}


def _tables(manager: DBManager) -> list[str]:
    rows = manager.query(
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' "
        "AND name != 'experiment_ids'"
    )
    return [row["name"] for row in rows]
