"""Splits: who is in which part, and the audit that finds a leak."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from hfrec.data.interactions import load_interactions
from hfrec.data.splits import Split, hold_out_users, last_n, leakage_audit, leave_one_out, split_by_time


def make(text: str, times=None):
    """ "u:abc v:d" -> three interactions of u, one of v, at times 0, 1, 2, 3."""
    pairs = [(user, item) for user, items in (word.split(":") for word in text.split()) for item in items]
    times = list(range(len(pairs))) if times is None else times
    users, items = zip(*pairs, strict=True)
    return load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))


def text(interactions) -> str:
    table = interactions.table
    return " ".join(
        user + item for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    )


def parts(split: Split) -> list[str]:
    return [text(part) for part in (split.train, split.validation, split.test)]


def test_leave_one_out_with_short_users():
    """Stops a user's last item from being trained on when he has only two."""
    split = leave_one_out(make("u:abcd v:ab w:a x:abc"))
    assert parts(split) == ["ua ub va wa xa", "uc xb", "ud vb xc"]
    assert (split.report.users_without_test, split.report.users_without_validation) == (1, 2)
    assert text(split.history) == "ua ub uc va wa xa xb"


def test_last_n():
    """Stops targets from being taken out of users who would have no history."""
    assert parts(last_n(make("u:abcdef v:abc w:ab"), 2)) == ["ua ub va wa wb", "uc ud", "ue uf vb vc"]
    assert parts(last_n(make("u:abcd v:ab"), 1)) == parts(leave_one_out(make("u:abcd v:ab")))
    with pytest.raises(ValueError, match="`n`"):
        last_n(make("u:ab"), 0)


def test_split_by_time_is_global():
    """Stops the boundary itself from falling into the earlier part."""
    split = split_by_time(make("u:abc v:abc"), validation_start=2, test_start=4)
    assert parts(split) == ["ua ub", "uc va", "vb vc"]
    assert leakage_audit(split).future_train_share == 0.0 and leakage_audit(split).unknown_users == 1


def test_split_by_time_takes_iso_strings_and_zones():
    """Stops a local time from being compared with UTC."""
    log = make("u:abc", [datetime(2024, 1, day) for day in (1, 2, 3)])
    for start in ("2024-01-03", datetime(2024, 1, 3), "2024-01-03T02:00:00+02:00", "2024-01-03T00:00:00Z"):
        assert parts(split_by_time(log, validation_start="2024-01-02", test_start=start)) == ["ua", "ub", "uc"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((5, 4), "must not be after"),
        ((0, 4), "train part is empty"),
        ((1, 99), "test part is empty"),
        ((1, "x"), "number"),
    ],
)
def test_split_by_time_refuses(arguments, word):
    """Stops an empty part from reaching training or evaluation."""
    with pytest.raises(ValueError, match=word):
        split_by_time(make("u:abc v:abc"), validation_start=arguments[0], test_start=arguments[1])


def test_hold_out_users():
    """Stops a held-out user from staying in training, and a draw that the seed does not fix."""
    log = make(" ".join(f"u{number}:ab" for number in range(10)))
    kept, held = hold_out_users(log, fraction=0.3, seed=1)
    assert held.num_users == 3 and kept.num_users == 7 and len(kept) + len(held) == len(log)
    assert not set(kept.table["user_id"].to_pylist()) & set(held.table["user_id"].to_pylist())
    assert text(hold_out_users(log, fraction=0.3, seed=1)[1]) == text(held)
    assert len({text(hold_out_users(log, fraction=0.3, seed=seed)[1]) for seed in range(5)}) > 1
    assert text(hold_out_users(log, fraction=0.2, by="latest")[1]) == "u8a u8b u9a u9b"
    assert text(hold_out_users(log, users=["u3"])[1]) == "u3a u3b"


@pytest.mark.parametrize(
    "arguments", [{}, {"fraction": 0.5, "users": ["u"]}, {"fraction": 1.0}, {"users": ["x"]}, {"users": ["u", "v"]}]
)
def test_hold_out_users_refuses(arguments):
    """Stops a part without users."""
    with pytest.raises(ValueError, match=r"`fraction`|`users`"):
        hold_out_users(make("u:ab v:ab"), **arguments)


def test_tie_share_counts_targets_that_only_file_order_chose():
    """Stops a number from being reported on targets that another sort would change, without a word."""
    report = leave_one_out(make("u:abc v:abc w:abcd", [1, 2, 2, 1, 2, 3, 1, 1, 5, 5])).report
    assert report.test_tie_share == pytest.approx(2 / 3)  # u's c and w's d
    assert report.validation_tie_share == pytest.approx(2 / 3)
    assert "66.7%" in str(report) and report.to_dict()["strategy"] == "leave_one_out"


def test_audit_is_clean_on_our_splits_and_finds_planted_leaks():
    """Stops training on the user's own future."""
    log = make("u:abca v:abcd")
    split = leave_one_out(log)
    audit = leakage_audit(split)
    assert audit.is_clean and audit.repeated_targets == 1 and audit.unknown_items == 1 and audit.unknown_users == 0
    assert audit.future_train_share == pytest.approx(2 / 4)  # v's a and b come after u's test item
    leaky = Split(train=log, validation=split.validation, test=split.test, report=split.report)
    assert leakage_audit(leaky).shared_interactions == 2 and not leakage_audit(leaky).is_clean
    early = log.select(np.arange(8) == 0)
    swapped = Split(train=split.test, validation=split.validation, test=early, report=split.report)
    assert leakage_audit(swapped).order_violations == 1 and "1 training" in str(leakage_audit(swapped))
