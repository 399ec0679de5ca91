"""What a refreshed checkpoint says of itself: results for its card, from the report of its verdict."""

from __future__ import annotations

from typing import Any

from ..evaluation.protocol import PROTOCOL, decided_by
from ..evaluation.ranking import PROTOCOLS
from .arguments import RefreshArguments
from .refresh import METRIC, OVERALL, Periods

OLD_MODEL = "the model before"


def refreshed_test(report: dict[str, Any], refresh: RefreshArguments) -> dict[str, Any]:
    """The judged comparison in the form of a test: the new model, and the one before as the baseline.

    Args:
        report: As `hfrec refresh` writes it.
        refresh: Periods and rule.
    """
    setting = decided_by(refresh.filter_seen != "false")
    row = report[setting][OVERALL]
    before, after = (row[when][METRIC] for when in ("before", "after"))
    low, high = row["difference_ci"]
    text = (
        f"Verdict: {report['verdict']}. NDCG@10 {after:.4f}, before {before:.4f}: {row['difference']:+.4f} "
        f"[{low:+.4f}, {high:+.4f}] on {row['n']:,} users. {report['rule']}"
    )
    return {
        "protocol": {
            "split": f"the first interaction of each user from {refresh.test_start} on is the target, all before that "
            "time the history; nothing later than it was trained on",
            "candidates": PROTOCOL["candidates"],
            "intervals": f"95 %, bootstrap over users, {refresh.n_bootstrap} resamples",
        },
        "decided_by": setting,
        "n_users": row["n"],
        "n_unknown_targets": report[setting]["later items"]["n"],
        **{name: report[name][OVERALL]["after"] for name in PROTOCOLS},
        "baselines": {OLD_MODEL: {name: report[name][OVERALL]["before"] for name in PROTOCOLS}},
        "verdict": {"text": text, "outcome": report["verdict"]},
    }


def refreshed_split(periods: Periods, refresh: RefreshArguments) -> dict[str, Any]:
    """How the log was cut, as `all_results.json` says it of a split."""
    return {
        "strategy": "refresh",
        "refresh_start": refresh.refresh_start,
        "test_start": refresh.test_start,
        "num_train": len(periods.new),
        "num_test": len(periods.targets),
    }
