"""Cut the histories of users into sessions: runs of interactions without a long pause."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.interactions import Interactions, sort_interactions, timestamps_to_numpy, user_codes
from hfrec.data.validation import UNITS

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
USER_COLUMN = "session_user_id"


def split_sessions(interactions: Interactions, gap: str | float) -> Interactions:
    """Make a user of each session: a new one begins where the pause since the user's last interaction is above `gap`.

    Args:
        interactions ([`Interactions`]): A log.
        gap: "30m", "12h", "45s" or "2d"; or a number in the unit of the log's own times (microseconds for datetimes).

    Returns:
        [`Interactions`]: The same interactions; `user_id` is `user/1`, `user/2` and so on, oldest first, and the column
        `session_user_id` holds the user.

    Raises:
        ValueError: A gap that cannot be read or is not above 0, one with a unit on a log that does not count seconds,
            or a log that has a `session_user_id`.

    Example:

    ```python
    >>> from hfrec.data.interactions import load_interactions
    >>> log = pa.table({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [0, 60, 2000, 2060]})
    >>> split_sessions(load_interactions(log), "30m").table["user_id"].to_pylist()
    ['u/1', 'u/1', 'u/2', 'u/2']

    ```
    """
    table = interactions.table
    if USER_COLUMN in table.column_names:
        raise ValueError(f"The log has a column `{USER_COLUMN}`: it is divided into sessions already, or rename it.")
    times, codes = timestamps_to_numpy(table["timestamp"]), user_codes(table)
    longest = _gap(gap, table["timestamp"].type, float(times.max(initial=0)))
    other_user = np.append(True, codes[1:] != codes[:-1])
    starts = other_user | np.append(True, times[1:] - times[:-1] > longest)
    number = np.cumsum(starts)  # of the session, from 1, over all users
    number -= (number[other_user] - 1)[codes]  # of the user's own
    users = table["user_id"].combine_chunks()
    sessions = pc.binary_join_element_wise(users, pa.array(number).cast(pa.string()), "/")
    table = table.set_column(table.column_names.index("user_id"), "user_id", sessions)
    return sort_interactions(
        Interactions(table.append_column(USER_COLUMN, users), interactions.items, interactions.report)
    )


def _gap(gap: str | float, kind: pa.DataType, latest: float) -> float:
    """The gap in the unit of the times."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(gap).strip())
    if found is None or not float(found[1]) > 0:
        raise ValueError(f"`session_gap` must be a time above 0 like 30m, 12h or 1d, or a number, found {gap!r}.")
    value, unit = float(found[1]), found[2]
    if not unit:
        return value
    if not pa.types.is_timestamp(kind) and latest > UNITS["milliseconds"][0]:
        raise ValueError(
            f"`session_gap` {gap!r} is for times in seconds, found times up to {latest:.0f}: give the gap as a number "
            f"in the log's own unit, for example {value * SECONDS[unit] * 1000:.0f} for milliseconds."
        )
    return value * SECONDS[unit] * (1e6 if pa.types.is_timestamp(kind) else 1)
