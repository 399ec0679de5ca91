"""Durations as people write them. Nothing heavy is imported here: help must not wait for it."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str, name: str = "time_budget") -> float:
    """Seconds of a duration such as `90s`, `15m` or `1h30m`.

    Args:
        text: The duration.
        name: Of the argument that it is the value of.

    Raises:
        ValueError: Another form, or no time at all.

    Example:
        >>> parse_duration("1h30m")
        5400.0
    """
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    values = [float(part or 0) for part in parts.groups()] if parts else [0.0]
    if sum(values) == 0:
        raise ValueError(f"`{name}` must be a duration such as 90s, 15m or 1h30m, found {text!r}.")
    return sum(value * _UNITS[unit] for value, unit in zip(values, "hms", strict=True))
