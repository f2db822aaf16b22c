"""What is wrong with a dataset, in lines for an error's message."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN = 100  # the most items to list for each reason


def describe(bad: Mapping[str, str]) -> str:
    """A line for each item, grouped by reason; of each reason the first hundred only.

    Args:
        bad: an item's name -> what is wrong with it.

    >>> print(describe({"a.jpg": "is missing", "b.jpg": "is missing"}))
    a.jpg is missing
    b.jpg is missing
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in bad.items():
        by_reason.setdefault(reason, []).append(name)
    lines = []
    for reason, alike in by_reason.items():
        lines += [f"{name} {reason}" for name in alike[:_SHOWN]]
        if len(alike) > _SHOWN:
            lines.append(f"... and {len(alike) - _SHOWN} more {reason}")
    return "\n".join(lines)
