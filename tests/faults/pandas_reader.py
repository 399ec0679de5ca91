"""A log read a second time, by other means: pandas and the standard library alone, nothing of hfrec."""

from __future__ import annotations

import gzip
import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

Row = tuple[str, str, Any]


def read_log(path: Path) -> list[Row]:
    """Users, items and times of a valid log, sorted by user and time, ties in the order of the file."""
    frame = _frame(path)
    users, items, times = (frame[name].tolist() for name in ("user_id", "item_id", "timestamp"))
    rows = list(zip(map(_id, users), map(_id, items), _times(times), strict=True))
    return sorted(rows, key=lambda row: (row[0].encode(), row[2]))  # Python's sort is stable


def _frame(path: Path) -> pd.DataFrame:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pd.read_parquet(path, dtype_backend="pyarrow")
    if name.endswith(".jsonl"):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = list(_objects(raw.decode("utf-8-sig")))
        return pd.DataFrame({key: pd.Series([row[key] for row in rows], dtype=object) for key in rows[0]})
    separator = "\t" if name.endswith(".tsv") else ","
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", engine="c")


def _objects(text: str) -> Any:
    """JSON objects one after the other, however they are broken into lines."""
    text = text.strip(" \t\r\n")
    while text:
        found, end = json.JSONDecoder().raw_decode(text)
        yield found
        text = text[end:].lstrip(" \t\r\n")


def _id(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _times(values: list[Any]) -> list[Any]:
    """Whole numbers, or else fractions, or else microseconds since 1970, of all values alike."""
    for kind in (_whole, _number, _moment):
        try:
            return [kind(value) for value in values]
        except (ValueError, TypeError, AttributeError):
            continue
    raise ValueError(f"no times: {values}")


def _whole(value: Any) -> int:
    if isinstance(value, (float, Decimal)):
        raise ValueError(value)
    return int(value, 16) if isinstance(value, str) and value.lower().startswith("0x") else int(value)


def _number(value: Any) -> float:
    return float(value)


def _moment(value: Any) -> int:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value.to_pydatetime()
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
