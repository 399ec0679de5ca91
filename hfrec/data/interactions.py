"""One validated, sorted table of interactions from any source: the start of every way through the package."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.catalogs import NAMED_DATASETS, load_named
from hfrec.data.columns import DEFAULT_COLUMNS, LogColumns
from hfrec.data.filters import NO_FILTERS, LogFilters, core_mask, meeting, nothing_left, unique_mask
from hfrec.data.item_tables import read_items, with_content_columns, with_titles
from hfrec.data.readers import Part, check_delimiter, find_items_file, read_source
from hfrec.data.streams import InteractionStream
from hfrec.data.validation import check_order, check_zone, normalise_part

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InteractionsReport:
    """What was read, dropped and kept. `str(report)` is for people, `report.to_dict()` for JSON.

    Args:
        source (`str`): Where the log came from.
        rows_read (`int`): Interactions in the source.
        where_dropped (`int`): Interactions that `where` left out.
        duplicates_dropped (`int`): Interactions dropped by the `duplicates` policy.
        core_rows_dropped (`int`): Interactions dropped by `min_user_interactions` and `min_item_interactions`.
        core_users_dropped (`int`), core_items_dropped (`int`): Users and items that these limits removed wholly.
        core_rounds (`int`): Passes until nothing changed any more.
        num_interactions (`int`), num_users (`int`), num_items (`int`): What is left.
        tied_interactions (`int`): Interactions at the same time as the one before of the same user (order: the file's).
    """

    source: str
    rows_read: int
    where_dropped: int
    duplicates_dropped: int
    core_rows_dropped: int
    core_users_dropped: int
    core_items_dropped: int
    core_rounds: int
    num_interactions: int
    num_users: int
    num_items: int
    tied_interactions: int

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.rows_read:,} interactions read, {self.where_dropped:,} left out by `where`, "
            f"{self.duplicates_dropped:,} dropped as duplicates, "
            f"{self.core_rows_dropped:,} by the minimum counts ({self.core_users_dropped:,} users, "
            f"{self.core_items_dropped:,} items, {self.core_rounds} rounds); kept {self.num_interactions:,} of "
            f"{self.num_users:,} users on {self.num_items:,} items, {self.tied_interactions:,} tied in time"
        )


@dataclass(frozen=True)
class Interactions:
    """A validated log, sorted by (user_id, timestamp), ties in the order of the source.

    Args:
        table (`pa.Table`): `user_id: string, item_id: string, timestamp: int64 | float64 | timestamp[us]`, then
            further columns of the source. Build it with [`load_interactions`].
        items (`pa.Table` or `None`): `item_id: string` and metadata such as `title`, one row per item.
        report ([`InteractionsReport`]): What reading dropped and kept.
    """

    table: pa.Table
    items: pa.Table | None
    report: InteractionsReport

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def num_users(self) -> int:
        """Number of different users."""
        return int(pc.count_distinct(self.table["user_id"]).as_py())

    @cached_property
    def num_items(self) -> int:
        """Number of different items."""
        return int(pc.count_distinct(self.table["item_id"]).as_py())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of users, items and times: equal for equal content, whatever file it came from."""
        digest = hashlib.sha256()
        for name in ("user_id", "item_id"):
            strings = self.table[name].cast(pa.large_string()).combine_chunks()
            digest.update(np.asarray(pc.binary_length(strings), dtype=np.int64).tobytes())
            if len(strings):
                digest.update(_joined(strings))
        digest.update(str(self.table["timestamp"].type).encode())
        digest.update(timestamps_to_numpy(self.table["timestamp"]).tobytes())
        return digest.hexdigest()

    def select(self, mask: npt.NDArray[np.bool_]) -> Interactions:
        """The interactions where `mask` (`(len(self),)`, bool) is true, in the same order."""
        return Interactions(table=self.table.filter(pa.array(mask)), items=self.items, report=self.report)


@overload
def load_interactions(
    source: Any,
    *,
    streaming: Literal[True],
    columns: LogColumns = DEFAULT_COLUMNS,
    split: str = "train",
    revision: str | None = None,
) -> InteractionStream: ...


@overload
def load_interactions(
    source: Any,
    *,
    columns: LogColumns = DEFAULT_COLUMNS,
    filters: LogFilters = NO_FILTERS,
    items: Any = None,
    split: str = "train",
    revision: str | None = None,
    streaming: Literal[False] = False,
) -> Interactions: ...


def load_interactions(
    source: Any,
    *,
    columns: LogColumns = DEFAULT_COLUMNS,
    filters: LogFilters = NO_FILTERS,
    items: Any = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
) -> Interactions | InteractionStream:
    """Read an interaction log from any source into one validated, sorted table.

    Args:
        source: Path or glob of .csv, .tsv, .jsonl (each also .gz) or .parquet files; a folder of them (where there is
            an `interactions.*`, that alone is read, and `items.*` beside it as item metadata); "ml-100k", "ml-1m" or
            "synthetic" (a folder of that name: "./ml-100k"); a hub id `owner/name[@revision]`; a pandas or polars
            frame, `pyarrow.Table` or `datasets.Dataset`.
        columns ([`LogColumns`]): What the source calls its columns.
        filters ([`LogFilters`]): What is left out.
        items: Item metadata with the item ids in the log's item column or "item_id"; any kind of `source`.
        split (`str`), revision (`str`): Of a data set from the hub.
        streaming (`bool`): Read piece by piece what is larger than memory, as `hfrec prepare --layout sequences` does.

    Returns:
        [`Interactions`]: With a `report`, which is also printed to stderr when anything was dropped. Under `streaming`
        an [`InteractionStream`], which gives tables in the order of the source and drops nothing.

    Raises:
        ValueError: A missing column, empty file, null id, unparsable time (each with file, row, column and value), an
            unknown format, or nothing left after filtering.
        FileNotFoundError: Nothing lies at `source`.

    Example:

    ```python
    >>> import pyarrow as pa
    >>> log = pa.table({"user_id": [7, 7, 5], "item_id": ["b", "a", "b"], "when": [2, 1, 3]})
    >>> load_interactions(log, columns=LogColumns(timestamp_column="when")).table["item_id"].to_pylist()
    ['b', 'a', 'b']

    ```
    """
    if streaming:
        # `items` apart: a frame has no truth value.
        if items is not None or not filters.drops_nothing:
            raise ValueError(
                "`where`, `min_user_interactions`, `min_item_interactions`, `duplicates` and `items` are not for "
                "`streaming`, which never has the whole log: leave them out, or use `hfrec prepare --layout sequences`."
            )
        return InteractionStream(source, columns=columns, split=split, revision=revision)
    parts, metadata = _read(source, items=items, columns=columns, split=split, revision=revision)
    tables = [normalise_part(part, columns) for part in parts]
    for part in parts[1:]:
        check_zone(part, parts[0], columns.timestamp_column)
    whole = _concatenated(tables, parts)
    if columns.title_column is not None:
        metadata = with_titles(metadata, whole, columns.title_column)
    metadata = with_content_columns(metadata, columns.content_columns)
    name = str(source) if isinstance(source, (str, PathLike)) else parts[0].name
    table = _sorted(meeting(whole, filters.where, source=name, names=columns.names))
    table, report = _filtered(name, table, filters)
    report = replace(report, rows_read=len(whole), where_dropped=len(whole) - report.rows_read)
    if report.num_interactions < report.rows_read:
        print(report, file=sys.stderr)
    return Interactions(table=table, items=metadata, report=report)


def concatenate_interactions(first: Interactions, second: Interactions) -> Interactions:
    """Join two parts of one log, e.g. train and validation into the history of the test targets.

    Args:
        first ([`Interactions`]): Comes first where times are tied; its `items` and `report` are kept.
        second ([`Interactions`]): The other part.

    Returns:
        [`Interactions`]: Sorted by (user_id, timestamp).
    """
    table = _sorted(pa.concat_tables([first.table, second.table]))
    return Interactions(table=table, items=first.items, report=first.report)


def sort_interactions(interactions: Interactions) -> Interactions:
    """The interactions by (user_id, timestamp), ties in the order that they have."""
    return Interactions(table=_sorted(interactions.table), items=interactions.items, report=interactions.report)


def user_codes(table: pa.Table) -> IntArray:
    """Number of each row's user, from 0 in the order of a sorted table. Shape `(num_rows,)`."""
    return _codes(table["user_id"])


def histories_of(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """Users and their item ids, oldest first, of a sorted table."""
    table = table.select(["user_id", "item_id"])
    grouped = table.group_by("user_id", use_threads=False).aggregate([("item_id", "list")])
    return grouped["user_id"].to_pylist(), grouped["item_id_list"].to_pylist()


def timestamps_to_numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Times as int64 (microseconds for datetimes) or float64. Shape `(num_rows,)`."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(column.combine_chunks())


def _read(
    source: Any, *, items: Any, columns: LogColumns, split: str, revision: str | None
) -> tuple[list[Part], pa.Table | None]:
    delimiter, names = check_delimiter(columns.delimiter), tuple(columns.names.values())
    if isinstance(source, str) and source in NAMED_DATASETS:
        if columns.names != DEFAULT_COLUMNS.names:
            raise ValueError(f"The columns of {source!r} are user_id, item_id and timestamp, found {names}.")
        log, metadata = load_named(source)
        parts = [Part(source, log)]
        items = metadata if items is None else items
    else:
        parts = read_source(source, string_columns=names, delimiter=delimiter, split=split, revision=revision)
        items = find_items_file(source) if items is None else items
    return parts, None if items is None else read_items(items, columns.item_column, "item_id")


def _concatenated(tables: list[pa.Table], parts: list[Part]) -> pa.Table:
    _refuse_same(tables, parts)
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        names = ", ".join(part.name for part in parts[:5])
        raise ValueError(f"The files ({names}) disagree about a column's type: {error}. Make them alike.") from error
    if len(parts) > 1:
        check_order(Part(f"{parts[0].name} and {len(parts) - 1} more", whole), "timestamp")
    return whole


def _refuse_same(tables: list[pa.Table], parts: list[Part]) -> None:
    """Refuse two files with the same interactions, such as a log and its copy in another format."""
    seen: dict[int, list[int]] = {}
    names = ["user_id", "item_id", "timestamp"]
    for place, table in enumerate(tables):
        for other in seen.setdefault(table.num_rows, []):
            if table.select(names).equals(tables[other].select(names)):
                raise ValueError(
                    f"{parts[place].name} holds the same interactions as {parts[other].name}: remove one of them, or "
                    "name the files to read."
                )
        seen[table.num_rows].append(place)


def _codes(column: pa.ChunkedArray) -> IntArray:
    encoded = column.combine_chunks().dictionary_encode()
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[np.asarray(pc.sort_indices(encoded.dictionary))] = np.arange(len(rank))
    return np.asarray(rank[np.asarray(encoded.indices)], dtype=np.int64)


def _joined(strings: pa.Array) -> memoryview:
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


def _sorted(table: pa.Table) -> pa.Table:
    # lexsort is stable, so that ties keep the order of the source; the last key is the first to sort by.
    order = np.lexsort((timestamps_to_numpy(table["timestamp"]), user_codes(table)))
    return table.take(pa.array(order))


def _filtered(source: str, table: pa.Table, filters: LogFilters) -> tuple[pa.Table, InteractionsReport]:
    users, items = user_codes(table), _codes(table["item_id"])
    min_user, min_item = filters.min_user_interactions, filters.min_item_interactions
    unique = unique_mask(users, items, filters.duplicates)
    keep, rounds = core_mask(users, items, unique, min_user=min_user, min_item=min_item)
    if not keep.any():
        raise nothing_left(source, min_user, min_item, rows=len(table), users=users.max() + 1)
    kept = table.filter(pa.array(keep))
    kept_users, kept_items = np.unique(users[keep]).size, np.unique(items[keep]).size
    times, codes = timestamps_to_numpy(kept["timestamp"]), users[keep]
    report = InteractionsReport(
        source=source,
        rows_read=len(table),
        where_dropped=0,
        duplicates_dropped=int((~unique).sum()),
        core_rows_dropped=int(unique.sum() - keep.sum()),
        core_users_dropped=int(users.max()) + 1 - kept_users,
        core_items_dropped=int(items.max()) + 1 - kept_items,
        core_rounds=rounds,
        num_interactions=int(keep.sum()),
        num_users=kept_users,
        num_items=kept_items,
        tied_interactions=int(((times[1:] == times[:-1]) & (codes[1:] == codes[:-1])).sum()),
    )
    return kept, report
