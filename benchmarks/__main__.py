"""The command line: python -m benchmarks --help."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from .commands import COMMANDS
from .data.files import check_name
from .experiments.command import Command
from .experiments.configured import Configured
from .experiments.runs import Runs
from .training import processes

PRESETS = Path(__file__).parent / "presets"
_NAME = "python -m benchmarks"
_COLUMNS = 40  # tyro does not end where its help does not fit
_STYLE = (tyro.conf.OmitArgPrefixes,)


def parse(arguments: Sequence[str]) -> Command:
    """The command with its options: given ones, else the preset's, else the defaults.

    Raises:
        SystemExit: --help, or invalid arguments.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog=_NAME,
        description="Benchmarks of pml_symm on PML's own trainers and testers.",
        args=arguments,
        config=_STYLE,
    )
    if not isinstance(command, Configured) or command.preset is None:
        return command
    return tyro.cli(
        type(command),
        args=arguments[1:],
        default=_with_preset(command, command.preset),
        prog=_NAME,
        config=_STYLE,
    )


def _with_preset(command: Configured, preset: str) -> Configured:
    """A command with a preset's settings, and with those of its lists that it takes."""
    own = json.loads((PRESETS / f"{preset}.json").read_text(encoding="utf-8"))
    lists = {
        name: tuple(own.pop(name)) for name in list(own) if isinstance(own[name], list)
    }
    changed: dict[str, Any] = {
        name: x for name, x in lists.items() if hasattr(command, name)
    }
    changed["settings"] = type(command.settings)(**own)
    return replace(command, **changed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if sys.stderr is None:  # closed, as by 2>&-
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if shutil.get_terminal_size().columns < _COLUMNS:
        os.environ["COLUMNS"] = str(_COLUMNS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A console that lacks a character of a table shows it as "?".
            stream.reconfigure(errors="replace")
    command = parse(sys.argv[1:] if arguments is None else arguments)
    with processes.joined():
        return _run(command)


def _run(command: Command) -> int:
    try:
        check_name("out", command.out)
        text = command.run()
    except (ValueError, OSError, ImportError, sqlite3.Error) as error:
        if processes.is_first():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if processes.is_first():
            print("\nstopped; the same command continues from here", file=sys.stderr)
        # The exit status by which shells tell which signal ended a program.
        return 128 + getattr(stop, "number", signal.SIGINT)
    if processes.is_first():
        print(f"\n{text}")
        if not (isinstance(command, Runs) and command.dry_run):
            print(f"Written to {command.destination}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
