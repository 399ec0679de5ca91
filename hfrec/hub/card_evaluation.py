"""What a model card says of the evaluation: protocol, results beside the baselines, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation.metrics.functions import METRIC
from ..evaluation.table import METRICS, cell, markdown_row, settings
from .card_sources import source_limits

BEYOND = ("coverage@10", "mean_popularity@10")


def evaluation_facts(results: Mapping[str, Any], *, name: str = "this model") -> dict[str, Any]:
    """The template's values of the evaluation, from results with a `test`; `name` is what the table calls the model."""
    test, split = results["test"], results.get("split", {})
    protocol = test.get("protocol", {})
    dropped = split.get("users_without_test")
    facts = {
        "split": protocol.get("split"),
        "intervals": protocol.get("intervals"),
        "num_unknown_targets": f"{test['n_unknown_targets']:,}" if test["n_unknown_targets"] else "0",
        "num_targets": f"{test['n_users']:,}",
        "results_table": _results_table(test, name),
        "verdict": test.get("verdict", {}).get("text"),
        "baseline_settings": _baseline_settings(test),
        "popularity_bias": _popularity_bias(test),
        "limits": [*_limits(test), *source_limits(results)],
    }
    if "n_new_users" in test:
        facts["newcomers"] = (
            f"{test['n_new_users']:,} users without a history, {test['n_new_items']:,} targets with an item that "
            f"training does not have; {test['n_left_out']:,} users left out"
        )
    facts["seen_items"] = _seen_items(test, results.get("seen_items", {}))
    if split.get("test_tie_share") is not None:
        facts["tied_targets"] = f"{split['test_tie_share']:.1%}"
    if dropped is not None and facts["split"]:
        facts["split"] += f"; {dropped:,} users without a test item"
    return facts


def _seen_items(test: Mapping[str, Any], measured: Mapping[str, Any]) -> str | None:
    if "decided_by" not in test:
        return None
    done = "filtered" if test["decided_by"] == "filter_seen" else "not filtered"
    share = measured.get("validation_repeat_share")
    why = "" if share is None else f"; {share:.1%} of the validation targets repeat the history"
    return f"reported with and without them, never mixed; recommended and chosen by: {done}{why}"


def _results_table(test: Mapping[str, Any], name: str) -> str:
    """Model and baselines, seen items filtered and not, as Markdown."""
    rows = {**test.get("baselines", {}), f"**{name}**": test}
    names = ["", "seen items", *METRICS, *BEYOND]
    lines = [markdown_row(*names), "|" + "---|" * len(names)]
    for setting in settings(test):
        for name, row in rows.items():
            measured = row[setting]
            cells = [cell(measured, metric) for metric in METRICS]
            cells += [f"{measured[metric]:.4g}" if metric in measured else "–" for metric in BEYOND]
            lines.append(markdown_row(name, setting.replace("_", " "), *cells))
    return "\n".join(lines)


def _baseline_settings(test: Mapping[str, Any]) -> str | None:
    rows = {name: row.get("settings") for name, row in test.get("baselines", {}).items()}
    shown = {name: ", ".join(f"{key} {value:g}" for key, value in row.items()) for name, row in rows.items() if row}
    return "; ".join(f"{name}: {text}" for name, text in shown.items()) or None


def _popularity_bias(test: Mapping[str, Any]) -> str | None:
    mine = test["filter_seen"]
    popular = test.get("baselines", {}).get("popularity", {}).get("filter_seen", {})
    if not {*BEYOND} <= set(mine) or not {*BEYOND} <= set(popular):
        return None
    return (
        f"Its top 10 cover {mine['coverage@10']:.1%} of the catalogue (the popularity baseline: "
        f"{popular['coverage@10']:.1%}), and an item in them was taken {mine['mean_popularity@10']:,.1f} times in the "
        f"training data on average (popularity: {popular['mean_popularity@10']:,.1f}). What is rare is shown rarely."
    )


def _limits(test: Mapping[str, Any]) -> list[str]:
    setting = settings(test)[0]
    mine = test[setting]
    limits = []
    for name, row in test.get("baselines", {}).items():
        low, high = row[setting][f"{METRIC}_ci"]
        if mine[METRIC] <= row[setting][METRIC]:
            limits.append(f"On this data it does not beat {name} ({METRIC} {row[setting][METRIC]:.4f}).")
        elif mine[f"{METRIC}_ci"][0] <= high and low <= mine[f"{METRIC}_ci"][1]:
            limits.append(f"Its interval overlaps that of {name}: the difference may be chance.")
    skipped = test.get("skipped_baselines", {})
    return limits + [f"It is not compared with {name}: {reason}" for name, reason in skipped.items()]
