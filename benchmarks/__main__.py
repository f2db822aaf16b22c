"""The command line: python -m benchmarks --help."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sqlite3
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from .commands import COMMANDS, DESCRIPTIONS
from .data.files import check_name
from .experiments.command import PRESETS, Command, Configured
from .training import processes

_COLUMNS = 40  # tyro does not end where its help does not fit


def parse(arguments: Sequence[str]) -> Command:
    """The command with its options: given ones, else the preset's, else the defaults.

    Raises:
        SystemExit: --help, or invalid arguments.
    """
    # Found before the others, because their defaults and their help depend on it.
    finder = ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", nargs="?")
    preset = finder.parse_known_args(arguments)[0].preset
    kinds = []
    for name, command in COMMANDS.items():
        if isinstance(command, Configured) and preset in PRESETS:
            command = command.with_preset(preset)
        about = DESCRIPTIONS.get(name)  # None: the class's docstring
        choice = tyro.conf.subcommand(name, default=command, description=about)
        kinds.append(Annotated[type(command), choice])
    any_of_them: Any = Union[tuple(kinds)]  # noqa: UP007, for a tuple
    return tyro.cli(
        any_of_them,
        prog="python -m benchmarks",
        description="Benchmarks of pml_symm on PML's own trainers and testers.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )


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
        text, written = command.run()
    except (ValueError, OSError, ImportError, sqlite3.Error) as error:
        if processes.is_first():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if processes.is_first():
            is_forced = getattr(getattr(command, "schedule", None), "force", False)
            line = "stopped; the same command continues from here"
            if is_forced:
                line = (
                    "stopped; the same command starts again; without --force it continues "
                    "from here, and leaves runs that it has not reached as they were"
                )
            print(f"\n{line}", file=sys.stderr)
        # The exit status by which shells tell which signal ended a program.
        return 128 + getattr(stop, "number", signal.SIGINT)
    if processes.is_first():
        print(f"\n{text}")
        if written is not None:
            print(f"Written to {written}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
