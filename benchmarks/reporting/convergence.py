"""Whether runs had converged: how much their validation still rose at their end."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

VALIDATIONS = 4  # with fewer, the last quarter of the steps has no start
MUCH, LITTLE = 0.5, 0.1  # points
MARK = "†"
NOTE = f"{MARK} At least one of the two was still rising."


def rise(run: Mapping[str, Any]) -> float | None:
    """How much MAP@R on the validation classes rose in the last quarter of the steps.

    Args:
        run: what training.run returned.

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
    *_, before = (i for i, step in enumerate(steps) if 4 * step <= 3 * steps[-1])
    return 100 * (values[-1] - values[before])


def rises(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """The rises of the runs of a row; empty if it cannot be told for all of them."""
    found = [x for x in map(rise, runs) if x is not None]
    return found if len(found) == len(runs) else []


def is_rising(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row was still rising at its end.

    It was if its mean rise is more than MUCH, or more than both LITTLE and its own standard
    deviation over the seeds: a small rise counts if it is the same for all seeds.
    """
    values = rises(runs)
    if not values:
        return False
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean > MUCH
    return mean > MUCH or mean > max(LITTLE, statistics.stdev(values))


def cell(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean rise ± standard deviation, in points; empty if it cannot be told."""
    values = rises(runs)
    if not values:
        return ""
    mean = f"{statistics.mean(values):+.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"


def sentence(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What a table says above itself, if rows of it had not converged, or may not have.

    Args:
        results: row -> its runs.
    """
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
