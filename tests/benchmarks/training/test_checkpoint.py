"""A stopped run continues to the same result, with the same records."""

import io
import random
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.training import checkpoint
from benchmarks.training.records import Recorder, read
from benchmarks.training.run import run
from benchmarks.training.settings import Settings
from benchmarks.training.trainers import StepTimer

# One method for each kind of state that is kept between steps.
METHODS = [
    "Symm + N-pairs",
    "SymmMiner + Triplet",
    "Margin",  # a loss with parameters
    "Proxy-anchor",  # proxies with their own learning rate
    "Contrastive, memory",  # a queue
    "N-pairs, offline hard",  # a sampler that uses the model's embeddings
    "DAML + Triplet",
    "HDML + N-pairs",
]


def settings_of(method):
    return Settings(
        method,
        0,
        steps=6,
        test_interval=2,
        batch_size=8,
        width=2,
        max_classes=8,
        lr_step_size=3,
    )


def rows(database):
    """Every row of every table, without the ids and the times."""
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        tables = [
            row["name"]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type='table' "
                "AND name NOT IN ('experiment_ids', 'sqlite_sequence')"
            )
        ]
        hidden = {"id", "experiment_id", "seconds_per_step", "result"}
        return {
            table: [
                {key: row[key] for key in row.keys() if key not in hidden}  # noqa: SIM118
                for row in connection.execute(f"SELECT * FROM [{table}] ORDER BY id")
            ]
            for table in tables
        }


class Stop(BaseException):
    """Stops a run like a signal."""


def stop_at_the_end(settings, folder, monkeypatch):
    """Train everything, and stop before the result is recorded."""

    def stop(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "finish", stop)
        with pytest.raises(Stop):
            run(settings, folder)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_is_as_never_stopped(method, tmp_path, monkeypatch):
    settings = settings_of(method)
    whole = run(settings, tmp_path / "whole" / "run")
    folder = tmp_path / "stopped" / "run"
    real, calls = StepTimer.__call__, []

    def stop(self, trainer):
        real(self, trainer)
        calls.append(trainer.get_global_iteration())
        # In the middle of the second epoch, then of the third.
        if len(calls) in (4, 8):
            raise Stop

    monkeypatch.setattr(StepTimer, "__call__", stop)
    for _ in range(2):
        with pytest.raises(Stop):
            run(settings, folder)
    resumed = run(settings, folder)
    assert calls[-1] == 5
    for result in (whole, resumed):
        del result["seconds_per_step"]
    assert resumed == whole
    for name in ("records.db", "run/records/logs.db"):
        assert rows(tmp_path / "stopped" / name) == rows(tmp_path / "whole" / name)
    # The last one remains, to train on.
    assert [x.name for x in folder.glob("*.pt")] == [checkpoint.NAME]


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_run_trains_on_as_if_it_had_never_ended(method, tmp_path):
    settings = settings_of(method)
    whole = run(settings, tmp_path / "whole" / "run")
    shorter = run(replace(settings, steps=4), tmp_path / "longer" / "run")
    longer = run(settings, tmp_path / "longer" / "run")
    assert shorter["val"]["step"] == [2, 4]
    for result in (whole, longer):
        del result["seconds_per_step"]
    assert longer == whole
    for name in ("records.db", "run/records/logs.db"):
        assert rows(tmp_path / "longer" / name) == rows(tmp_path / "whole" / name)
    written = [tmp_path / x / "run" / "settings.json" for x in ("longer", "whole")]
    assert written[0].read_text() == written[1].read_text()


def test_it_starts_after_the_last_step_of_the_finished_run(tmp_path, monkeypatch):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    run(replace(settings, steps=4), folder)
    real, calls = StepTimer.__call__, []

    def stop(self, trainer):
        real(self, trainer)
        calls.append(trainer.get_global_iteration())
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(StepTimer, "__call__", stop)
        with pytest.raises(Stop):
            run(settings, folder)
    assert calls == [4]
    # Stopped in between, it is not finished, but not at its start either.
    assert read(tmp_path / "records.db", "run") is None
    assert run(settings, folder)["val"]["step"] == [2, 4, 6]


