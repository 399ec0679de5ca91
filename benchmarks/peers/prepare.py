"""The log that all runners read: users and items as whole numbers, the place in the sequence as timestamp."""

from __future__ import annotations

import csv
from pathlib import Path

from hfrec.data.filters import LogFilters
from hfrec.data.interactions import load_interactions


def write_log(source: str, path: Path, min_interactions: int = 1) -> None:
    """Write a log that hfrec can read, or a data set that it can name, as CSV.

    Args:
        source: File or name of a data set.
        path: The CSV.
        min_interactions: Users and items with fewer are dropped.
    """
    log = load_interactions(source, filters=LogFilters((), min_interactions, min_interactions))
    users = {user: number for number, user in enumerate(dict.fromkeys(log.table["user_id"].to_pylist()), start=1)}
    items = {item: number for number, item in enumerate(dict.fromkeys(log.table["item_id"].to_pylist()), start=1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        rows = zip(log.table["user_id"].to_pylist(), log.table["item_id"].to_pylist(), strict=True)
        writer.writerows((users[user], items[item], place) for place, (user, item) in enumerate(rows))
    draft.rename(path)
