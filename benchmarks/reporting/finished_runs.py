"""The finished runs of an output folder, grouped by variant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ..methods.methods import METHODS, Method, Synthesis
from ..training import evaluator, records
from ..training.settings import complete
from . import convergence

# Only Symm methods use these fields, controls one of them: they make no difference to a
# base.
_SYNTHESIS = {field.name for field in fields(Synthesis)}
_NOT_IN_LABELS = {
    *("seed", "fold", "method", "touch_test"),
    # A search may choose another one for each variant.
    *("learning_rate", "weight_decay", "head_factor", "trainer_options"),
}


class FinishedRuns(NamedTuple):
    """The runs of an output folder that were tested.

    Attributes:
        name: of the folder.
        variants: label -> the results of its runs, by seed.
        bases: label -> the variants that it is compared with, its base loss first.
        maps: label -> the folder of its first run that has a map.
        diverged: a sentence about runs that diverged before their test; empty without any.
    """

    name: str
    variants: dict[str, list[dict[str, Any]]]
    bases: dict[str, tuple[str, ...]]
    maps: dict[str, Path]
    diverged: str = ""

    def method(self, label: str) -> Method:
        """The method of a variant."""
        return METHODS[self.variants[label][0]["settings"]["method"]]


def different(folders: Iterable[Path]) -> list[Path]:
    """The folders in their order, each once."""
    return list({folder.resolve(): folder for folder in folders}.values())


def is_missing(folder: Path) -> str:
    """The end of an error about a folder without runs: whether it is there."""
    return "" if folder.is_dir() else ": there is no such folder"


def read(folder: Path) -> FinishedRuns:
    """The finished runs in the database of an output folder; none without a database."""
    finished = {
        name: {**result, "settings": complete(result["settings"])}
        for name, result in records.read_all(folder / records.DATABASE).items()
    }
    tested = {name: result for name, result in finished.items() if result["test"]}
    every = [result["settings"] for result in tested.values()]
    varying = [
        name
        for name in (every[0] if every else {})
        if name not in _NOT_IN_LABELS and _varies(name, every)
    ]
    by_split: dict[str, dict[Any, dict[str, Any]]] = {}
    maps: dict[str, Path] = {}
    for name, result in tested.items():
        label = _label(result["settings"], varying)
        # A search may have chosen otherwise before: the last one of a split counts.
        split = result["settings"]["seed"], result["settings"]["fold"]
        by_split.setdefault(label, {})[split] = result
        if (folder / name / evaluator.MAP).exists():
            maps.setdefault(label, folder / name)
    variants = {
        label: [own[x] for x in sorted(own, key=lambda x: (x[0], x[1] or 0))]
        for label, own in by_split.items()
    }
    bases = {}
    for label, results in variants.items():
        settings = results[0]["settings"]
        named = [
            _label({**settings, "method": method}, varying)
            for method in METHODS[settings["method"]].bases
        ]
        bases[label] = tuple(base for base in named if base in variants)
    diverged = convergence.diverged(
        (result["settings"]["method"], result)
        for result in finished.values()
        if result["settings"]["touch_test"]
    )
    # Resolved, because "." has no name.
    return FinishedRuns(folder.resolve().name, variants, bases, maps, diverged)


def _varies(name: str, every: Iterable[Mapping[str, Any]]) -> bool:
    values = {json.dumps(settings[name]) for settings in every}
    if name == "fingerprint":
        # Earlier versions did not store it: it is not known, rather than another one.
        values.discard("null")
    return len(values) > 1


def _label(settings: Mapping[str, Any], varying: Iterable[str]) -> str:
    method = METHODS[settings["method"]]
    unused = set() if method.is_symm else _SYNTHESIS
    if method.is_control:
        unused = unused - {"base_steps"}
    parts = [
        f"{name} = {settings[name]}"
        for name in varying
        if settings.get(name) is not None and name not in unused
    ]
    return ", ".join([settings["method"], *parts])