def test_only_more_steps_continue_a_finished_run(tmp_path):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    result = run(settings, folder)
    with pytest.raises(ValueError, match=r"\(steps was 6, is 4\).*--force"):
        run(replace(settings, steps=4), folder)
    with pytest.raises(ValueError, match=r"\(width was 2, is 3\).*--force"):
        run(replace(settings, steps=8, width=3), folder)
    assert read(tmp_path / "records.db", "run") == result


def test_a_finished_run_without_a_checkpoint_is_kept(tmp_path):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    result = run(settings, folder)
    (folder / checkpoint.NAME).unlink()
    with pytest.raises(
        ValueError, match=r"after 6 steps and has no checkpoint .* steps = 8 .*--force"
    ):
        run(replace(settings, steps=8), folder)
    assert read(tmp_path / "records.db", "run") == result


def test_rows_after_the_checkpoint_are_not_doubled(tmp_path, monkeypatch):
    settings, folder = settings_of("Symm + Triplet"), tmp_path / "run"
    whole = run(settings, tmp_path / "whole" / "run")
    real, calls = checkpoint.save, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Stop  # after the records of the epoch are written, before its checkpoint
        real(*arguments)

    monkeypatch.setattr(checkpoint, "save", stop)
    with pytest.raises(Stop):
        run(settings, folder)
    resumed = run(settings, folder)
    assert resumed["val"] == whole["val"]
    assert rows(tmp_path / "records.db") == rows(tmp_path / "whole" / "records.db")


def test_a_run_that_is_stopped_before_its_result_is_recorded(tmp_path, monkeypatch):
    settings, folder = settings_of("Symm + N-pairs"), tmp_path / "stopped" / "run"
    whole = run(settings, tmp_path / "whole" / "run")
    stop_at_the_end(settings, folder, monkeypatch)
    resumed = run(settings, folder)
    for result in (whole, resumed):
        del result["seconds_per_step"]
    assert resumed == whole


@pytest.mark.parametrize("damaged", [1, 2])
def test_the_last_good_checkpoint_is_used(damaged, tmp_path, monkeypatch, caplog):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    whole = run(settings, tmp_path / "whole" / "run")
    stop_at_the_end(settings, folder, monkeypatch)
    for name in (checkpoint.NAME, checkpoint.PREVIOUS)[:damaged]:
        path = folder / name
        path.write_bytes(path.read_bytes()[:1000])
    assert run(settings, folder)["test"] == whole["test"]
    assert "is damaged and is not used" in caplog.text
    assert ("continues after step 4" in caplog.text) == (damaged == 1)
    assert rows(tmp_path / "records.db") == rows(tmp_path / "whole" / "records.db")


def test_a_stopped_run_with_other_settings_is_kept(tmp_path, monkeypatch):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    stop_at_the_end(settings, folder, monkeypatch)
    with pytest.raises(ValueError, match=r"width was 2, is 3.*--force"):
        run(replace(settings, width=3), folder)
    assert read(tmp_path / "records.db", "run") is None


def test_a_run_goes_on_with_as_many_processes(tmp_path, monkeypatch):
    settings, folder = settings_of("N-pairs"), tmp_path / "run"
    stop_at_the_end(settings, folder, monkeypatch)
    state = checkpoint.load(folder / checkpoint.NAME)
    state["own"]["processes"] = 2
    torch.save(state, folder / checkpoint.NAME)
    with pytest.raises(ValueError, match=r"stopped with 2 processes .* got 1; --force"):
        run(settings, folder)
    assert checkpoint.load(folder / checkpoint.NAME) is not None


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / checkpoint.NAME
    torch.save({"epoch": 1}, path)

    parts = "models", "optimizers", "lr_schedulers", "loss_funcs", "mining_funcs"
    trainer = SimpleNamespace(epoch=2, **{part: {} for part in parts})

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, trainer, {})
    assert checkpoint.load(path) == {"epoch": 1}


def draw():
    return random.random(), np.random.normal(), float(torch.randn(()))


def test_draws_repeat_after_the_random_state_is_restored():
    checkpoint.seed_all(0)
    draw()  # an odd number of normals: NumPy keeps the second of each two
    file = io.BytesIO()
    torch.save(checkpoint.random_state(), file)
    expected = [draw() for _ in range(3)]
    file.seek(0)
    checkpoint.restore_random_state(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_a_seed_starts_all_of_them():
    checkpoint.seed_all(3)
    first = draw()
    checkpoint.seed_all(3)
    assert draw() == first
