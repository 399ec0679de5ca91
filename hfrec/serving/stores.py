"""The store that `--history_store` names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from .histories import HistoryStore, SQLiteHistories, without_password
from .redis_histories import RedisHistories

SQLITE, REDIS = "sqlite:///", ("redis", "rediss")


def open_store(url: str) -> HistoryStore | None:
    """The store that `--history_store` names; None for `none`.

    Args:
        url: `sqlite:///FILE`, `redis://HOST:PORT/DB` or `none`.

    Raises:
        ValueError: Another kind of address.
        OSError: The store cannot be reached.
        ImportError: The client of Redis is not installed.
    """
    if url == "none":
        return None
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return SQLiteHistories(Path(url.removeprefix(SQLITE)))
    if urlsplit(url).scheme in REDIS:
        return RedisHistories(url)
    raise ValueError(
        f"`history_store` must be sqlite:///FILE, redis://HOST:PORT/DB or none, found {without_password(url)!r}."
    )
