"""Runs that are killed, stopped by signals, or out of disk space keep correct records."""

import json
import os
import random
import resource
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from torch.utils.data import DataLoader, Dataset

from benchmarks.__main__ import main
from benchmarks.training import checkpoint, interruption, processes
from benchmarks.training.records import Recorder, read
from benchmarks.training.run import run
from benchmarks.training.settings import Settings
from benchmarks.training.trainers import StepTimer
from tests.benchmarks.training.test_checkpoint import METHODS, Stop, rows, settings_of

IN_TWO_PROCESSES = (
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
    *("--standalone", "-m", "benchmarks"),
)


def command(out, *more, steps=500, interval=25):
    return [
        *("compare", "--out", str(out), "--seeds", "0"),
        *("--methods", "Symm + N-pairs", "--batch-size", "8", "--width", "2"),
        *("--max-classes", "8", "--steps", str(steps), "--test-interval", str(interval)),
        *more,
    ]


def finish(arguments):
    """Run a command in this process: to start another one takes longer than its run."""
    assert main(arguments) == 0


def found_in(out, name="symm+n-pairs-seed0"):
    result = read(out / "records.db", name)
    assert result is not None
    return without_times(result)


def without_times(result):
    return {name: x for name, x in result.items() if name != "seconds_per_step"}


def is_same_end(out, whole):
    assert found_in(out) == found_in(whole)
    for name in ("records.db", "symm+n-pairs-seed0/records/logs.db"):
        assert rows(out / name) == rows(whole / name)
    left = {x.name for x in (out / "symm+n-pairs-seed0").iterdir()}
    # The last checkpoint remains, to train on; the others do not.
    files = {"settings.json", checkpoint.NAME, "map.npz"}
    assert left == files | {"records", "tensorboard", "models"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of the command without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    finish(command(out))
    return out


def wait_for(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)


def stop(process, number, like_a_terminal=False):
    """Send a signal to a session's first process, or to all, and check how it ends."""
    if like_a_terminal:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "stopped; the same command continues from here" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_killed_at_twenty_random_moments(whole, start, tmp_path):
    moments = random.Random(0)
    kills = 0
    while kills < 20:
        process = start(command(tmp_path))
        folder = tmp_path / "symm+n-pairs-seed0"
        wait_for((folder / "records").exists, process)
        # About half of the kills come during training, the others during the setup.
        time.sleep(moments.choice((0.02, 0.5)) * moments.random())
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert read(tmp_path / "records.db", folder.name) is None
    finish(command(tmp_path))
    is_same_end(tmp_path, whole)


@pytest.mark.parametrize(
    ("number", "jobs", "like_a_terminal"),
    [
        (signal.SIGINT, "1", True),
        (signal.SIGINT, "2", False),
        pytest.param(signal.SIGINT, "2", True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "2", False, marks=pytest.mark.slow),
    ],
)
def test_signals_save_and_exit(number, jobs, like_a_terminal, whole, start, tmp_path):
    process = start(command(tmp_path, "--jobs", jobs), start_new_session=True)
    folder = tmp_path / "symm+n-pairs-seed0"
    wait_for((folder / checkpoint.NAME).exists, process)
    stop(process, number, like_a_terminal)
    finish(command(tmp_path))
    is_same_end(tmp_path, whole)


@pytest.mark.slow
def test_no_run_starts_after_a_signal(start, tmp_path):
    arguments = command(tmp_path, "--jobs", "2", "--seeds", *"012345", steps=5000)
    process = start(arguments, start_new_session=True)
    wait_for(lambda: len(list(tmp_path.glob(f"*/{checkpoint.NAME}"))) == 2, process)
    stop(process, signal.SIGINT, like_a_terminal=True)
    assert len(list(tmp_path.glob("*-seed*"))) == 2


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory):
    """Settings, with two steps per epoch, the result of their run, and where it is."""
    settings, out = settings_of(request.param), tmp_path_factory.mktemp("trained")
    return settings, run(settings, out / "run"), out


@contextmanager
def stopped_after(steps):
    """A run in the block is asked to stop after so many steps, and stops."""
    real, calls = StepTimer.__call__, []

    def ask_to_stop(self, trainer):
        real(self, trainer)
        calls.append(1)
        if len(calls) == steps:
            signal.raise_signal(signal.SIGTERM)

    with (
        mock.patch.object(StepTimer, "__call__", ask_to_stop),
        pytest.raises(interruption.Interrupted),
    ):
        yield


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stopped_between_two_steps(stop_at, trained, tmp_path):
    settings, result, out = trained
    with stopped_after(stop_at):
        run(settings, tmp_path / "run")
    resumed = run(settings, tmp_path / "run")
    assert without_times(resumed) == without_times(result)
    for name in ("records.db", "run/records/logs.db"):
        assert rows(tmp_path / name) == rows(out / name)


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        ("Triplet", (2, 2)),  # twice in the first epoch
        ("Triplet, offline hard", (7,)),  # it looks at augmented items to choose classes
    ],
)
def test_stopped_within_an_epoch(method, stops, tmp_path):
    settings = replace(settings_of(method), steps=10, test_interval=5, augment=True)
    whole = run(settings, tmp_path / "whole" / "run")
    for stop_at in stops:
        with stopped_after(stop_at):
            run(settings, tmp_path / "run")
    assert without_times(run(settings, tmp_path / "run")) == without_times(whole)


