"""Histories of users in Redis, for several servers that share them."""

from __future__ import annotations

from collections.abc import Sequence

from .histories import Event, without_password


class RedisHistories:
    """Of each user a sorted set of event ids by time, and a hash from event id to item.

    What a crash of Redis itself leaves is Redis' own setting: `appendonly yes`, and `appendfsync always` where no event
    may be lost.

    Args:
        url: `redis://[:PASSWORD@]HOST:PORT/DB`.
        prefix: Of all keys.

    Raises:
        ImportError: The client is not installed.
        OSError: No Redis answers there.
    """

    def __init__(self, url: str, prefix: str = "hfrec") -> None:
        try:
            import redis
        except ImportError as error:
            raise ImportError("histories in Redis need its client: `pip install 'hfrec[serve]'`.") from error
        self._client = redis.Redis.from_url(url, socket_timeout=10.0, socket_connect_timeout=5.0, decode_responses=True)
        self._prefix = prefix
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise OSError(f"`history_store`: no Redis answers at {without_password(url)}: {error}.") from error

    def append(self, events: Sequence[Event]) -> int:
        """In one transaction (MULTI); an event id that is there keeps its item and time."""
        with self._client.pipeline(transaction=True) as pipeline:
            for event in events:
                items, times = self._keys(event.user_id)
                pipeline.hsetnx(items, event.event_id, event.item_id)
                pipeline.zadd(times, {event.event_id: event.timestamp}, nx=True)
            results = pipeline.execute()
        return int(sum(results[::2]))

    def newest(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """Two round trips for all users together."""
        with self._client.pipeline(transaction=False) as pipeline:
            for user in user_ids:
                pipeline.zrange(self._keys(user)[1], 0, limit - 1, desc=True)
            found = pipeline.execute()
        with self._client.pipeline(transaction=False) as pipeline:
            having = [(user, events) for user, events in zip(user_ids, found, strict=True) if events]
            for user, events in having:
                pipeline.hmget(self._keys(user)[0], events[::-1])
            items = iter(pipeline.execute())
        return [[item for item in next(items) if item is not None] if events else [] for events in found]

    def check(self) -> None:
        """Ask whether it is there."""
        self._client.ping()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keys(self, user_id: str) -> tuple[str, str]:
        """Hash of the items and sorted set of the times of a user; the braces keep both on one node of a cluster."""
        return f"{self._prefix}:{{{user_id}}}:items", f"{self._prefix}:{{{user_id}}}:times"
