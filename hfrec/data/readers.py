"""Read an interaction log from wherever it lies into Arrow tables, without judging its content.

Each part keeps the name of its file, so that a later error can say where the bad row is.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from hfrec.data.files import check_file, sha256_of

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = ("|", ",", "\t", ";")  # as spreadsheets write where the comma is the decimal sign
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")
FORMATS = ".csv, .tsv, .jsonl, .ndjson, .json (JSON lines), each also with .gz, and .parquet"
CSV_BLOCK_SIZE = 1 << 24
PARQUET_BATCH_SIZE = 1 << 19
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")


@dataclass(frozen=True)
class Part:
    """One file (or one object in memory) of a log.

    Args:
        name (`str`): What an error calls it: the path, or e.g. "pandas.DataFrame".
        table (`pa.Table`): The rows as they were read.
        first_row (`int`): Rows of the file before these, where a file is read piece by piece.
    """

    name: str
    table: pa.Table
    first_row: int = 0


def read_source(
    source: Any,
    *,
    string_columns: tuple[str, ...] = (),
    delimiter: str | None = None,
    split: str = "train",
    revision: str | None = None,
) -> list[Part]:
    """Read a path, glob, folder, hub data-set id or in-memory table.

    Args:
        source: See [`load_interactions`].
        string_columns (`tuple[str, ...]`): Columns never to be guessed: as numbers in CSV and TSV ("007" stays "007"),
            as times in JSON lines.
        delimiter (`str`): What separates the columns of CSV and TSV; None for what their first line shows.
        split (`str`), revision (`str`): Of a data set from the hub.

    Returns:
        `list[Part]`: At least one part, files in alphabetical order.

    Raises:
        FileNotFoundError: Nothing lies at `source`.
        ValueError: The format is unknown, or a file cannot be parsed.
        TypeError: `source` is an object of an unsupported type.
    """
    if isinstance(source, (str, PathLike)):
        files = find_files(source)
        check_files(files)
        if files:
            return [Part(str(f), read_file(f, string_columns=string_columns, delimiter=delimiter)) for f in files]
        dataset = open_hub_dataset(str(source), split=split, revision=revision)
        return [Part(f"{source} ({split})", _dataset_to_table(dataset))]
    return [_read_object(source, string_columns=string_columns)]


def find_files(source: str | PathLike[str]) -> list[Path]:
    """Resolve a path, glob or folder to files; an empty list means that `source` can only be a hub id."""
    text = str(source)
    if not text:
        raise FileNotFoundError("`source` is empty: name a file or a folder, `.` for the folder that you are in.")
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _files_of_folder(path)
    if has_magic(text):
        files = sorted(Path(name) for name in glob(str(path), recursive=True) if Path(name).is_file())
        if not files:
            raise FileNotFoundError(f"No file matches the glob `{text}`. Check the pattern and the working folder.")
        return files
    if isinstance(source, str) and _HUB_ID.match(text) and format_of(path) is None and not text.startswith("."):
        return []
    raise FileNotFoundError(
        f"`source` {text!r} is no file, folder, glob, named data set or hub id (`owner/name`). Check the path; "
        "named data sets are 'ml-100k', 'ml-1m' and 'synthetic'."
    )


def check_files(files: Sequence[Path]) -> None:
    """Refuse copies, and files that are not what the hashes of a preparation beside them say.

    Raises:
        ValueError: As `refuse_copies`, or with the file that was changed.
    """
    refuse_copies(files)
    for file in files:
        check_file(file)


def refuse_copies(files: Sequence[Path]) -> None:
    """Refuse files of equal content, or of one name in two formats: a log that is read twice counts twice.

    Raises:
        ValueError: With both names.
    """
    formats: dict[Path, Path] = {}
    for file in files:
        first = formats.setdefault(file.with_name(_stem_of_format(file)), file)
        if first != file:
            raise ValueError(f"{file} looks like {first} in another format: remove one, or name the files to read.")
    by_size: dict[int, list[Path]] = {}
    for file in files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    seen: dict[str, Path] = {}
    for file in (file for same in by_size.values() if len(same) > 1 for file in same):
        first = seen.setdefault(sha256_of(file), file)
        if first != file and read_file(file).num_rows:  # parts without a row look all alike
            raise ValueError(f"{file} holds the same as {first}: remove one of them, or name the files to read.")


def find_items_file(source: Any) -> Path | None:
    """The `items.*` file of a folder that also holds `interactions.*`, or `None`."""
    if not isinstance(source, (str, PathLike)) or not Path(source).expanduser().is_dir():
        return None
    files = _supported(Path(source).expanduser())
    has_interactions = any(_stem(file) == "interactions" for file in files)
    return next((file for file in files if _stem(file) == "items"), None) if has_interactions else None


def format_of(path: Path) -> str | None:
    """The suffix that decides how `path` is read, without .gz; `None` when it is not supported."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = suffixes[-2] if compressed and len(suffixes) > 1 else (suffixes[-1] if suffixes else "")
    if suffix in DELIMITERS or suffix in JSON_SUFFIXES or (suffix in PARQUET_SUFFIXES and not compressed):
        return suffix
    return None


