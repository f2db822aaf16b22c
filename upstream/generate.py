"""Writes pml_symm's modules, tests and documentation into a checkout of PML."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pml_symm

from . import documentation

OWN = Path(pml_symm.__file__).parent
SMALL = Path(__file__).parent / "small"
TESTS = Path(__file__).parent / "tests"
PACKAGE = "pytorch_metric_learning"

PUBLIC = {
    "symm_angular_loss": ("losses", "SymmAngularLoss"),
    "symm_lifted_structure_loss": ("losses", "SymmLiftedStructureLoss"),
    "symm_loss": ("losses", "SymmLoss"),
    "symm_n_pairs_loss": ("losses", "SymmNPairsLoss"),
    "symm_triplet_margin_loss": ("losses", "SymmTripletMarginLoss"),
    "symm_miner": ("miners", "SymmMiner"),
}
"""Module -> the package it is written to, and the class that the package exports."""

INTERNAL = "utils.symm"
"""The package of all other modules; users import SymmSynthesizer from it."""

_NOT_TAKEN = ("__init__", "accuracy_calculator", "pml_version")

_SMALL = ("symm_miner", "symm_synthesizer", "synthetic_batch")
"""The modules of only="miner"; from upstream/small, if that has them."""


def generate(checkout: Path, only: str | None = None) -> list[Path]:
    """Write modules, exports, tests and documentation, in PML's format.

    Args:
        checkout: folder of a checkout of PML 2.x.
        only: "miner" for only SymmMiner and SymmSynthesizer, from upstream/small; None
            for everything.

    Returns:
        The files that were written or changed, relative to checkout.

    Raises:
        ValueError: checkout is not a checkout of PML 2.x; only is unknown; only="miner",
            but the checkout has the losses already.
        OSError: it cannot be read or written.
    """
    if only not in (None, "miner"):
        raise ValueError(f"only must be 'miner', got {only!r}")
    source = checkout / "src" / PACKAGE
    version = source / "__init__.py"
    if not version.is_file() or '__version__ = "2.' not in version.read_text(
        encoding="utf-8"
    ):
        raise ValueError(f"{checkout} must be a checkout of pytorch-metric-learning 2.x")
    if only is not None and (source / "losses" / "symm_loss.py").exists():
        raise ValueError(f"only={only!r} needs a checkout without the losses: {checkout}")
    public = {
        module: place
        for module, place in PUBLIC.items()
        if only is None or module in _SMALL
    }
    written = [
        *_modules(source, only),
        *_exports(source, public),
        *_tests(checkout, only),
    ]
    _format(written, checkout)
    written += documentation.write(
        checkout,
        {name: where for where, name in public.values()},
        {"SymmMiner": "SymmSynthesizer"} if only else {},
    )
    return sorted(path.relative_to(checkout) for path in written)


def _place(module: str) -> str:
    return PUBLIC[module][0] if module in PUBLIC else INTERNAL


def _modules(source: Path, only: str | None) -> list[Path]:
    folder = source / INTERNAL.replace(".", "/")
    folder.mkdir(exist_ok=True)
    exports = folder / "__init__.py"
    exports.write_text(
        "from .symm_synthesizer import SymmSynthesizer\n"
        "from .synthetic_batch import SyntheticBatch\n",
        encoding="utf-8",
    )
    written = [exports]
    for path in sorted(OWN.glob("*.py")):
        if path.stem in _NOT_TAKEN or (only and path.stem not in _SMALL):
            continue
        if only and (SMALL / path.name).exists():
            path = SMALL / path.name
        place = _place(path.stem)
        target = source / place.replace(".", "/") / path.name
        target.write_text(
            _translated(path.read_text(encoding="utf-8"), place, source), encoding="utf-8"
        )
        written.append(target)
    return written


def _translated(text: str, place: str, source: Path) -> str:
    """A module's text with relative imports, and with PML's module names in examples."""
    text = re.sub(r"^# mypy: .*\n", "", text)
    text = re.sub(
        r"^from (?:pml_symm)?\.(\w+) import",
        lambda m: f"from {_relative(place, f'{_place(m[1])}.{m[1]}')} import",
        text,
        flags=re.M,
    )
    text = re.sub(
        rf"^from {PACKAGE}\.(losses|miners) import (\w+)$",
        lambda m: _import_of_one(place, m[1], m[2], source),
        text,
        flags=re.M,
    )
    text = re.sub(
        rf"^from {PACKAGE}(?:\.([\w.]+))? import",
        lambda m: f"from {_relative(place, m[1] or '')} import",
        text,
        flags=re.M,
    )
    text = re.sub(
        r">>> from pml_symm import (\w+)",
        lambda m: f">>> from {_public_place(m[1])} import {m[1]}",
        text,
    )
    text = re.sub(
        r">>> from pml_symm\.(\w+) import",
        rf">>> from {PACKAGE}.{INTERNAL}.\1 import",
        text,
    )
    # PML does not get the page on the mathematics.
    text = re.sub(r'; docs/mathematics\.md, "[^"]*"', "", text)
    return re.sub(r'docs/mathematics\.md, "[^"]*"', "Gu & Ko, AAAI 2020", text)


def _relative(place: str, target: str) -> str:
    """The relative import path from a package to a module or a package.

    >>> _relative("losses", "utils.symm.gram"), _relative("utils.symm", "utils.symm.gram")
    ('..utils.symm.gram', '.gram')
    >>> _relative("utils.symm", "utils"), _relative("losses", "")
    ('..', '..')
    """
    here, there = place.split("."), target.split(".") if target else []
    while here and there and here[0] == there[0]:
        here, there = here[1:], there[1:]
    return "." * (len(here) + 1) + ".".join(there)


def _import_of_one(place: str, package: str, name: str, source: Path) -> str:
    """Import one of PML's classes from its own file, as PML's modules do."""
    exports = (source / package / "__init__.py").read_text(encoding="utf-8")
    found = re.search(rf"^from \.(\w+) import (?:.*\b)?{name}\b", exports, re.M)
    if found is None:
        raise ValueError(f"{package} of this version has no {name}")
    return f"from {_relative(place, f'{package}.{found[1]}')} import {name}"


def _public_place(name: str) -> str:
    for where, exported in PUBLIC.values():
        if exported == name:
            return f"{PACKAGE}.{where}"
    return f"{PACKAGE}.{INTERNAL}"


def _exports(source: Path, public: Mapping[str, tuple[str, str]]) -> list[Path]:
    written = []
    for package in sorted({where for where, _ in public.values()}):
        path = source / package / "__init__.py"
        lines = [
            x
            for x in path.read_text(encoding="utf-8").splitlines()
            if not x.startswith("from .symm_")
        ]
        lines += [
            f"from .{module} import {name}"
            for module, (where, name) in public.items()
            if where == package
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _tests(checkout: Path, only: str | None) -> list[Path]:
    written = []
    for path in sorted(TESTS.rglob("test_*.py")):
        if only and path.parent.name == "losses":
            continue
        target = checkout / "tests" / path.relative_to(TESTS)
        shutil.copyfile(path, target)
        written.append(target)
    return written


def _format(paths: list[Path], checkout: Path) -> None:
    """Format like PML's format_code.sh, in the checkout: isort finds own modules there."""
    names = [str(path.relative_to(checkout)) for path in paths]
    for tool in (["isort", "--profile", "black"], ["black"]):
        subprocess.run(
            [sys.executable, "-m", *tool, "--quiet", *names], check=True, cwd=checkout
        )
