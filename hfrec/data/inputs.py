"""What is known of an interaction beside its item, from the log to the model: columns of the log, and what times say.

A declared input is a dictionary, as `config.inputs` of a checkpoint holds it: its `name`, its `kind` (`"column"` or
`"time"`), the `size` of its table and, of a column, its `values`. Rows hold it as whole numbers, of which 0 is unknown.

What a column says of an interaction is known afterwards: neither of the item that is asked for, nor of a masked one.
Times are known when a recommendation is asked for, so that what they say holds for the item that is asked for too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.interactions import Interactions, timestamps_to_numpy
from hfrec.data.validation import UNITS, as_texts

MAX_VALUES = 1000  # of a column: more are numbers rather than categories
NUM_GAPS = 34  # unknown, no gap, and powers of two up to 68 years in seconds
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Input = Mapping[str, Any]


def gap_codes(before: FloatArray, at: FloatArray) -> IntArray:
    """Logarithm of the time since the interaction before, in powers of two of a second.

    Example:
        >>> gap_codes(np.array([np.nan, 5.0, 5.0, 5.0]), np.array([5.0, 5.0, 6.0, 3605.0])).tolist()
        [0, 1, 2, 13]
    """
    gaps = np.nan_to_num(at - before, nan=-1.0)
    codes = 1 + np.ceil(np.log2(1.0 + np.maximum(gaps, 0.0)))
    return np.where(np.isnan(at - before), 0, np.minimum(codes, NUM_GAPS - 1)).astype(np.int64)


@dataclass(frozen=True)
class TimeInput:
    """An input that times alone decide.

    Args:
        size: Its codes lie below it.
        codes: From the times of the interactions before and of these ones, in seconds, NaN where unknown, `(n,)` each,
            to codes `(n,)`.
    """

    size: int
    codes: Callable[[FloatArray, FloatArray], IntArray]


TIME_INPUTS = {"time_gap": TimeInput(NUM_GAPS, gap_codes)}


def declare_inputs(names: Sequence[str], train: Interactions) -> list[dict[str, Any]] | None:
    """Describe inputs for the config of a new model; None without any.

    Args:
        names: Of `TIME_INPUTS`, or columns of the log.
        train: What is trained on; the values of a column in it get codes, the most frequent first.

    Raises:
        ValueError: A column that the log lacks or that holds no categories, or a name given twice.

    Example:

    ```python
    >>> from hfrec.data.interactions import load_interactions
    >>> table = pa.table({"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": [1, 2, 3], "stars": [5, 5, 4]})
    >>> declare_inputs(["time_gap", "stars"], load_interactions(table))[1]
    {'name': 'stars', 'kind': 'column', 'size': 3, 'values': ['5', '4']}

    ```
    """
    if len(set(names)) < len(names):
        raise ValueError(f"`inputs` must name each input once, found {', '.join(names)}.")
    return [_declared(name, train.table) for name in names] or None


def input_content(names: Sequence[str], log: Interactions) -> dict[str, str]:
    """SHA-256 (hex) of each column that is read: an interrupted run goes on with these values alone.

    Args:
        names: Of inputs, as `declare_inputs` takes them.
        log: What is trained on; its fingerprint covers users, items and times.

    Raises:
        ValueError: A column that the log lacks.
    """
    columns = {name: _texts(name, log.table).to_pylist() for name in names if name not in TIME_INPUTS}
    return {f"input {name}": sha256(json.dumps(values).encode()).hexdigest() for name, values in columns.items()}


def known_when_asked(entry: Input) -> bool:
    """Whether an input is known of the item that is asked for."""
    return bool(entry["kind"] == "time")


def input_names(inputs: Sequence[Input] | None) -> str:
    """The names of inputs, for people."""
    return ", ".join(entry["name"] for entry in inputs or [])


def inputs_of(model: Any) -> Sequence[Input] | None:
    """What a model, or a wrapper around it, reads beside the items; None for one of items alone or a blend."""
    found: Sequence[Input] | None = getattr(model.config, "inputs", None)
    return found


def refuse_inputs(model: Any, doing: str) -> None:
    """Refuse a checkpoint that reads more than items, where nothing gives it that.

    Args:
        model: A model.
        doing: What cannot be done.

    Raises:
        ValueError: It has inputs.
    """
    inputs = inputs_of(model)
    if inputs:
        raise ValueError(
            f"{doing} gives a model nothing but items, and this checkpoint reads {input_names(inputs)} beside them: "
            "take one that was pretrained without `--inputs`, or `hfrec recommend` with a log."
        )


def input_codes(inputs: Sequence[Input], table: pa.Table, before: FloatArray) -> dict[str, IntArray]:
    """Codes of each interaction, `(num_interactions,)` by the name of the input.

    Args:
        inputs: Declared inputs.
        table: Interactions.
        before: Time of the interaction before, in seconds, NaN where there is none, `(num_interactions,)`.

    Raises:
        ValueError: A column that the table lacks.
    """
    at = seconds(table["timestamp"])
    return {
        entry["name"]: time_codes(entry, before, at) if known_when_asked(entry) else _column_codes(entry, table)
        for entry in inputs
    }


def asked_codes(inputs: Sequence[Input], before: FloatArray, at: FloatArray) -> dict[str, IntArray]:
    """Codes of the items that are asked for, `(n,)` by the name of the input: 0 for what is known afterwards alone."""
    return {
        entry["name"]: time_codes(entry, before, at) if known_when_asked(entry) else np.zeros(len(at), np.int64)
        for entry in inputs
    }


def time_codes(entry: Input, before: FloatArray, at: FloatArray) -> IntArray:
    """Codes of an input that times decide.

    Raises:
        ValueError: This version of hfrec does not know it.
    """
    if entry["name"] not in TIME_INPUTS or TIME_INPUTS[entry["name"]].size != entry["size"]:
        raise ValueError(
            f"the checkpoint reads the input {entry['name']!r} of {entry['size']} values, expected one of "
            f"{', '.join(f'{name} ({known.size})' for name, known in TIME_INPUTS.items())}: update hfrec."
        )
    return TIME_INPUTS[entry["name"]].codes(before, at)


def seconds(times: pa.ChunkedArray) -> FloatArray:
    """Times of a log in seconds `(num_rows,)`; numbers too small to be dates are taken as they are.

    Example:
        >>> seconds(pa.chunked_array([[1714000000123]])).tolist(), seconds(pa.chunked_array([[3, 4]])).tolist()
        ([1714000000.123], [3.0, 4.0])
    """
    values = timestamps_to_numpy(times)
    if pa.types.is_timestamp(times.type):
        return np.asarray(values / 1e6, dtype=np.float64)
    largest = np.abs(values).max(initial=0)
    unit = max((unit for first, unit in UNITS.values() if largest >= first), default=1)
    return np.asarray(values / unit, dtype=np.float64)


def _declared(name: str, table: pa.Table) -> dict[str, Any]:
    if name in TIME_INPUTS:
        if name in table.column_names:
            raise ValueError(
                f"`inputs`: {name!r} is made of the times, and the log has a column of that name: rename it."
            )
        return {"name": name, "kind": "time", "size": TIME_INPUTS[name].size}
    counts = pc.value_counts(_texts(name, table).drop_null())
    ordered = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    if not 1 <= len(ordered) <= MAX_VALUES:
        raise ValueError(
            f"`inputs`: expected 1 to {MAX_VALUES:,} different values in the column {name!r}, found {len(ordered):,}: "
            "give a column of categories, numbers in buckets."
        )
    values = [entry["values"] for entry in ordered]
    return {"name": name, "kind": "column", "size": 1 + len(values), "values": values}


def _column_codes(entry: Input, table: pa.Table) -> IntArray:
    places = pc.index_in(_texts(entry["name"], table), pa.array(entry["values"], pa.string()))
    return np.asarray(pc.add(pc.fill_null(places, -1), 1).to_numpy(), dtype=np.int64)


def _texts(name: str, table: pa.Table) -> pa.ChunkedArray:
    reserved = ("user_id", "item_id", "timestamp")
    if name not in table.column_names or name in reserved:
        further = [column for column in table.column_names if column not in reserved]
        raise ValueError(
            f"`inputs`: expected {', '.join(TIME_INPUTS)} or a further column of the log, found {name!r}; the log has "
            f"{', '.join(further) or 'none'}. Give a log with that column, or another name."
        )
    return as_texts(table[name])