def read_table(source: Any, *, name: str, string_columns: tuple[str, ...] = ()) -> Part:
    """The table of a source that must be a single one; `name` is what an error calls it.

    Raises:
        ValueError: Several files.
    """
    parts = read_source(source, string_columns=string_columns)
    if len(parts) != 1:
        raise ValueError(f"`{name}` must be one table, found {len(parts)} files. Join them first.")
    return parts[0]


def read_file(path: Path, *, string_columns: tuple[str, ...] = (), delimiter: str | None = None) -> pa.Table:
    """Read one CSV, TSV, JSON-lines or Parquet file."""
    suffix = format_of(path)
    if suffix is None:
        raise ValueError(f"{path}: unknown format. Expected {FORMATS}. Rename or convert the file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty. Expected a log with at least one interaction.")
    with _unreadable(path, suffix):
        if suffix in DELIMITERS:
            between = delimiter or _delimiter(path, DELIMITERS[suffix])
            table = pa_csv.read_csv(path, **_csv_options(between, string_columns))
        else:
            table = _read_json_lines(path, string_columns) if suffix in JSON_SUFFIXES else pa_parquet.read_table(path)
        _ = table.column_names  # those that are no UTF-8 fail here
        return table


def _read_json_lines(path: Path, string_columns: tuple[str, ...]) -> pa.Table:
    """JSON lines, whose reader takes strings that look like dates for times, and different ones for the same time."""
    table = pa_json.read_json(path)
    dates = [field for field in table.schema if field.name in string_columns and pa.types.is_timestamp(field.type)]
    if not dates:
        return table
    texts = pa.schema([(field.name, pa.string()) for field in dates])
    return pa_json.read_json(path, parse_options=pa_json.ParseOptions(explicit_schema=texts))


def read_batches(path: Path, columns: tuple[str, ...], delimiter: str | None = None) -> Iterator[Part]:
    """Some columns of a file, piece by piece; a file of JSON lines comes in one piece.

    The first piece has no rows: it shows which columns the file has.

    Raises:
        ValueError: The format is unknown, or the file is empty or cannot be parsed.
    """
    suffix = format_of(path)
    if suffix is None or suffix in JSON_SUFFIXES or path.stat().st_size == 0:
        table = read_file(path, string_columns=columns)
        yield from (Part(str(path), table.slice(0, 0)), Part(str(path), table))
        return
    with _unreadable(path, suffix):
        if suffix in DELIMITERS:
            options = _csv_options(delimiter or _delimiter(path, DELIMITERS[suffix]), columns)
            schema = pa_csv.open_csv(path, **options).schema
            _ = schema.names  # those that are no UTF-8 fail here
            yield Part(str(path), schema.empty_table())
            options["convert_options"].include_columns = list(columns)
            blocks = pa_csv.ReadOptions(block_size=CSV_BLOCK_SIZE)
            batches: Iterator[pa.RecordBatch] = iter(pa_csv.open_csv(path, read_options=blocks, **options))
        else:
            file = pa_parquet.ParquetFile(path)
            yield Part(str(path), file.schema_arrow.empty_table())
            batches = file.iter_batches(batch_size=PARQUET_BATCH_SIZE, columns=list(columns))
        first_row = 0
        for batch in batches:
            yield Part(str(path), pa.Table.from_batches([batch]), first_row)
            first_row += batch.num_rows


@contextmanager
def _unreadable(path: Path, suffix: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError, zlib.error, EOFError) as error:
        if "empty" in str(error).lower():
            raise ValueError(f"{path}: the file is empty. Expected a log with at least one interaction.") from error
        raise ValueError(
            f"{path}: not readable as {suffix}: {error}. Repair the file or correct its suffix."
        ) from error


def check_delimiter(delimiter: str | None) -> str | None:
    """One character, or "tab", which a shell does not give easily.

    Raises:
        ValueError: Something longer, or what stands inside numbers and ids.

    Example:
        >>> check_delimiter("tab"), check_delimiter(";"), check_delimiter(None)
        ('\\t', ';', None)
    """
    if delimiter in ("tab", "\\t"):
        return "\t"
    if delimiter is not None and (len(delimiter) != 1 or delimiter.isalnum() or delimiter in "\"'\n\r."):
        raise ValueError(f"`delimiter` must be one character such as ';', or tab, found {delimiter!r}.")
    return delimiter


