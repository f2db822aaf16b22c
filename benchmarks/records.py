"""Record-keeper's global database, beyond what record-keeper does with it."""

from __future__ import annotations

from pathlib import Path

from record_keeper.db_utils import DBManager


def forget(database: Path, experiment: str) -> None:
    """Remove all records of an experiment, so that it can be recorded anew.

    Args:
        database: the file; it need not exist.
        experiment: its name.
    """
    if not database.exists():
        return
    manager = DBManager(str(database), is_global=True)
    known = manager.query(
        "SELECT id FROM experiment_ids WHERE experiment_name=?", (experiment,)
    )
    tables = manager.query("SELECT name FROM sqlite_master WHERE type='table'")
    for row in known:
        for (table,) in tables:
            columns = manager.query(f"PRAGMA table_info([{table}])")
            if any(column["name"] == "experiment_id" for column in columns):
                manager.execute(
                    f"DELETE FROM [{table}] WHERE experiment_id=?", (row["id"],)
                )
    manager.delete_experiment(experiment)
