"""The refresh of a trained model: old and new on the same next period, the verdict, and what results say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..data.inputs import inputs_of
from ..data.periods import Periods
from ..data.sequences import to_evaluation_sequences
from ..evaluation.cohorts import BoolArray, summarise_cohorts
from ..evaluation.metrics.functions import METRIC, paired_bootstrap
from ..evaluation.protocol import rank_among
from ..evaluation.ranked_test import PROTOCOL, decided_by
from ..evaluation.ranking import PROTOCOLS
from ..evaluation.table import SETTINGS, estimate, markdown_row
from ..tokenization import ItemTokenizer
from .refresh_arguments import RefreshArguments

OVERALL = "all"
OLD_MODEL = "the model before"
Ranks = dict[str, NDArray[np.int64]]


def rank_next(
    model: PreTrainedModel, tokenizer: ItemTokenizer, periods: Periods, items: Sequence[str], *, batch_size: int = 256
) -> Ranks:
    """Ranks of the targets of the next period among `items`; one that the model does not know is a miss (0).

    Args:
        model: Masked or causal model.
        tokenizer: Its tokenizer.
        periods: The log.
        items: The candidates, the same for all models that are compared.
        batch_size: Users scored at a time.

    Returns:
        `filter_seen` and `unfiltered`: (num_targets,) ranks in the order of `periods.targets`.
    """
    rows = to_evaluation_sequences(periods.known, periods.targets, tokenizer, inputs=inputs_of(model))
    return rank_among(model, tokenizer, rows, items, batch_size=batch_size)


def cohort_masks(periods: Periods, old: ItemTokenizer, new: ItemTokenizer) -> dict[str, BoolArray]:
    """Which targets belong to which cohort `(num_targets,)`.

    Old items are those of the old model, new ones came with the refresh, later ones neither knows. Old users have
    interactions before the new period; of the new users, some have no history at all.
    """
    users, items = periods.targets.table["user_id"], periods.targets.table["item_id"]
    known_before = _is_in(items, old.items["item_id"])
    known_after = _is_in(items, new.items["item_id"])
    old_users = _is_in(users, periods.before.table["user_id"])
    return {
        OVERALL: np.ones(len(items), dtype=bool),
        "old items": known_before,
        "new items": known_after & ~known_before,
        "later items": ~known_after,
        "old users": old_users,
        "new users": ~old_users,
        "users without history": ~_is_in(users, periods.known.table["user_id"]),
    }


def _is_in(values: pa.ChunkedArray, known: pa.ChunkedArray) -> BoolArray:
    found = pc.is_in(values, value_set=pc.unique(known))
    return np.asarray(found.combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def compare(before: Ranks, after: Ranks, masks: dict[str, BoolArray], *, n_bootstrap: int) -> dict[str, Any]:
    """Metrics of the old and the new model in each cohort, and the paired difference with its interval.

    Returns:
        By protocol and cohort: `n`, `before`, `after` (as `ranking_metrics` gives them), `difference` in NDCG@10 and
        `difference_ci`; an empty cohort has `n` only.
    """
    result: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        old, new = before[protocol], after[protocol]
        parts = [summarise_cohorts(ranks, masks, n_bootstrap=n_bootstrap) for ranks in (old, new)]
        result[protocol] = {}
        for name, mask in masks.items():
            row: dict[str, Any] = {"n": int(mask.sum())}
            if mask.any():
                paired = paired_bootstrap(new[mask], old[mask], metric=METRIC, n_bootstrap=n_bootstrap)
                row |= {"before": parts[0][name], "after": parts[1][name]}
                row |= {key: paired[key] for key in ("difference", "difference_ci")}
            result[protocol][name] = row
    return result


def objections(rows: dict[str, dict[str, Any]], arguments: RefreshArguments) -> list[str]:
    """What speaks for keeping the old model, by the rule of the arguments; empty: promote the new one.

    Args:
        rows: The cohorts of one protocol, as `compare` gives them.
        arguments: The rule.
    """
    found = []
    for name, row in rows.items():
        if row["n"] == 0 or row["difference_ci"][1] >= 0:
            continue
        low, high = row["difference_ci"]
        before = row["before"][METRIC]  # above 0, as something is lost
        lost = f"{name}: {METRIC} {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}], {-row['difference'] / before:.1%}"
        if name == OVERALL or (row["n"] >= arguments.min_cohort and -row["difference"] > arguments.max_loss * before):
            found.append(f"{lost} of {before:.4f} lost, {row['n']:,} users")
    return found


def report_markdown(report: dict[str, Any]) -> str:
    """The report for people: verdict, rule, what was compared, and a table for each protocol."""
    lines = [
        "# Refresh report",
        "",
        f"**Verdict: {report['verdict']}** (exit code {report['exit_code']}).",
        "",
        report["rule"],
        "",
        *[f"- Lost: {text}" for text in report["objections"]],
        *[f"- {text}" for text in report["notes"]],
    ]
    for protocol in PROTOCOLS:
        lines += [
            "",
            f"## {SETTINGS[protocol].capitalize()}",
            "",
            "| cohort | users | NDCG@10 before | after | difference |",
        ]
        lines.append("|---|---|---|---|---|")
        for name, row in report[protocol].items():
            lines.append(markdown_row(name, f"{row['n']:,}", *_cells(row)))
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    if row["n"] == 0:
        return ["–"] * 3
    cells = [estimate((row[when][METRIC], *row[when][f"{METRIC}_ci"])) for when in ("before", "after")]
    return [*cells, estimate((row["difference"], *row["difference_ci"]), sign="+")]


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
