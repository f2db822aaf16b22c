"""The database of all runs, and a run's own records."""

import csv
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.training import records
from benchmarks.training.records import Recorder

RESULT = {
    "settings": {"method": "N-pairs", "seed": 3},
    "test": {"recall_at_1": 0.5},
    "seconds_per_step": 0.1,
}


def recorded(folder, epochs):
    recorder = Recorder(folder, is_new=True)
    for epoch in epochs:
        recorder.add_validated("angle", epoch, 10.0 * epoch)
    recorder.save()
    return recorder


def angles(folder):
    """Epochs and degrees, from the CSV file and from TensorBoard."""
    with (folder / "records" / "angle_val.csv").open(encoding="utf-8") as file:
        rows = [(int(x["~iteration~"]), float(x["degrees"])) for x in csv.DictReader(file)]
    log = EventAccumulator(str(folder / "tensorboard"))
    log.Reload()
    shown = [(x.step, x.value) for x in log.Scalars("angle_val/degrees")]
    assert shown == rows
    return rows


def test_what_is_repeated_after_a_stop_is_there_once(tmp_path):
    folder = tmp_path / "run"
    recorded(folder, range(4))
    records.trim(tmp_path / "records.db", "run", epoch=1, step=100)
    assert angles(folder) == [(0, 0.0), (1, 10.0)]
    recorder = Recorder(folder, is_new=False)
    recorder.add_validated("angle", 2, 20.0)
    recorder.finish(RESULT, 150)
    assert angles(folder) == [(0, 0.0), (1, 10.0), (2, 20.0)]
    measured = {"epoch": [0, 1, 2], "degrees": [0.0, 10.0, 20.0]}
    assert recorder.validated("angle") == measured


def test_steps_that_are_not_recorded_from_the_start_are_left_out(tmp_path):
    def recorded_at(steps):
        recorder = Recorder(tmp_path / f"from {steps[0]}", is_new=True)
        part = torch.nn.Linear(1, 1, bias=False)
        part.weight.grad = torch.tensor([[-3.0]])
        for step in steps:
            trainer = SimpleNamespace(
                models={"trunk": part},
                loss_funcs={},
                losses={"total_loss": torch.tensor(0.5)},
                iteration=step,
                get_global_iteration=lambda step=step: step,
            )
            recorder.hooks.end_of_iteration_hook = lambda trainer: None
            recorder.add_step(trainer)
        recorder.save()
        return recorder.over_steps("loss"), recorder.over_steps("gradient_norm")

    steps = [0, 1, 10]  # not 11
    loss, gradient = recorded_at([*steps, 11])
    assert loss == {"step": steps, "loss": 3 * [0.5]}
    assert gradient == {"step": steps, "gradient_norm": 3 * [3]}
    # Continued with this version, but started with one that did not record them.
    loss, gradient = recorded_at([20, 30])
    assert loss == {"step": [], "loss": []}
    assert gradient == {"step": [], "gradient_norm": []}


def test_a_file_of_nothing_but_repeated_rows_goes(tmp_path):
    recorded(tmp_path / "run", [2])
    records.trim(tmp_path / "records.db", "run", epoch=1, step=100)
    assert not (tmp_path / "run" / "records" / "angle_val.csv").exists()


def test_the_database_is_put_together_of_what_the_runs_have(tmp_path):
    for name in ("a", "b"):
        recorded(tmp_path / name, [0]).finish(RESULT, 150)
    recorded(tmp_path / "unfinished", [0])
    database = tmp_path / "records.db"
    before = records.read_all(database)
    database.unlink()
    assert records.read(database, "b") == RESULT
    assert records.read_all(database) == before == {"a": RESULT, "b": RESULT}
    # All records are there again, not only the results.
    records.trim(database, "a", epoch=-1, step=0)
    assert set(records.read_all(database)) == {"b"}


def test_a_run_that_starts_again_leaves_the_others(tmp_path):
    for name in ("a", "b"):
        recorded(tmp_path / name, [0]).finish(RESULT, 150)
    database = tmp_path / "records.db"
    database.unlink()
    records.forget(database, "a")
    assert records.read_all(database) == {"b": RESULT}


@pytest.mark.parametrize("damage", [b"not a database" * 100, "header"])
def test_a_damaged_database_is_named(tmp_path, damage):
    recorded(tmp_path / "run", [0]).finish(RESULT, 150)
    database = tmp_path / "records.db"
    if damage == "header":
        damage = b"\0" * 16 + database.read_bytes()[16:]
    database.write_bytes(damage)
    with pytest.raises(ValueError, match=r"records.db is damaged .*move it away"):
        records.read_all(database)
    database.rename(tmp_path / "away.db")
    assert records.read_all(database) == {"run": RESULT}
