"""A log read piece by piece, for what is larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, NoReturn

import pyarrow as pa

from hfrec.data.columns import DEFAULT_COLUMNS, LogColumns
from hfrec.data.readers import Part, check_delimiter, check_files, find_files, open_hub_dataset, read_batches
from hfrec.data.validation import check_columns, check_zone, normalise_part

HUB_BATCH_SIZE = 1 << 16


class InteractionStream:
    """The interactions of files or of a data set on the hub, piece by piece, in the order of the source.

    Nothing is read, and nothing of a hub is downloaded, before it is iterated; each iteration starts at the beginning.
    What needs the whole log, as splits and sequences do, refuses it: `hfrec prepare --layout sequences` makes both.

    Args:
        source: Path, glob or folder of .csv, .tsv, .jsonl (each also .gz) or .parquet files, or a hub id.
        columns ([`LogColumns`]): What the source calls its columns; titles are not read from a stream.
        split (`str`), revision (`str`): Of a data set from the hub.

    Raises:
        FileNotFoundError: Nothing lies at `source`.
        TypeError: `source` is a table, which is in memory already.
        ValueError: A column of titles, or a delimiter that cannot be one.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "log.csv"
    ...     size = path.write_text("user_id,item_id,timestamp\\n7,a,2\\n7,b,1\\n")
    ...     [part["item_id"].to_pylist() for part in InteractionStream(path)]
    [['a', 'b']]

    ```
    """

    def __init__(
        self,
        source: Any,
        *,
        columns: LogColumns = DEFAULT_COLUMNS,
        split: str = "train",
        revision: str | None = None,
    ) -> None:
        if not isinstance(source, (str, PathLike)):
            raise TypeError(
                f"`source` must be a path or a hub id to be streamed, found {type(source).__name__}: it is in memory "
                "already, load it without `streaming`."
            )
        if columns.title_column is not None:
            raise ValueError(
                f"`title_column` is not read from a stream, found {columns.title_column!r}: put the titles in items.* "
                "beside interactions.*."
            )
        self.source, self.columns, self.names = str(source), columns, columns.names
        self.delimiter = check_delimiter(columns.delimiter)
        self.files = find_files(source)
        check_files(self.files)
        self.dataset = (
            None if self.files else open_hub_dataset(self.source, split=split, revision=revision, streaming=True)
        )

    def __iter__(self) -> Iterator[pa.Table]:
        """Tables `user_id: string, item_id: string, timestamp: int64 | float64 | timestamp[us]`.

        Raises:
            ValueError: With file, row, column and value of what is wrong.
        """
        columns, first = tuple(self.names.values()), None
        for parts in (
            [self._hub_parts()]
            if self.dataset is not None
            else (read_batches(file, columns, self.delimiter) for file in self.files)
        ):
            num_rows, part = 0, None
            for part in parts:
                check_columns(part, self.names)
                num_rows += part.table.num_rows
                if part.table.num_rows:
                    first = first or Part(part.name, part.table.slice(0, 1))
                    check_zone(part, first, self.names["timestamp"])
                    yield self._normalised(part)
            if num_rows == 0:
                name = self.source if part is None else part.name
                raise ValueError(f"{name}: no rows. Expected a log with at least one interaction.")

    def _normalised(self, part: Part) -> pa.Table:
        part = Part(part.name, part.table.select(list(self.names.values())), part.first_row)
        for name in (self.names["user_id"], self.names["item_id"]):
            kind = part.table.schema.field(name).type
            if pa.types.is_floating(kind):  # whether all are whole is known at the end only
                raise ValueError(
                    f"{part.name}: column {name!r} holds ids of type {kind}, which are not read piece by piece: "
                    "store them as strings or integers."
                )
        return normalise_part(part, self.columns)

    def _hub_parts(self) -> Iterator[Part]:
        first_row = 0
        for table in self.dataset.with_format("arrow").iter(batch_size=HUB_BATCH_SIZE):  # type: ignore[union-attr]
            yield Part(self.source, table, first_row)
            first_row += len(table)

    @property
    def table(self) -> NoReturn:
        """Not there: a stream is never whole in memory."""
        raise TypeError(
            "a streamed log has no whole table: load it without `streaming`, or write it as sequences with "
            "`hfrec prepare --layout sequences` and train with `--streaming true`."
        )
