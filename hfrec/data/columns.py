"""What a log calls its columns. Nothing is imported here: help must not wait for a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LogColumns:
    """What a log calls its columns, and what stands between them.

    Args:
        user_column (`str`), item_column (`str`), timestamp_column (`str`): Names in the source. Ids of any type
            become strings; times are numbers, ISO strings or datetimes (zoned ones are turned to UTC).
        title_column (`str`, *optional*): Column of the items' names, in the items file or else in the log; kept as
            `title`.
        delimiter (`str`, *optional*): What separates the columns of text files, or "tab"; None for what their first
            line shows.

    Example:

    ```python
    >>> LogColumns(user_column="customer").names
    {'user_id': 'customer', 'item_id': 'item_id', 'timestamp': 'timestamp'}

    ```
    """

    user_column: str = "user_id"
    item_column: str = "item_id"
    timestamp_column: str = "timestamp"
    title_column: str | None = None
    delimiter: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LogColumns:
        """Those of the settings of these names, such as the flags of a command (`vars(arguments)`)."""
        return cls(**{place.name: settings[place.name] for place in fields(cls) if place.name in settings})

    @property
    def names(self) -> dict[str, str]:
        """Name in the source of each column that every log has."""
        return {"user_id": self.user_column, "item_id": self.item_column, "timestamp": self.timestamp_column}


DEFAULT_COLUMNS = LogColumns()
