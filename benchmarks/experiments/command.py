"""The base class of the commands of python -m benchmarks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..methods.methods import METHODS

# The choices are the keys of METHODS; a Literal would have to repeat them.
MethodName = Annotated[
    str,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="METHOD",
        instance_from_str=lambda texts: texts[0],
        is_instance=lambda value: value in METHODS,
        str_from_instance=lambda name: [name],
        choices=tuple(METHODS),
    ),
]
MethodNames = Annotated[
    tuple[MethodName, ...], tyro.conf.arg(help=f"any of: {'; '.join(METHODS)}.")
]


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A command: its fields are its options, and their documentation is their help.

    Attributes:
        out: output folder.
    """

    out: Path

    @property
    def destination(self) -> Path:
        """Where the result is written."""
        return self.out

    @abstractmethod
    def run(self) -> str:
        """Run the command, and return the text to print."""
