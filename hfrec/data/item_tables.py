"""Tables of items: what is known of them beside who took them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.validation import read_ids


def read_items(items: Any, *columns: str, name: str = "items") -> pa.Table:
    """Item metadata with its ids, each once, as the strings in `item_id`.

    Args:
        items: A file, or a table in memory.
        columns: Names of the column of ids, such as the log's and `item_id`: the first that there is counts.
        name: What an error calls `items`.

    Raises:
        ValueError: Several files, none of the columns, what is no id, or an item twice.

    Example:
        >>> read_items(pa.table({"sku": [7, 9], "title": ["Tea", "Cup"]}), "sku").to_pylist()
        [{'item_id': '7', 'title': 'Tea'}, {'item_id': '9', 'title': 'Cup'}]
    """
    ids, others = read_ids(items, *columns, name=name)
    counts = pc.value_counts(ids.combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise ValueError(
            f"{others.name}: item {repeated[0]['values'].as_py()!r} has more than one row in `{name}`. Keep one."
        )
    return pa.table({"item_id": ids, **{name: others.table[name] for name in others.table.column_names}})


def with_content_columns(items: pa.Table | None, columns: Mapping[str, str]) -> pa.Table | None:
    """Item metadata whose columns have the names that they have elsewhere.

    Args:
        items: Metadata with `item_id`, or None.
        columns: The name in the table of each column, by the one that it gets; others stay as they are.

    Raises:
        ValueError: There is no table, or no such column in it.

    Example:
        >>> items = pa.table({"item_id": ["a"], "name": ["A"], "title": ["Ms"]})
        >>> with_content_columns(items, {"title": "name"}).to_pylist()
        [{'item_id': 'a', 'title': 'A'}]
    """
    if not columns:
        return items
    missing = [there for there in columns.values() if items is None or there not in items.column_names]
    if items is None or missing:
        found = "no items file" if items is None else ", ".join(items.column_names)
        raise ValueError(f"`content_columns` names {', '.join(missing)} of the items file. Found: {found}.")
    others = [name for name in items.column_names if name not in {*columns, *columns.values()}]
    return pa.table({name: items[columns.get(name, name)] for name in (*others, *columns)})


def with_titles(items: pa.Table | None, log: pa.Table, title_column: str) -> pa.Table:
    """Item metadata with the column `title`, from a column of the items or, where they have none such, of the log.

    Args:
        items: Metadata with `item_id`, or None.
        log: Interactions with `item_id`; the newest title of an item counts.
        title_column: Its name.

    Raises:
        ValueError: Neither has such a column.

    Example:
        >>> log = pa.table({"item_id": ["a", "b", "a"], "timestamp": [1, 2, 3], "name": ["A", "B", "A!"]})
        >>> with_titles(None, log, "name").to_pylist()
        [{'item_id': 'a', 'title': 'A!'}, {'item_id': 'b', 'title': 'B'}]
    """
    if items is not None and title_column in items.column_names:
        others = [name for name in items.column_names if name not in (title_column, "title")]
        return items.select(others).append_column("title", items[title_column])
    if title_column not in log.column_names:
        found = ", ".join(dict.fromkeys([*(items.column_names if items is not None else ()), *log.column_names]))
        raise ValueError(
            f"`title_column` {title_column!r} is a column of neither the items nor the log. Found: {found}."
        )
    newest = log.select(["item_id", "timestamp", title_column]).sort_by("timestamp").drop_columns("timestamp")
    titles = newest.group_by("item_id", use_threads=False).aggregate([(title_column, "last")])
    titles = titles.rename_columns({f"{title_column}_last": "title"}).sort_by("item_id")
    if items is None:
        return titles
    rows = pc.index_in(items["item_id"], value_set=titles["item_id"])
    others = items.drop_columns("title") if "title" in items.column_names else items
    return others.append_column("title", titles["title"].take(rows))
