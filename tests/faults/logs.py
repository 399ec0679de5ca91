"""Fuzz of logs: what is accepted is what an independent reader reads; everything else is refused in words."""

from __future__ import annotations

import gzip
import json
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


@st.composite
def logs(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name and the content of a file that is a log, or nearly."""
    kind = draw(st.sampled_from([".csv", ".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz"]))
    size = draw(st.integers(1, 6))
    ids = draw(st.sampled_from([IDS, IDS, st.one_of(IDS, NUMBERS), NUMBERS, st.integers(0, 5)]))
    times = draw(st.sampled_from([st.integers(0, 9), st.integers(0, 9), TIMES, MOMENTS, st.floats(0, 9), NUMBERS]))
    rows = [[draw(ids), draw(ids), draw(times)] for _ in range(size)]
    if draw(st.integers(0, 9)) == 0:
        rows[draw(st.integers(0, size - 1))][draw(st.integers(0, 2))] = draw(st.sampled_from([None, "", " ", [], {}]))
    content = written(kind, rows)
    if draw(st.integers(0, 4)) == 0 and content:
        place = draw(st.integers(0, len(content) - 1))
        byte = draw(st.sampled_from([b"", b"\0", b'"', b"\n", b"\xff", b",", b"\r\n", b"\t", b"}"]))
        content = content[:place] + byte + content[place + draw(st.integers(0, 1)) :]
    return f"log{kind}", content


def written(kind: str, rows: list[list[Any]]) -> bytes:
    """Rows as the bytes of a file; of types that Arrow cannot mix, as text."""
    if kind == ".parquet":
        columns = {name: _column([row[place] for row in rows]) for place, name in enumerate(NAMES)}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return bytes(sink.getvalue())
    if kind.startswith(".jsonl"):
        text = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows)
    else:
        separator = "\t" if kind == ".tsv" else ","
        lines = [separator.join(_quoted(cell, separator) for cell in row) for row in [NAMES, *rows]]
        text = "\n".join(lines) + "\n"
    content = text.encode("utf-8", "surrogatepass")
    return gzip.compress(content, mtime=0) if kind.endswith(".gz") else content


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array([None if value == {} else value for value in values])  # Parquet knows no empty struct
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def _quoted(cell: Any, separator: str) -> str:
    text = "" if cell is None else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in (separator, '"', "\n")) else text


def verdict(folder: Path, name: str, content: bytes) -> tuple[str, str | None]:
    """What became of a log, and what is wrong with that, if anything."""
    path = folder / name
    path.write_bytes(content)
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
