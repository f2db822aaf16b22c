"""Runs that diverged have no numbers: tables name them, and show the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def without(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[Mapping[str, Any]]]:
    """The runs that did not diverge, of each row that has such a run.

    Args:
        results: row -> what training.run returned, for each of its runs.
    """
    finite = {
        label: [run for run in runs if "diverged" not in run]
        for label, runs in results.items()
    }
    return {label: runs for label, runs in finite.items() if runs}


def sentence(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """What a table says below itself of runs that diverged; empty without any.

    Args:
        runs: name, and what training.run returned.

    >>> run = {"settings": {"seed": 0}, "diverged": {"step": 3, "what": "the loss"}}
    >>> sentence([("N-pairs", run)])
    'Diverged: N-pairs, seed 0, at step 3 (the loss is not finite).'
    """
    names = [
        f"{label}, seed {run['settings']['seed']}, at step {run['diverged']['step']} "
        f"({run['diverged']['what']} is not finite)"
        for label, run in runs
        if "diverged" in run
    ]
    return f"Diverged: {'; '.join(names)}." if names else ""
