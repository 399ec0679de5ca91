"""Histories of users between requests: what a store does, and the embedded one on SQLite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Event:
    """A user met an item.

    Args:
        event_id: Names the event among those of the user; the same one again changes nothing.
        user_id: The user.
        item_id: The item.
        timestamp: Seconds; events of one time are ordered by their ids.
    """

    event_id: str
    user_id: str
    item_id: str
    timestamp: float


class HistoryStore(Protocol):
    """Keeps events by user. All methods block, and may be called from several threads."""

    def append(self, events: Sequence[Event]) -> int:
        """Keep events, all or none, and return how many were new; what is kept is there after a kill -9."""

    def newest(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """The newest items of each user, oldest first; an empty list for a user without events."""

    def check(self) -> None:
        """Raise where the store cannot be used."""

    def close(self) -> None:
        """Let go of files and connections."""


class SQLiteHistories:
    """One file, written ahead (WAL) and synchronised at every commit; several processes may share it.

    Args:
        path: The file; it is made where there is none.

    Raises:
        OSError: It cannot be opened, or is no database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False, isolation_level=None)
            for statement in (
                "PRAGMA journal_mode=WAL",
                "PRAGMA synchronous=FULL",
                "CREATE TABLE IF NOT EXISTS events (user_id TEXT NOT NULL, event_id TEXT NOT NULL, item_id TEXT NOT "
                "NULL, timestamp REAL NOT NULL, PRIMARY KEY (user_id, event_id)) WITHOUT ROWID",
                "CREATE INDEX IF NOT EXISTS sequences ON events (user_id, timestamp, event_id, item_id)",
            ):
                self._connection.execute(statement)
        except sqlite3.Error as error:
            raise OSError(
                f"`history_store`: {path} cannot be used as a database: {error}. Name another file."
            ) from error

    def append(self, events: Sequence[Event]) -> int:
        """In one transaction."""
        rows = [(event.user_id, event.event_id, event.item_id, event.timestamp) for event in events]
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                cursor = self._connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
            return cursor.rowcount

    def newest(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """One look-up in the index a user."""
        query = "SELECT item_id FROM events WHERE user_id = ? ORDER BY timestamp DESC, event_id DESC LIMIT ?"
        with self._lock:
            rows = [self._connection.execute(query, (user, limit)).fetchall() for user in user_ids]
        return [[item for (item,) in reversed(found)] for found in rows]

    def check(self) -> None:
        """Read one row."""
        with self._lock:
            self._connection.execute("SELECT 1 FROM events LIMIT 1").fetchone()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def without_password(url: str) -> str:
    """An address as it may be printed.

    Example:
        >>> without_password("redis://me:secret@host:6379/0")
        'redis://host:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