def _delimiter(path: Path, usual: str) -> str:
    """The usual delimiter, or another one where the first line has that and not the usual one."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        head = file.readline(1 << 16).decode("utf-8", "replace")
    others = sorted(OTHER_DELIMITERS, key=head.count)
    return usual if usual in head or others[-1] not in head else others[-1]


def _csv_options(delimiter: str, string_columns: tuple[str, ...]) -> dict[str, Any]:
    convert = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in string_columns},
        null_values=[""],  # "NA" and "null" are ids like any other
        strings_can_be_null=True,
    )
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return {"parse_options": parse, "convert_options": convert}


def _supported(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file() and format_of(file) is not None)
    # Hidden ones are copies of editors, notebooks and file systems, and drafts that somebody is writing.
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _stem_of_format(path: Path) -> str:
    """The name without what says how it is read: of log.csv, log.csv.gz and log.parquet it is the same."""
    name = path.name.removesuffix(".gz")
    return name[: -len(Path(name).suffix)] if Path(name).suffix else name


def _files_of_folder(folder: Path) -> list[Path]:
    files = _supported(folder)
    if not files:
        raise FileNotFoundError(f"The folder {folder} holds no readable file. Expected {FORMATS}.")
    logs = [file for file in files if _stem(file) == "interactions"]
    folders = {file.parent for file in logs}
    beside = [file for file in files if not folders & {file.parent, *file.parents}] if logs else []
    if beside:  # a log and, in a folder below it, what was prepared from it
        raise ValueError(
            f"The folder {folder} holds {logs[0].relative_to(folder)} and, outside its folder, "
            f"{beside[0].relative_to(folder)}: name the folder or the files to read."
        )
    return logs or files


def open_hub_dataset(source: str, *, split: str, revision: str | None = None, streaming: bool = False) -> Any:
    """A split of a data set on the hub, `owner/name[@revision]`; under `streaming` nothing is downloaded yet.

    Raises:
        FileNotFoundError: The hub does not give it.
        ValueError: Two revisions.
    """
    import datasets

    name, _, pinned = source.partition("@")
    if pinned and revision and pinned != revision:
        raise ValueError(f"`source` {source!r} and `revision` {revision!r} name two revisions: give one of them.")
    try:
        return datasets.load_dataset(name, split=split, revision=revision or pinned or None, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:  # hub, network, split and script errors are all of these
        raise FileNotFoundError(
            f"`source` {source!r} is neither a local file or folder nor a data set that the hub gives: {error}"
        ) from error


def _dataset_to_table(dataset: Any) -> pa.Table:
    return dataset.with_format("arrow")[:]


def _read_object(source: Any, *, string_columns: tuple[str, ...]) -> Part:
    if isinstance(source, pa.Table):
        return Part("pyarrow.Table", source)
    if isinstance(source, pa.RecordBatch):
        return Part("pyarrow.RecordBatch", pa.Table.from_batches([source]))
    package = type(source).__module__.split(".")[0]
    kind = f"{package}.{type(source).__name__}"
    if kind == "pandas.DataFrame":
        return Part(kind, _pandas_to_table(source, string_columns=string_columns))
    if kind == "polars.DataFrame":
        return Part(kind, source.to_arrow())
    if kind == "polars.LazyFrame":
        return Part(kind, source.collect().to_arrow())
    if kind == "datasets.Dataset":
        return Part(kind, _dataset_to_table(source))
    remedy = f" Choose one of its splits, {sorted(source)}." if kind == "datasets.DatasetDict" else ""
    raise TypeError(
        "`source` must be a path, glob, folder, hub id, pandas or polars frame, pyarrow.Table or datasets.Dataset; "
        f"found {kind}.{remedy}"
    )


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pandas_to_table(frame: Any, *, string_columns: tuple[str, ...]) -> pa.Table:
    # Object columns may mix types ("any id"), which Arrow refuses: ids are named by their string.
    frame = frame.rename(columns=str)
    if not frame.columns.is_unique:
        twice = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise ValueError(f"pandas.DataFrame: columns {twice} are there more than once. Rename or drop them.")
    mixed = [name for name in string_columns if name in frame.columns and frame[name].dtype == object]
    try:
        frame = frame.assign(**{name: frame[name].map(_as_text, na_action="ignore") for name in mixed})
    except UnicodeDecodeError as error:
        raise ValueError(f"pandas.DataFrame: ids of bytes must be UTF-8 ({error}). Decode them.") from error
    try:
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, TypeError) as error:  # the latter of columns that Arrow knows not
        raise ValueError(
            f"pandas.DataFrame: a column mixes types, or is of one that cannot be read: {error}. Give each column one "
            "plain type."
        ) from error
