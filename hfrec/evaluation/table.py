"""Results as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .ranking import PROTOCOLS

METRICS = {"ndcg@10": "NDCG@10", "hit_rate@10": "HR@10", "mrr@10": "MRR@10"}  # in words
SETTINGS = {"filter_seen": "seen items filtered", "unfiltered": "seen items not filtered"}  # in words


def results_table(results: Mapping[str, Any], metrics: Sequence[str] = ("ndcg@10", "hit_rate@10")) -> str:
    """A text table of a model and its baselines, seen items filtered and not, with 95 % intervals.

    The setting that decides comes first.

    Args:
        results: What `evaluate_checkpoint` returns.
        metrics: Columns.
    """
    rows = {**results["baselines"], "model": results}
    body = [
        [name, setting, *(cell(row[setting], metric) for metric in metrics)]
        for setting in settings(results)
        for name, row in rows.items()
    ]
    note = f"{results['n_users']:,} users, {results['n_unknown_targets']:,} targets outside the vocabulary (misses)"
    if "n_new_users" in results:
        note += (
            f"; {results['n_new_users']:,} new users, {results['n_new_items']:,} new items, "
            f"{results['n_left_out']:,} users left out"
        )
    note += f"; {settings(results)[0]} decides"
    left_out = [f"{name} is left out: {reason}" for name, reason in results.get("skipped_baselines", {}).items()]
    return "\n".join([align([["", "seen items", *metrics], *body]), note, *left_out])


def settings(results: Mapping[str, Any]) -> list[str]:
    """`filter_seen` and `unfiltered`, first the one that decides; results that do not say filter."""
    return sorted(PROTOCOLS, key=lambda name: name != results.get("decided_by", "filter_seen"))


def cohorts_table(cohorts: Mapping[str, Any], metric: str = "ndcg@10") -> str:
    """A text table of one metric in each cohort that has rows, the model beside the baselines.

    Args:
        cohorts: What `evaluate_checkpoint(..., cohorts=True)` returns as `cohorts`.
        metric: The metric shown.
    """
    body = [
        [name, setting, f"{row['model']['n']:,}", *(cell(values, metric) for values in row.values())]
        for setting in PROTOCOLS
        for name, row in cohorts[setting].items()
        if row["model"]["n"]
    ]
    models = list(next(iter(cohorts["unfiltered"].values())))
    return align([[metric, "seen items", "rows", *models], *body])


def cold_users_table(cold_users: Mapping[str, Any], metric: str = "ndcg@10") -> str:
    """A text table of what the model, the prior and their mix are worth to empty histories.

    Args:
        cold_users: What `measure_cold_users` returns.
        metric: The metric shown.
    """
    names = ("model", "prior", "mix")
    body = [
        [setting, f"{cold_users['n']:,}", f"{cold_users['weight']:.3f}"]
        + [cell(cold_users[setting][name], metric) for name in names]
        for setting in PROTOCOLS
    ]
    head = ["without a history", "rows", "share of prior", *(f"{metric} {name}" for name in names)]
    return align([head, *body])


def cell(values: Mapping[str, Any], metric: str) -> str:
    """A metric with its interval."""
    return estimate((values[metric], *values[f"{metric}_ci"]))


def align(rows: Sequence[Sequence[str]]) -> str:
    """Pad the columns of rows of text to one width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Folders and files by as many of their last parts as tell them apart: the rest is of one machine.

    Example:
        >>> short_names(["/data/runs/scratch", "/data/runs/tuned", "plain"])
        ['scratch', 'tuned', 'plain']
        >>> short_names(["/data/a/run", "/data/b/run", "/data/c/d"])
        ['a/run', 'b/run', 'd']
    """
    parts = [Path(name).parts or (name,) for name in names]
    kept = [1] * len(names)
    shown = [part[-1] for part in parts]
    while len(set(shown)) < len(shown):
        longer = [shown.count(one) > 1 for one in shown]
        if not any(more and depth < len(part) for more, depth, part in zip(longer, kept, parts, strict=True)):
            return list(names)
        kept = [depth + more for depth, more in zip(kept, longer, strict=True)]
        shown = [str(Path(*part[-depth:])) for part, depth in zip(parts, kept, strict=True)]
    return shown


def renamed(note: str, called: Mapping[str, str]) -> str:
    """A note with the short names of the runs, the longest name first: it may begin as another one does."""
    for name in sorted(called, key=len, reverse=True):
        note = note.replace(name, called[name])
    return note


def markdown_row(*cells: str) -> str:
    """A line of a markdown table.

    Example:
        >>> markdown_row("model", estimate((0.1, 0.05, 0.2)))
        '| model | 0.1000 [0.0500, 0.2000] |'
    """
    return "| " + " | ".join(cells) + " |"


def estimate(values: Sequence[float], sign: str = "") -> str:
    """A number with its interval: mean, low, high; `sign` "+" also shows that of a number above 0."""
    mean, low, high = (f"{value:{sign}.4f}" for value in values)
    return f"{mean} [{low}, {high}]"
