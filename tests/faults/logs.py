"""Fuzz of logs: what is accepted is what an independent reader reads; everything else is refused in words."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from hfrec.commands import REFUSALS
from hfrec.data.interactions import load_interactions, timestamps_to_numpy

from .pandas_reader import read_log

NAMES = ["user_id", "item_id", "timestamp"]
NASTY = (
    "a", "1", "01", "1.0", "1e3", "true", "NA", "null", "nan", " x", "x ", "\u00e9", "e\u0301", "[MASK]", "=1+1", "a,b",
    'say "a"', "two\nlines", "tab\there", "2024-01-01", "2024-01-01T00:00:00", "\u2028", "0x10", "#", "'", "\ufeffa",
)  # fmt: skip
IDS = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=4),
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64), st.integers(0, 99), st.integers(1_500_000_000, 1_700_000_000),
    st.sampled_from([2**31, 2**53, 2**53 + 1, 10**12, 10**15, 10**18, 10**30, -1, 0]), st.floats(), st.booleans(),
)  # fmt: skip
MOMENTS = st.sampled_from(
    (
        "2024-01-01", "2024-01-01 10:00", "2024-01-01T10:00:00", "2024-01-01T10:00:00Z", "2024-01-01T10:00:00+02:00",
        "2024-01-01T10:00:00.123456", "1969-12-31", "9999-12-31T23:59:59", "01/02/2024", "soon", "2024-13-01",
    )
)  # fmt: skip
TIMES = st.one_of(st.integers(0, 9), st.integers(1_500_000_000, 1_700_000_000), NUMBERS, MOMENTS)


KINDS = [".csv", ".csv", ".tsv", ".jsonl", ".parquet", ".parquet", ".csv.gz", ".jsonl.gz"]
BREAKS = [b"", b"\0", b'"', b"\n", b"\xff", b",", b"\r\n", b"\t", b"}"]
TYPES: dict[str, Any] = {
    "as they are": None, "dictionary": pa.dictionary(pa.int32(), pa.string()), "large text": pa.large_string(),
    "bytes": pa.binary(), "text": pa.string(), "int8": pa.int8(), "int32": pa.int32(), "uint64": pa.uint64(),
    "float32": pa.float32(), "float64": pa.float64(), "decimal": pa.decimal128(20, 2), "seconds": pa.timestamp("s"),
    "milliseconds": pa.timestamp("ms", "UTC"), "microseconds": pa.timestamp("us", "Europe/Zurich"),
    "nanoseconds": pa.timestamp("ns"), "date": pa.date32(), "duration": pa.duration("s"), "time": pa.time32("s"),
}  # fmt: skip


OF_TIMES = ("seconds", "milliseconds", "microseconds", "nanoseconds", "date", "duration", "time")
# Whose texts are the same in Arrow and in Python.
ID_NUMBERS = st.one_of(
    NUMBERS.filter(lambda number: not isinstance(number, float)),
    st.integers(-(10**6), 10**6).map(lambda whole: whole / 8),
)


@dataclass(frozen=True)
class Log:
    """A file that is a log, or nearly.

    Args:
        name: With the suffix.
        content: Its bytes.
        case: What it tries: the kinds of file, ids, times and breakage. Logs of one case are near-copies.
    """

    name: str
    content: bytes
    case: str


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Ids and times of every kind in files of every kind, one in three with something broken."""
    kind = draw(st.sampled_from(KINDS))
    ids = {"texts": IDS, "whole numbers": st.integers(0, 5), "numbers": ID_NUMBERS, "mixed": st.one_of(IDS, ID_NUMBERS)}
    times = {
        "small": st.integers(0, 9), "seconds": st.integers(1_500_000_000, 1_700_000_000), "fractions": st.floats(0, 9),
        "numbers": NUMBERS, "moments": MOMENTS, "mixed": TIMES,
    }  # fmt: skip
    users, items, moments = (draw(st.sampled_from(sorted(names))) for names in (ids, ids, times))
    size = draw(st.integers(1, 6))
    rows = [[draw(ids[users]), draw(ids[items]), draw(times[moments])] for _ in range(size)]
    case = [kind, users, items, moments, "one row" if size == 1 else "rows"]
    if draw(st.integers(0, 9)) == 0:
        column, hole = draw(st.integers(0, 2)), draw(st.sampled_from([None, "", " ", [], {}]))
        rows[draw(st.integers(0, size - 1))][column] = hole
        case.append(f"{NAMES[column]} {hole!r}")
    names, types = list(NAMES), ["as they are"] * 3
    if draw(st.integers(0, 4)) == 0:
        order = draw(st.permutations(range(3)))
        names, rows = [names[place] for place in order], [[row[place] for place in order] for row in rows]
        names, rows = [*names, "rating"], [[*row, 5] for row in rows]
        case.append("other columns")
    if kind == ".parquet":
        types = [draw(st.sampled_from(kinds_of(name))) for name in names]
        case += types
    content = written(kind, names, rows, types)
    if kind in (".csv", ".tsv", ".jsonl") and draw(st.integers(0, 4)) == 0:
        change = draw(st.sampled_from(["mark", "crlf", "no end", "blank lines"]))
        changed = {"mark": b"\xef\xbb\xbf" + content, "crlf": content.replace(b"\n", b"\r\n")}
        changed |= {"no end": content.removesuffix(b"\n"), "blank lines": content + b"\n\n"}
        content = changed[change]
        case.append(change)
    if draw(st.integers(0, 4)) == 0 and content:
        place, byte = draw(st.integers(0, len(content) - 1)), draw(st.sampled_from(BREAKS))
        cut = draw(st.integers(0, 1))
        content = content[:place] + byte + content[place + cut :]
        case.append(f"{byte!r} {'for' if cut else 'before'} a byte")
    return Log(f"log{kind}", content, ", ".join(case))


