"""A log cut in time, by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from hfrec import load_interactions
from hfrec.data.periods import split_periods

LOG = {
    # user: (item, time) …; the new period is 10 to 19, the next 20 to 29
    "old": [("a", 1), ("b", 2), ("c", 3), ("a", 11), ("n", 12), ("b", 21), ("c", 22), ("a", 35)],
    "new": [("b", 13), ("a", 14), ("n", 25)],
    "cold": [("z", 20)],
    "gone": [("a", 4), ("c", 5)],
}


@pytest.fixture(scope="module")
def periods() -> Any:
    rows = [(user, item, time) for user, events in LOG.items() for item, time in events]
    users, items, times = zip(*rows, strict=True)
    log = load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))
    return split_periods(log, test_start=20, refresh_start="10", test_end=30)


def pairs(part: Any) -> list[tuple[str, str]]:
    return [(row["user_id"], row["item_id"]) for row in part.table.to_pylist()]


def test_targets_are_first_in_the_next_period_and_no_later_item_is_known(periods: Any) -> None:
    """A history that holds the target's own period would flatter whichever model saw it."""
    assert pairs(periods.targets) == [("cold", "z"), ("new", "n"), ("old", "b")]
    assert max(periods.known.table["timestamp"].to_pylist()) < 20
    assert min(periods.new.table["timestamp"].to_pylist()) >= 10


def test_training_parts_hold_the_new_period_and_a_little_context(periods: Any) -> None:
    """Users who were not there, or a validation target among the training items, would make it another training."""
    train, history, validation = periods.training_parts(1)
    assert pairs(validation) == [("new", "a"), ("old", "n")]
    assert pairs(train) == [("new", "b"), ("old", "c"), ("old", "a")]
    assert len(history) == len(periods.known) - 2
    assert pairs(periods.training_parts(0)[0]) == [("new", "b"), ("old", "a")]


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"test_start": 10, "refresh_start": 20}, "must be in the order"),
        ({"test_start": 20, "test_end": 20}, "must be in the order"),
        ({"test_start": 99}, "No interaction lies in the next period: the log runs from 1 to 3"),
        ({"test_start": 9, "refresh_start": 5}, "No interaction lies in the new period"),
        ({"test_start": "2024-01-01"}, "`test_start` must be a number like the log's times"),
    ],
)
def test_wrong_times(times: dict[str, Any], reason: str) -> None:
    """Empty periods would train on nothing or judge by nobody."""
    log = load_interactions(pa.table({"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": [1, 2, 30]}))
    with pytest.raises(ValueError, match=reason):
        split_periods(log, **{"refresh_start": None, "test_end": None, **times})
