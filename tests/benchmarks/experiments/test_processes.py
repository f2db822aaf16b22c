"""Runs in several processes, of which some are killed, and commands at the same time."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from benchmarks.training import checkpoint, records
from tests.benchmarks.conftest import children_of
from tests.benchmarks.training.test_checkpoint import rows
from tests.benchmarks.training.test_interruption import command, finish, wait_for

NAMES = "symm+n-pairs-seed0", "symm+n-pairs-seed1"


def two_runs(out, *more, steps=500):
    return command(out, "--seeds", "0", "1", *more, steps=steps, interval=50)


def processes_of_runs(process):
    """Those that train a run, without multiprocessing's resource tracker."""
    return [
        child
        for child in children_of(process.pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def run_of(child):
    """The folder of the run whose lock a process holds."""
    for link in Path(f"/proc/{child}/fd").iterdir():
        if found := re.search(r"locks/(.*)\.lock", os.readlink(link)):
            return found[1]
    raise AssertionError


def are_training(out):
    return all((out / name / checkpoint.NAME).exists() for name in NAMES)


def table(out):
    """The table without its times and its number of jobs."""
    text = (out / "table.md").read_text()
    return re.sub(r"\| [^|]* \|$|^Machine: .*", "", text, flags=re.M)


def is_same_end(out, whole):
    assert table(out) == table(whole)
    assert rows_by_run(out) == rows_by_run(whole)


def rows_by_run(out):
    return [rows(out / name / "records" / "logs.db") for name in NAMES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of the command without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    finish(two_runs(out))
    return out


@pytest.mark.slow
def test_the_processes_of_runs_end_with_a_killed_command(whole, start, tmp_path):
    process = start(two_runs(tmp_path, "--jobs", "2"))
    wait_for(lambda: are_training(tmp_path), process)
    children = processes_of_runs(process)
    assert len(children) == 2
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < until
        time.sleep(0.01)
    finish(two_runs(tmp_path))
    is_same_end(tmp_path, whole)


@pytest.mark.slow
def test_the_other_run_finishes_when_one_is_killed(whole, start, tmp_path):
    process = start(two_runs(tmp_path, "--jobs", "2"))
    wait_for(lambda: are_training(tmp_path), process)
    child = processes_of_runs(process)[0]
    killed = run_of(child)
    os.kill(child, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert f"error: the process of {tmp_path / killed} was killed" in output
    assert "Traceback" not in output
    finished = records.read_all(tmp_path / records.DATABASE)
    assert set(finished) == set(NAMES) - {killed}
    finish(two_runs(tmp_path))
    is_same_end(tmp_path, whole)


def test_the_same_command_twice_at_once(whole, start, tmp_path):
    both = [start(two_runs(tmp_path)) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    waited = f"{tmp_path / NAMES[0]} is in use by another process: waiting"
    assert sum(waited in output for output in outputs) == 1
    assert any("waiting for the process that trains it" in output for output in outputs)
    is_same_end(tmp_path, whole)


def test_a_command_that_waits_can_be_stopped(start, tmp_path):
    first = start(two_runs(tmp_path, steps=20_000))
    wait_for((tmp_path / NAMES[0] / checkpoint.NAME).exists, first)
    second = start(two_runs(tmp_path, steps=20_000))
    assert any("waiting until it ends" in line for line in second.stdout)
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=60) == 128 + signal.SIGINT
    assert first.poll() is None
