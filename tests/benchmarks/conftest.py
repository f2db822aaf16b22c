import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "benchmarks")


@pytest.fixture(autouse=True, scope="session")
def full_size():
    """Draw figures with few pixels and no layout: most of the time goes into these.

    Returns matplotlib's own savefig.
    """
    save = Figure.savefig

    def save_small(figure, *args, **kwargs):
        figure.set_layout_engine(None)
        save(figure, *args, **{"dpi": 20, **kwargs})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_small)
        yield save


def children_of(number):
    """The processes that a process has started and that still exist."""
    listed = Path(f"/proc/{number}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def kill_all(number):
    """Kill a process that was not waited for, and all below it."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(number, signal.SIGSTOP)  # from now on its children stay the same
        for child in children_of(number):
            kill_all(child)
        os.kill(number, signal.SIGKILL)


@pytest.fixture
def start():
    """Starts a command in a process; kills those that a failed test leaves behind."""
    started = []

    def start(arguments, program=PROGRAM, **options):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            kill_all(process.pid)
            process.communicate()
