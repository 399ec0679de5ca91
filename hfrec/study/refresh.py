"""The refresh of a trained model: periods of a log, old and new model on the same next period, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..data.interactions import Interactions, concatenate_interactions, timestamps_to_numpy, user_codes
from ..data.sequences import to_evaluation_sequences
from ..data.splits import time_of_flag
from ..evaluation.cohorts import summarise_cohorts
from ..evaluation.metrics.functions import paired_bootstrap
from ..evaluation.protocol import rank_among
from ..evaluation.ranking import PROTOCOLS
from ..tokenization import ItemTokenizer
from .arguments import RefreshArguments
from .report import row as line
from .report import shown

METRIC = "ndcg@10"
OVERALL = "all"
Ranks = dict[str, NDArray[np.int64]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Periods:
    """One log cut in time.

    Args:
        before ([`Interactions`]): Older than the new period; may be empty.
        new ([`Interactions`]): What the refresh trains on.
        targets ([`Interactions`]): The first interaction of each user in the next period. It alone has a history that
            is known when the period begins, which is when a refreshed model goes to work.
        refresh_start (`float`): First time of the new period, as the log counts.
    """

    before: Interactions
    new: Interactions
    targets: Interactions
    refresh_start: float

    @cached_property
    def known(self) -> Interactions:
        """All that is known when the next period begins."""
        return concatenate_interactions(self.before, self.new) if len(self.before) else self.new

    def training_parts(self, context_items: int) -> tuple[Interactions, Interactions, Interactions]:
        """What trains, and the history and targets of the validation.

        Args:
            context_items: Earlier items of a user that stay before his first one of the new period.

        Returns:
            The new period with its context, without the validation targets; everything known without them; the last
            interaction of each user with two or more in the new period.

        Raises:
            ValueError: No user has two.
        """
        codes = user_codes(self.known.table)
        is_new = timestamps_to_numpy(self.known.table["timestamp"]) >= self.refresh_start
        sizes = np.bincount(codes)
        place = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes]  # 0 for a user's oldest interaction
        num_new = np.bincount(codes, weights=is_new).astype(np.int64)  # (num_users,)
        held = (place == sizes[codes] - 1) & (num_new[codes] >= 2)
        if not held.any():
            raise ValueError(
                "No user has two interactions in the new period: nothing is left to validate on. Move `refresh_start` "
                "or `test_start`, so that the period is longer."
            )
        first = sizes[codes] - num_new[codes]  # place of the user's first new interaction
        recent = (num_new[codes] > 0) & (place >= first - context_items)
        return self.known.select(recent & ~held), self.known.select(~held), self.known.select(held)


def split_periods(
    log: Interactions, *, test_start: str | float, refresh_start: str | float | None, test_end: str | float | None
) -> Periods:
    """Cut a log into what was before, the new period, and the next one.

    Args:
        log ([`Interactions`]): The whole log, or the new and the next period of it.
        test_start, refresh_start, test_end: First time of the next and of the new period, and first time after the
            next one: ISO times for datetimes, else numbers like the log's. None: from the log's start, to its end.

    Raises:
        ValueError: Times of another kind or out of order, or a period without interactions.

    Example:
        >>> from hfrec.data.interactions import load_interactions
        >>> table = pa.table({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [1, 2, 3, 4]})
        >>> periods = split_periods(load_interactions(table), test_start=3, refresh_start=2, test_end=None)
        >>> [part.table["item_id"].to_pylist() for part in (periods.before, periods.new, periods.targets)]
        [['a'], ['b'], ['c']]
    """
    column = log.table["timestamp"]
    times = timestamps_to_numpy(column)
    start = times.min() if refresh_start is None else time_of_flag(refresh_start, column.type, "refresh_start")
    test = time_of_flag(test_start, column.type, "test_start")
    end = np.inf if test_end is None else time_of_flag(test_end, column.type, "test_end")
    if not start < test < end:
        raise ValueError(
            "The times must be in the order `refresh_start` < `test_start` < `test_end`, found "
            f"{refresh_start if refresh_start is not None else pc.min(column).as_py()}, {test_start}, {test_end}. "
            f"The log runs from {pc.min(column).as_py()} to {pc.max(column).as_py()}."
        )
    new, following = (times >= start) & (times < test), (times >= test) & (times < end)
    for name, mask, flags in (("new", new, "refresh_start"), ("next", following, "test_end")):
        if not mask.any():
            raise ValueError(
                f"No interaction lies in the {name} period: the log runs from {pc.min(column).as_py()} to "
                f"{pc.max(column).as_py()}. Move `test_start` or `{flags}`, or give a newer log."
            )
    codes = user_codes(log.table)
    later = np.flatnonzero(following)
    first = np.zeros(len(codes), dtype=bool)
    first[later[np.unique(codes[later], return_index=True)[1]]] = True
    return Periods(log.select(times < start), log.select(new), log.select(first), float(start))


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
    rows = to_evaluation_sequences(periods.known, periods.targets, tokenizer)
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
    titles = {"filter_seen": "Seen items filtered", "unfiltered": "Seen items ranked too"}
    for protocol in PROTOCOLS:
        lines += ["", f"## {titles[protocol]}", "", "| cohort | users | NDCG@10 before | after | difference |"]
        lines.append("|---|---|---|---|---|")
        for name, row in report[protocol].items():
            lines.append(line(name, f"{row['n']:,}", *_cells(row)))
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    if row["n"] == 0:
        return ["–"] * 3
    cells = [shown((row[when][METRIC], *row[when][f"{METRIC}_ci"])) for when in ("before", "after")]
    return [*cells, shown((row["difference"], *row["difference_ci"]), sign="+")]
