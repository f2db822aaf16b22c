"""Record-keeper's database of all runs, beyond what record-keeper does with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record_keeper.db_utils import DBManager

DATABASE = "records.db"
_RESULTS = "results"
# Recorded by epoch; everything else is recorded by step.
_BY_EPOCH = ("accuracies", "synthetic_queries", "angle")


def finish(record_keeper: Any, result: dict[str, Any], step: int) -> None:
    """Record what a run found; from then on it is finished.

    Args:
        record_keeper: of the run.
        result: as training.run returns it.
        step: its last.
    """
    settings = result["settings"]
    # First everything else, so that nothing is missing where there is a result.
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
    """What a finished run found, as training.run returns it; None if there is none.

    Args:
        database: the file; it need not exist.
        experiment: the run's name.
    """
    return _results(database, "WHERE experiment_name=?", (experiment,)).get(experiment)


def read_all(database: Path) -> dict[str, dict[str, Any]]:
    """Experiment -> what it found, of all finished runs.

    Args:
        database: the file; it need not exist.
    """
    return _results(database, "", ())


def _results(
    database: Path, condition: str, values: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
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


def forget(database: Path, experiment: str) -> None:
    """Remove all records of a run, so that it can be recorded anew.

    Args:
        database: the file; it need not exist.
        experiment: the run's name.
    """
    if not database.exists():
        return
    _delete(database, experiment, lambda table: "")
    DBManager(str(database), is_global=True).delete_experiment(experiment)


def trim(database: Path, experiment: str, epoch: int, step: int) -> None:
    """Remove what a run that was stopped recorded after its checkpoint.

    Args:
        database: the file; the run's own, records/logs.db in the folder of its name
            beside it, is trimmed, too.
        experiment: the run's name.
        epoch: the checkpoint's.
        step: how many steps that is.
    """

    def later(table: str) -> str:
        if table.startswith(_BY_EPOCH):
            return f" AND [~iteration~] > {int(epoch)}"
        return f" AND [~iteration~] >= {int(step)}"

    _delete(database, experiment, later)
    own = database.parent / experiment / "records" / "logs.db"
    manager = DBManager(str(own))
    for table in _tables(manager):
        manager.execute(f"DELETE FROM [{table}] WHERE 1{later(table)}")


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