def test_a_signal_in_the_last_evaluation_is_not_lost(tmp_path, monkeypatch):
    settings = settings_of("N-pairs")
    real = Recorder.finish

    def ask_to_stop(*arguments):
        signal.raise_signal(signal.SIGTERM)
        real(*arguments)

    monkeypatch.setattr(Recorder, "finish", ask_to_stop)
    with pytest.raises(interruption.Interrupted):
        run(settings, tmp_path / "run")
    assert read(tmp_path / "records.db", "run") is not None


class Groups(Dataset):
    """The process group of the process that loads an item."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return os.getpgrp()


def test_a_signal_to_the_process_group_does_not_end_those_that_load_items():
    (group,) = DataLoader(Groups(), num_workers=1, multiprocessing_context="fork")
    assert group.item() != os.getpgrp()


def test_a_second_signal_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with interruption.requests() as request:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # what the parent of a run's process sends
        assert request.number == signal.SIGINT
        with pytest.raises(interruption.Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_full_disk_stops_with_an_error_and_keeps_the_checkpoint(whole, start, tmp_path):
    process = start(command(tmp_path))
    folder = tmp_path / "symm+n-pairs-seed0"
    wait_for((folder / checkpoint.PREVIOUS).exists, process)
    process.kill()
    process.communicate()
    newest = max(x["epoch"] for x in kept(folder))
    (folder / "tmpkilled.pt").write_bytes(b"what a kill leaves of a checkpoint")

    def no_room():
        # No file may grow beyond this size, so that writing fails as on a full disk.
        limit = (folder / checkpoint.PREVIOUS).stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(command(tmp_path), preexec_fn=no_room)
    output, _ = process.communicate()
    assert process.returncode == 2, output
    assert "error: " in output and "Traceback" not in output
    assert max(x["epoch"] for x in kept(folder)) == newest
    assert not list(folder.glob("tmp*"))
    finish(command(tmp_path))
    is_same_end(tmp_path, whole)


def kept(folder):
    names = checkpoint.NAME, checkpoint.PREVIOUS
    return [x for x in map(checkpoint.load, (folder / name for name in names)) if x]


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    for out in (tmp_path / "file" / "out", Path("/proc/out")):
        assert main(command(out)) == 2
        output = capsys.readouterr().err
        assert f"{out}" in output and "Traceback" not in output


@pytest.mark.slow
def test_two_commands_share_database_and_cache(start, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    both = [start(command(out, "--seeds", x, steps=10, interval=5)) for x in "12"]
    for process in both:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    names = [f"symm+n-pairs-seed{seed}" for seed in "12"]
    shared = [found_in(out, name) for name in names]
    for seed, result in zip((1, 2), shared, strict=True):
        settings = Settings(
            "Symm + N-pairs",
            seed,
            steps=10,
            test_interval=5,
            batch_size=8,
            width=2,
            max_classes=8,
        )
        alone = run(settings, tmp_path / "alone" / names[seed - 1])
        assert result["test"] == alone["test"]
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1


class TestSeveralProcesses:
    """torchrun -m benchmarks."""

    @staticmethod
    def output_of(arguments, start):
        process = start(arguments, IN_TWO_PROCESSES)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def test_train_one_run_and_log_once(self, start, tmp_path):
        output = self.output_of(command(tmp_path, steps=20, interval=5), start)
        assert output.count("Written to") == output.count("| Symm + N-pairs |") == 1
        result = found_in(tmp_path)
        assert result["val"]["step"] == [5, 10, 15, 20]
        assert result["synthetic_ratio"]["step"]
        of_epochs = rows(tmp_path / "records.db")["synthetic_queries_val"]
        assert [row["~iteration~"] for row in of_epochs] == [1, 2, 3, 4]

    @pytest.mark.slow
    def test_stopped_and_resumed(self, start, tmp_path):
        def arguments(out):
            return command(out, steps=200, interval=50)

        self.output_of(arguments(tmp_path / "whole"), start)
        process = start(arguments(tmp_path / "stopped"), IN_TWO_PROCESSES)
        folder = tmp_path / "stopped" / "symm+n-pairs-seed0"
        wait_for((folder / checkpoint.NAME).exists, process)
        process.terminate()  # torchrun passes the signal on
        process.communicate(timeout=120)
        assert process.returncode != 0
        self.output_of(arguments(tmp_path / "stopped"), start)
        is_same_end(tmp_path / "stopped", tmp_path / "whole")
        # The same command shows the finished runs.
        shown = self.output_of(arguments(tmp_path / "stopped"), start)
        assert "| Symm + N-pairs |" in shown

    def test_errors_are_told_once_and_end_all(self, start, tmp_path):
        arguments = command(tmp_path, "--methods", "DAML + N-pairs", steps=50)
        process = start(arguments, IN_TWO_PROCESSES)
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        assert output.count("error: DAML trains in one process") == 1

    def test_batches_must_be_divisible(self, monkeypatch):
        monkeypatch.setattr(processes, "world_size", lambda: 3)
        message = "batch_size must be a multiple of the 3 processes, got 8"
        with pytest.raises(ValueError, match=message):
            processes.OwnPart(range(8), 8)


def test_settings_are_written_before_training(whole):
    written = json.loads((whole / "symm+n-pairs-seed0" / "settings.json").read_text())
    assert written["method"] == "Symm + N-pairs"


def test_an_older_stop_within_an_epoch_does_not_count(tmp_path):
    settings, folder, epochs = settings_of("N-pairs"), tmp_path / "stopped" / "run", []
    whole = run(settings, tmp_path / "whole" / "run")
    with stopped_after(1):
        run(settings, folder)

    def killed():
        epochs.append(1)
        if len(epochs) == 2:
            raise Stop

    with pytest.raises(Stop):
        run(settings, folder, after_epoch=killed)
    assert without_times(run(settings, folder)) == without_times(whole)
