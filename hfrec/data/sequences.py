"""Interactions to sequences of token ids, one row per user or window, without a Python loop over interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from transformers.utils import logging

from hfrec.data.inputs import Input, asked_codes, input_codes, seconds
from hfrec.data.interactions import Interactions
from hfrec.data.splits import Time, time_of_flag

if TYPE_CHECKING:
    import datasets

    from hfrec.tokenization import ItemTokenizer

logger = logging.get_logger(__name__)
IntArray = npt.NDArray[np.int64]
Unknown = Literal["error", "drop", "unk"]


def to_sequences(
    interactions: Interactions,
    tokenizer: ItemTokenizer,
    *,
    max_length: int | None = None,
    windows: Literal["newest", "overlapping"] = "newest",
    stride: int | None = None,
    unknown: Unknown = "error",
    inputs: Sequence[Input] | None = None,
) -> datasets.Dataset:
    """One row per user (or window of a user's history), oldest item first.

    Args:
        interactions ([`Interactions`]): A sorted log.
        tokenizer ([`ItemTokenizer`]): Gives each item its token id.
        max_length (`int`): Longest row, in items. `None` keeps whole histories.
        windows (`str`): What becomes of a longer history: "newest" keeps its last `max_length` items; "overlapping"
            cuts it into windows counted back from the newest item, so that the newest `max_length` items are always
            one window and no item is lost.
        stride (`int`): Items between the ends of two windows, in 1..`max_length`. Default: half of `max_length`.
        unknown (`str`): Items that the tokenizer does not know: "error", "drop", or "unk" for its unknown token.
        inputs: What the model reads beside the items: `model.config.inputs`.

    Returns:
        `datasets.Dataset`: `user_id: string, input_ids: list<int32>`, with inputs also `inputs`, a list as long for
        each of them; users in order, a user's windows oldest first. Users with no item left are not in it; their number
        is logged.

    Raises:
        ValueError: Lengths out of range, an unknown item under "error", a missing column, or nothing left.
    """
    stride = check_windows(max_length, windows, stride)
    found = _histories(interactions, tokenizer, unknown=unknown, inputs=inputs)
    users, starts, ends = found.users, found.offsets[:-1], found.offsets[1:]
    nonempty = ends > starts
    if not nonempty.any():
        raise ValueError(
            "No sequence is left: no item is in the `tokenizer`. Is it the tokenizer of another log? A checkpoint "
            "whose items are made of content takes up the catalogue of this one by `--items_file`."
        )
    if not nonempty.all():
        logger.warning(f"{int((~nonempty).sum())} of {len(users)} users have no item in the tokenizer: no row for them")
    owners = np.flatnonzero(nonempty)
    starts, ends = starts[owners], ends[owners]
    if max_length is not None and windows == "newest":
        starts = np.maximum(starts, ends - max_length)
    elif max_length is not None:
        rows, starts, ends = overlapping_windows(starts, ends, max_length=max_length, stride=stride)
        owners = owners[rows]
    columns = {"user_id": users.take(pa.array(owners)), "input_ids": take_lists(found.tokens, starts, ends)}
    lists = {name: take_lists(pa.array(codes, pa.int32()), starts, ends) for name, codes in found.codes.items()}
    return _dataset({**columns, **_struct(lists)})


def to_evaluation_sequences(
    history: Interactions, targets: Interactions, tokenizer: ItemTokenizer, *, inputs: Sequence[Input] | None = None
) -> datasets.Dataset:
    """One row per target interaction, with the user's whole history before it.

    The time of a target is the time of the request: a model that reads time gaps knows how long ago the history ended.

    Args:
        history ([`Interactions`]): What the model may know: `split.train` for validation, `split.history` for test.
            Items that the tokenizer does not know are left out.
        targets ([`Interactions`]): What is to be ranked.
        tokenizer ([`ItemTokenizer`]): Gives each item its token id.
        inputs: What the model reads beside the items: `model.config.inputs`.

    Returns:
        `datasets.Dataset`: `user_id: string, input_ids: list<int32>` (empty for a user without history),
        `target: int32` (an unknown item is `tokenizer.unk_token_id`, which counts as a miss), with inputs also `inputs`
        as in [`to_requests`].

    Raises:
        ValueError: `targets` is empty, or a column is missing.
    """
    if len(targets) == 0:
        raise ValueError("`targets` is empty: there is nothing to evaluate. Do all users have one interaction only?")
    found = _histories(history, tokenizer, unknown="drop", inputs=inputs)
    users = _as_array(targets.table["user_id"])
    target = _as_array(tokenizer.encode_column(targets.table["item_id"], unknown="unk")).cast(pa.int32())
    at = seconds(targets.table["timestamp"]) if inputs else np.zeros(0)
    columns = _requests(found, users, at, inputs)
    return _dataset({"user_id": users, "input_ids": columns.pop("input_ids"), "target": target, **columns})


def to_requests(
    history: Interactions,
    tokenizer: ItemTokenizer,
    users: Sequence[str],
    *,
    inputs: Sequence[Input] | None = None,
    now: Time | None = None,
    unknown: Unknown = "drop",
) -> datasets.Dataset:
    """One row for each user that something is to be recommended to, as [`recommend`] takes them.

    Args:
        history ([`Interactions`]): What is known of them.
        tokenizer ([`ItemTokenizer`]): Gives each item its token id.
        users: Their ids; a user without interactions has an empty history.
        inputs: What the model reads beside the items: `model.config.inputs`.
        now: Time of the requests, as the log has times; None for unknown, which the model has learnt to read too.
        unknown (`str`): Items that the tokenizer does not know, as in [`to_sequences`].

    Returns:
        `datasets.Dataset`: `user_id: string, input_ids: list<int32>` and, with inputs, `inputs`: for each of them a
        list with one value for each item and one for the item that is asked for.

    Raises:
        ValueError: A missing column, or an unknown item under "error".
    """
    names = pa.array(users, pa.string())
    kind, at = history.table["timestamp"].type, np.full(len(names), np.nan)
    if now is not None:
        moment = pa.array([time_of_flag(now, kind, "now")])
        at[:] = seconds(pa.chunked_array([moment.cast(kind) if pa.types.is_timestamp(kind) else moment]))
    found = _histories(history, tokenizer, unknown=unknown, inputs=inputs)
    return _dataset({"user_id": names, **_requests(found, names, at, inputs)})


def check_windows(max_length: int | None, windows: str, stride: int | None) -> int:
    """The stride of the windows, by default half of `max_length`; refuses what does not fit together."""
    if windows not in ("newest", "overlapping"):
        raise ValueError(f"`windows` must be 'newest' or 'overlapping', found {windows!r}.")
    if max_length is not None and max_length < 1:
        raise ValueError(f"`max_length` must be at least 1 or None, found {max_length}.")
    if max_length is None:
        if windows == "overlapping" or stride is not None:
            raise ValueError("`windows='overlapping'` and `stride` need a `max_length`, found None.")
        return 1
    if stride is not None and windows == "newest":
        raise ValueError("`stride` is for `windows='overlapping'`, found windows='newest'.")
    if stride is not None and not 1 <= stride <= max_length:
        raise ValueError(f"`stride` must lie in 1..`max_length` ({max_length}), found {stride}.")
    return stride if stride is not None else max(1, max_length // 2)


@dataclass(frozen=True)
class _Histories:
    """The tokens of all users in one array, with their inputs.

    Args:
        users: Their ids.
        tokens: `(num_tokens,)`.
        offsets: Where each user's tokens begin, `(num_users + 1,)`.
        codes: Of each input, `(num_tokens,)`.
        times: Of each token in seconds `(num_tokens,)`; empty without inputs.
    """

    users: pa.Array
    tokens: pa.Array
    offsets: IntArray
    codes: dict[str, IntArray]
    times: npt.NDArray[np.float64]


def _histories(
    interactions: Interactions, tokenizer: ItemTokenizer, *, unknown: Unknown, inputs: Sequence[Input] | None
) -> _Histories:
    column = interactions.table["user_id"].combine_chunks().dictionary_encode()
    tokens = _as_array(tokenizer.encode_column(interactions.table["item_id"], unknown=unknown)).cast(pa.int32())
    codes = np.asarray(column.indices, dtype=np.int64)
    known = np.asarray(pc.is_valid(tokens).to_numpy(zero_copy_only=False), dtype=bool)
    counts = np.bincount(codes[known], minlength=len(column.dictionary))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if not known.all():
        logger.info(
            f"{int((~known).sum())} of {len(known)} interactions have an item unknown to the tokenizer: left out"
        )
    times, found = np.zeros(0), {}
    if inputs:  # of neighbours as the model reads them: what it does not know is no neighbour
        kept = interactions.table.filter(pa.array(known))
        times = seconds(kept["timestamp"])
        before = np.concatenate([[np.nan], times[:-1]])[: len(times)]
        before[offsets[:-1][counts > 0]] = np.nan
        found = input_codes(inputs, kept, before)
    return _Histories(column.dictionary, tokens.drop_null(), offsets, found, times)


def _requests(
    found: _Histories, users: pa.Array, at: npt.NDArray[np.float64], inputs: Sequence[Input] | None
) -> dict[str, pa.Array]:
    """Whole histories of users, `at` being the times of the requests `(num_users,)`; read with inputs alone."""
    owner = pc.index_in(users, found.users)
    known = np.asarray(pc.is_valid(owner).to_numpy(zero_copy_only=False), dtype=bool)
    row = np.asarray(pc.fill_null(owner, 0), dtype=np.int64)  # (num_users,)
    starts, ends = np.zeros_like(row), np.zeros_like(row)
    starts[known], ends[known] = found.offsets[row[known]], found.offsets[row[known] + 1]
    columns = {"input_ids": take_lists(found.tokens, starts, ends)}
    if not inputs:
        return columns
    before, some = np.full(len(row), np.nan), ends > starts
    before[some] = found.times[ends[some] - 1]
    offsets = columns["input_ids"].offsets.to_numpy()
    longer = pa.array(offsets + np.arange(len(offsets)), pa.int32())  # one value more in each row
    lists = {}
    for name, asked in asked_codes(inputs, before, at).items():
        own = take_lists(pa.array(found.codes[name], pa.int32()), starts, ends).values.to_numpy()
        lists[name] = pa.ListArray.from_arrays(longer, pa.array(np.insert(own, offsets[1:], asked), pa.int32()))
    return {**columns, **_struct(lists)}


def num_windows(lengths: IntArray, *, max_length: int, stride: int) -> IntArray:
    """Overlapping windows of histories of these lengths.

    Example:
        >>> num_windows(np.array([3, 4, 5, 7]), max_length=4, stride=2).tolist()
        [1, 1, 2, 3]
    """
    return np.asarray(1 + -(-np.maximum(lengths - max_length, 0) // stride))


def overlapping_windows(
    starts: IntArray, ends: IntArray, *, max_length: int, stride: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Row, start and end of each window, each of shape `(num_windows,)`."""
    counts = num_windows(ends - starts, max_length=max_length, stride=stride)
    rows = np.repeat(np.arange(len(starts)), counts)  # (num_windows,)
    back = np.cumsum(counts)[rows] - 1 - np.arange(len(rows))  # 0 for the newest window of its row
    window_ends = ends[rows] - back * stride
    return rows, np.maximum(starts[rows], window_ends - max_length), window_ends


def take_lists(values: pa.Array, starts: IntArray, ends: IntArray) -> pa.Array:
    """Lists of `values[start:end]`, one for each start."""
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths)  # (num_tokens,)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(indices, pa.int64())))


def _as_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _struct(lists: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """The lists of all inputs as one column `inputs`; no column without inputs."""
    return {"inputs": pa.StructArray.from_arrays(list(lists.values()), list(lists))} if lists else {}


def _dataset(columns: dict[str, pa.Array | pa.ChunkedArray]) -> datasets.Dataset:
    import datasets

    return datasets.Dataset(pa.table(columns))
