"""Record-keeper's database of all runs: reading results, and changing records."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record_keeper.db_utils import DBManager
from torch.utils.tensorboard import SummaryWriter

DATABASE = "records.db"
_OWN = Path("records", "logs.db")  # the database of one run, in its folder
_RESULTS = "results"
# Recorded by epoch; all other tables are recorded by step.
_BY_EPOCH = ("accuracies", "synthetic_queries", "angle")
_OF_THE_TEST = "_TEST_vs_self"  # the end of a table's name


def finish(record_keeper: Any, result: dict[str, Any], step: int) -> None:
    """Record a run's result; from then on the run is finished.

    Args:
        record_keeper: of the run.
        result: what training.run returns.
        step: the run's last step.
    """
    settings = result["settings"]
    # Save all other records first, so that a run with a result is complete.
    record_keeper.save_records()
    record_keeper.update_records(
        {
            "method": settings["method"],
            "seed": settings["seed"],
            **result["test"],
            "seconds_per_step": result["seconds_per_step"],
            "result": json.dumps(result),
        },
        step,
        parent_name=_RESULTS,
    )
    record_keeper.save_records()


def read(database: Path, experiment: str) -> dict[str, Any] | None:
    """The result of a finished run, as training.run returned it; None without one.

    Args:
        database: the file; it need not exist.
        experiment: the run's name.

    Raises:
        ValueError: the file is damaged.
    """
    return _results(database, "WHERE experiment_name=?", (experiment,)).get(experiment)


def read_all(database: Path) -> dict[str, dict[str, Any]]:
    """Experiment -> result, of all finished runs.

    Args:
        database: the file; it need not exist.
    """
    return _results(database, "", ())


def _results(
    database: Path, condition: str, values: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    _put_together(database)
    if not database.exists():
        return {}
    manager = DBManager(str(database), is_global=True)
    if not manager.table_exists(_RESULTS):
        return {}
    rows = manager.query(
        f"SELECT experiment_name, result FROM {_RESULTS} JOIN experiment_ids "
        f"ON experiment_id = experiment_ids.id {condition} ORDER BY {_RESULTS}.id",
        values,
    )
    return {row["experiment_name"]: json.loads(row["result"]) for row in rows}


def _put_together(database: Path) -> None:
    """If the file does not exist, create it from the records in the runs' folders.

    Raises:
        ValueError: the file is damaged.
    """
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
        manager = DBManager(str(own))
        tables = _tables(manager)
        if _RESULTS not in tables:
            continue
        whole = DBManager(str(database), is_global=True)
        experiment = own.relative_to(database.parent).parts[0]
        whole.new_experiment(experiment)
        for table in tables:
            rows = _rows(manager, table)
            if rows:
                columns = {name: [row[name] for row in rows] for name in rows[0]}
                whole.write(table, columns, experiment)


def forget(database: Path, experiment: str) -> None:
    """Remove all records of a run, so that it can be recorded again.

    Args:
        database: the file; it need not exist.
        experiment: the run's name.
    """
    if not database.exists():
        return
    _delete(database, experiment, lambda table: "")
    DBManager(str(database), is_global=True).delete_experiment(experiment)


def trim(database: Path, experiment: str, epoch: int, step: int) -> None:
    """Remove the records of a run after its checkpoint, and those of its end.

    Args:
        database: the file. The run's own records, in the folder of its name beside it,
            are trimmed, too: its database, and the CSV files and TensorBoard's log, which
            are written again.
        experiment: the run's name.
        epoch: the checkpoint's epoch.
        step: how many steps the run had done then.
    """

    def later(table: str) -> str:
        if table.endswith(_OF_THE_TEST):
            return ""
        if table.startswith(_BY_EPOCH):
            return f" AND [~iteration~] > {int(epoch)}"
        return f" AND [~iteration~] >= {int(step)}"

    _delete(database, experiment, later)
    folder = database.parent / experiment
    manager = DBManager(str(folder / _OWN))
    # TensorBoard would show steps twice that are trained again.
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for table in _tables(manager):
            manager.execute(f"DELETE FROM [{table}] WHERE 1{later(table)}")
            _write_anew(table, manager, folder, writer)


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


def _delete(database: Path, experiment: str, condition: Callable[[str], str]) -> None:
    manager = DBManager(str(database), is_global=True)
    for row in manager.query(
        "SELECT id FROM experiment_ids WHERE experiment_name=?", (experiment,)
    ):
        for table in _tables(manager):
            manager.execute(
                f"DELETE FROM [{table}] WHERE experiment_id=?{condition(table)}",
                (row["id"],),
            )
