"""What a table says of runs that diverged, or that had not converged at their end."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Result = Mapping[str, Any]
"""What training.run returned."""

Results = Mapping[str, Sequence[Result]]
"""Variant -> the results of its runs, one for each seed."""

VALIDATIONS = 4  # with fewer, the last quarter of the steps has no start
MUCH, LITTLE = 0.5, 0.1  # points
MARK = "†"
NOTE = f"{MARK} At least one of the two was still rising."


def diverged(runs: Iterable[tuple[str, Result]]) -> str:
    """A sentence that names the diverged ones of named runs; empty without any.

    >>> run = {"settings": {"seed": 0}, "diverged": {"step": 3, "what": "the loss"}}
    >>> diverged([("N-pairs", run)])
    'Diverged: N-pairs, seed 0, at step 3 (the loss is not finite).'
    """
    names = [
        f"{label}, seed {run['settings']['seed']}, at step {run['diverged']['step']} "
        f"({run['diverged']['what']} is not finite)"
        for label, run in runs
        if "diverged" in run
    ]
    return f"Diverged: {'; '.join(names)}." if names else ""


def rise(run: Result) -> float | None:
    """How much MAP@R on the validation classes rose in the last quarter of the steps.

    Returns:
        Points; None for a run that was validated fewer than VALIDATIONS times.

    >>> maps = [0.1, 0.3, 0.4, 0.45]
    >>> val = {"step": [50, 100, 150, 200], "mean_average_precision_at_r": maps}
    >>> print(f"{rise({'val': val}):.2f}")
    5.00
    """
    steps = run.get("val", {}).get("step", ())
    if len(steps) < VALIDATIONS:
        return None
    values = run["val"]["mean_average_precision_at_r"]
    # Between two validations, on the line through them.
    return 100 * (values[-1] - float(np.interp(0.75 * steps[-1], steps, values)))


def rises(runs: Sequence[Result]) -> list[float]:
    """The rises of a variant's runs; empty if it cannot be told for all of them."""
    found = [x for x in map(rise, runs) if x is not None]
    return found if len(found) == len(runs) else []


def is_rising(runs: Sequence[Result]) -> bool:
    """Whether a variant was still rising at its end.

    It was if its mean rise is more than MUCH, or more than both LITTLE and its own standard
    deviation over the seeds: a small rise counts if it is the same for all seeds.
    """
    values = rises(runs)
    if not values:
        return False
    mean = statistics.mean(values)
    return mean > MUCH or (len(values) > 1 and mean > max(LITTLE, statistics.stdev(values)))


def not_converged(results: Results) -> str:
    """A sentence if variants had not converged, or may not have; empty otherwise."""
    if not all(map(rises, results.values())):
        return (
            f"Converged or not: unknown, with fewer than {VALIDATIONS} validations. Train "
            "on with more --steps, or validate more often with --test-interval."
        )
    rising = [label for label, runs in results.items() if is_rising(runs)]
    if not rising:
        return ""
    steps = max(run["settings"]["steps"] for runs in results.values() for run in runs)
    return (
        f"Not converged: {'; '.join(rising)}. In the last quarter of the steps, MAP@R "
        f"on the validation classes still rose by more than {MUCH} points, or by more than "
        f"{LITTLE} points and its standard deviation over the seeds. Differences may "
        f"change: the same command with --steps {2 * steps} trains on from here."
    )
