"""What is seen while runs are trained: their states, and the estimate of the time left."""

import io
import shlex
import sys
from types import SimpleNamespace

from benchmarks.__main__ import main
from benchmarks.experiments import progress
from benchmarks.experiments.progress import Screen, State, TimeLeft

TINY = shlex.split("--batch-size 8 --width 2 --max-classes 6 --seeds 0 1")


class Clock:
    """A replacement for time that changes only when it is set."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(
            progress, "time", SimpleNamespace(perf_counter=lambda: self.now)
        )


def test_it_follows_the_runs(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    left = TimeLeft([100, 100, 100], pace=None)
    assert str(left) == ""
    left.start_run()
    clock.now = 500.0  # work that is done once
    left.end_epoch(50)
    assert capsys.readouterr().out == ""
    clock.now += 60.0
    left.end_epoch(50)
    assert capsys.readouterr().out == "\nabout 6 minutes for 3 runs\n"
    clock.now += 40.0  # its test
    left.end_run(100)
    assert str(left) == "about 7 minutes for 2 runs"
    left.start_run()
    clock.now += 30.0
    left.end_epoch(50)  # this run had been stopped after half of its steps
    left.end_run(100)
    assert str(left) == "about 1 minute for 1 run"
    left.start_run()
    left.end_run(100)
    assert str(left) == ""


def test_finished_runs_tell_how_long_the_others_take(tmp_path, capsys):
    arguments = ["compare", "--out", str(tmp_path), *TINY, "--test-interval", "2"]
    arguments += ["--steps", "4", "--methods", "Triplet"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "minute" not in capsys.readouterr().out
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "about 1 minute for 2 runs\n" in shown
    assert "run 2 of 2: Triplet, seed 1; about 1 minute for 1 run\n" in shown
    assert main([*arguments, "N-pairs", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("about 1 minute for 2 runs") == 1


def test_a_terminal_has_a_line_for_each_run(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock(monkeypatch)
    clock.now = 1.0

    def shown():
        terminal.truncate(0)
        screen.refresh()
        return terminal.getvalue()

    screen = Screen(3)
    with screen.line("a") as first:
        with screen.line("b") as second:
            assert "0/3" in shown() and "1 queued" in shown()
            first.tell("training")
            assert "a: training, 00:00" in shown() and "b: starting, 00:" in shown()
            second.tell("testing")
            assert "b: testing, 00:00" in shown()
        assert "1/3" in shown() and "b:" not in shown()
    screen.close()


def test_each_change_is_a_line_of_a_log(capsys):
    state = State("a")
    for what in ("training", "training", "testing"):
        state.tell(what)
    with Screen(2).line("b") as state:
        state.tell("training")
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["a: training", "a: testing"]
    assert lines[2:] == ["b: starting", "b: training", "b: ended; 1 queued"]
