"""What a log calls its columns. Nothing is imported here: help must not wait for a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# Of a flag that `content_columns` reads.
CONTENT_COLUMNS = {"help": "Columns of --items_file with another name there: title=name brand=maker."}


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
        content_columns (`Mapping[str, str]`): What the items file calls columns that have other names
            elsewhere: `{"title": "name"}`.

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
    content_columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LogColumns:
        """Those of the settings of these names, such as the flags of a command (`vars(arguments)`)."""
        found = {place.name: settings[place.name] for place in fields(cls) if place.name in settings}
        return cls(**{**found, "content_columns": content_columns(found.get("content_columns", {}))})

    @property
    def names(self) -> dict[str, str]:
        """Name in the source of each column that every log has."""
        return {"user_id": self.user_column, "item_id": self.item_column, "timestamp": self.timestamp_column}


def content_columns(words: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """What an items file calls each column, from the words of a flag; a mapping of a settings file is that already.

    Raises:
        ValueError: A word of another form, or a column twice.

    Example:
        >>> content_columns(["title=name", "brand=maker"])
        {'title': 'name', 'brand': 'maker'}
    """
    pairs = list(words.items()) if isinstance(words, Mapping) else [tuple(word.split("=", 1)) for word in words]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"`content_columns` must be like title=name, here=in the items file, found {' '.join(words)}.")
    found = {here: there for here, there in pairs}
    twice = [here for here in found if [pair[0] for pair in pairs].count(here) > 1]
    if twice or "item_id" in found:
        what = "item_id, which `item_column` names" if "item_id" in found else f"{twice[0]} twice"
        raise ValueError(f"`content_columns` must name each column of content once, found {what}.")
    return found


DEFAULT_COLUMNS = LogColumns()
