"""Sessions: where they end, whose they are, and gaps that cannot be read."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from hfrec.data.interactions import Interactions, load_interactions
from hfrec.data.sessions import split_sessions


def log(users: list[str], times: list[object]) -> Interactions:
    items = [f"i{place}" for place in range(len(users))]
    return load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))


def test_a_pause_above_the_gap_ends_a_session() -> None:
    """A pause of exactly the gap belongs to the session; another user's time is no pause."""
    table = split_sessions(log(["u", "u", "u", "v", "v"], [0, 1800, 3601, 3602, 9000]), "30m").table
    assert table["user_id"].to_pylist() == ["u/1", "u/1", "u/2", "v/1", "v/2"]
    assert table["session_user_id"].to_pylist() == ["u", "u", "u", "v", "v"]


def test_the_log_stays_sorted_beyond_nine_sessions() -> None:
    """ "u/10" sorts before "u/2": a table in the order of the numbers would have histories torn apart."""
    sessions = split_sessions(log(["u"] * 12, [10**4 * place for place in range(12)]), 60)
    users = sessions.table["user_id"].to_pylist()
    assert users == sorted(users) and len(set(users)) == 12
    places = dict(zip(users, sessions.table["item_id"].to_pylist(), strict=True))
    assert places["u/2"] == "i1" and places["u/10"] == "i9"


def test_sessions_equal_a_loop() -> None:
    """The vectorised count restarts with each user."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 9, 300).astype(str).tolist()
    whole = log(users, rng.integers(0, 10**5, 300).tolist())
    expected, last, number = [], {}, {}
    for user, time in zip(*(whole.table[name].to_pylist() for name in ("user_id", "timestamp")), strict=True):
        if user not in last or time - last[user] > 600:
            number[user] = number.get(user, 0) + 1
        last[user] = time
        expected.append(f"{user}/{number[user]}")
    assert split_sessions(whole, "10m").table["user_id"].to_pylist() == sorted(expected)


def test_datetimes_and_plain_numbers() -> None:
    """A gap in the wrong unit gives one session a user, or one an item, without a word."""
    times = [datetime(2024, 1, 1) + timedelta(minutes=minutes) for minutes in (0, 20, 60)]
    assert split_sessions(log(["u"] * 3, times), "0.5h").table["user_id"].to_pylist() == ["u/1", "u/1", "u/2"]
    milliseconds = [1_700_000_000_000, 1_700_000_000_500, 1_700_000_003_000]
    assert split_sessions(log(["u"] * 3, milliseconds), "1000").table["user_id"].to_pylist() == ["u/1", "u/1", "u/2"]
    with pytest.raises(ValueError, match="number in the log's own unit, for example 1800000 for milliseconds"):
        split_sessions(log(["u"] * 3, milliseconds), "30m")


@pytest.mark.parametrize("gap", ["soon", "0m", "-5", "30 minutes", ""])
def test_gaps_that_cannot_be_read(gap: str) -> None:
    """A gap read as something else cuts the log elsewhere."""
    with pytest.raises(ValueError, match=r"`session_gap` must be a time above 0"):
        split_sessions(log(["u"], [1]), gap)


def test_sessions_are_not_cut_again() -> None:
    """Users would be lost under the name of their first session."""
    with pytest.raises(ValueError, match="divided into sessions already"):
        split_sessions(split_sessions(log(["u"], [1]), 5), 5)