def kinds_of(name: str) -> list[str]:
    """Types of a column; an id that is a time has another text in Python."""
    return ["as they are", *(kind for kind in TYPES if name == "timestamp" or kind not in OF_TIMES)]


def written(kind: str, names: list[str], rows: list[list[Any]], types: list[Any]) -> bytes:
    """Rows as the bytes of a file; of types that Arrow cannot mix, as text."""
    if kind == ".parquet":
        columns = {name: _column([row[place] for row in rows], types[place]) for place, name in enumerate(names)}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return bytes(sink.getvalue())
    if kind.startswith(".jsonl"):
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    else:
        separator = "\t" if kind == ".tsv" else ","
        lines = [separator.join(_quoted(cell, separator) for cell in row) for row in [names, *rows]]
        text = "\n".join(lines) + "\n"
    content = text.encode("utf-8", "surrogatepass")
    return gzip.compress(content, mtime=0) if kind.endswith(".gz") else content


def _column(values: list[Any], kind: str) -> pa.Array:
    try:
        column = pa.array([None if value == {} else value for value in values])  # Parquet knows no empty struct
    except (pa.ArrowException, OverflowError):
        column = pa.array([None if value is None else str(value) for value in values])
    wanted = TYPES[kind]
    try:
        return column if wanted is None else column.cast(wanted)
    except (pa.ArrowException, OverflowError):
        return column


def _quoted(cell: Any, separator: str) -> str:
    text = "" if cell is None else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in (separator, '"', "\n")) else text


def verdict(folder: Path, log: Log) -> tuple[str, str | None]:
    """What became of a log, and what is wrong with that, if anything."""
    path = folder / log.name
    path.write_bytes(log.content)
    try:
        table = load_interactions(path).table
    except REFUSALS as error:
        said = str(error)
        return "told", None if path.name in said and len(said) > 40 else f"a reason without the file: {said!r}"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    times = timestamps_to_numpy(table["timestamp"]).tolist()
    found = list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), times, strict=True))
    try:
        expected = read_log(path)
    except Exception as error:  # whatever pandas and Python have for a file that hfrec took
        return "accepted", f"accepted, but not by pandas: {type(error).__name__}: {error}"
    return "accepted", None if found == expected else f"read {found}, pandas {expected}"
