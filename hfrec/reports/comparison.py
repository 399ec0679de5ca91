"""The page of `hfrec compare --report`: paired differences between runs, over all users and in each cohort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation.compare import HEAD
from ..evaluation.ranking import PROTOCOLS
from ..evaluation.table import METRICS, SETTINGS, renamed, short_names
from ..evaluation.verdict import with_ends
from .page import Interval, intervals, prose, table, text, write_page


def write_comparison(path: Path, compared: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: The file.
        compared: What `compare_ranks` returns.
    """
    arms = short_names(list(compared["arms"]))
    called = dict(zip(compared["arms"], arms, strict=True))
    notes = [renamed(note, called) for note in compared["notes"]]
    parts = [
        text("h1", " · ".join(arms)),
        text("p", f"{compared['n_users']:,} test users, the same for all; differences are paired", "soft"),
        *(prose(note, "verdict") for note in notes),
    ]
    for setting in PROTOCOLS:
        parts += _setting(compared, setting, called)
    parts.append(text("p", compared["correction"], "soft"))
    write_page(path, f"{' · '.join(arms)} · hfrec", parts)


def _setting(compared: Mapping[str, Any], setting: str, called: Mapping[str, str]) -> list[str]:
    rows = compared["comparisons"][setting]
    metrics = [name for name in METRICS if any(row["metric"] == name for row in rows)]
    first = metrics[0]
    body = [
        [called[name], str(len(arm["runs"])), *(with_ends(arm[setting][m], arm[setting][f"{m}_ci"]) for m in metrics)]
        for name, arm in compared["arms"].items()
    ]
    parts = [
        text("h2", f"Runs, {SETTINGS[setting]}"),
        table(["", "seeds", *(METRICS[name] for name in metrics)], body),
        text("h2", f"Difference in {METRICS[first]}, {SETTINGS[setting]}"),
        text("p", "An interval that lies on one side of the line of zero is a difference.", "soft"),
    ]
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in rows))
    names = {(a, b): f"{called.get(a, a)} − {called.get(b, b)}" for a, b in pairs}
    for pair in pairs:
        own = [row for row in rows if (row["a"], row["b"]) == pair and row["metric"] == first]
        parts += [text("h3", names[pair]), intervals([_interval(row) for row in own])]
    several = len(pairs) > 1
    listed = [
        [
            *([names[row["a"], row["b"]]] if several else []),
            *(row["cohort"], f"{row['n']:,}", METRICS.get(row["metric"], row["metric"])),
            with_ends(row["difference"], row["difference_ci"], "+"),
            with_ends(None, row["difference_ci_simultaneous"], "+"),
            *(f"{row[name]:.4f}" for name in ("p_value", "p_holm")),
        ]
        for row in rows
    ]
    return [*parts, text("h2", f"All comparisons, {SETTINGS[setting]}"), table(HEAD if several else HEAD[1:], listed)]


def _interval(row: Mapping[str, Any]) -> Interval:
    low, high = row["difference_ci"]
    shown = with_ends(row["difference"], (low, high), "+")
    name = f"{'all users' if row['cohort'] == 'all' else row['cohort']} ({row['n']:,})"
    return Interval(name, row["difference"], low, high, shown, is_model=low > 0 or high < 0)
