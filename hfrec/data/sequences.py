"""Interactions to sequences of token ids, one row per user or window, without a Python loop over interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from transformers.utils import logging

from hfrec.data.interactions import Interactions

if TYPE_CHECKING:
    import datasets

    from hfrec.tokenization import ItemTokenizer

logger = logging.get_logger(__name__)
IntArray = npt.NDArray[np.int64]


def to_sequences(
    interactions: Interactions,
    tokenizer: ItemTokenizer,
    *,
    max_length: int | None = None,
    windows: Literal["newest", "overlapping"] = "newest",
    stride: int | None = None,
    unknown: Literal["error", "drop", "unk"] = "error",
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

    Returns:
        `datasets.Dataset`: `user_id: string, input_ids: list<int32>`, users in order, a user's windows oldest first.
        Users with no item left are not in it; their number is logged.

    Raises:
        ValueError: Lengths out of range, an unknown item under "error", or nothing left.
    """
    stride = check_windows(max_length, windows, stride)
    users, tokens, offsets = _histories(interactions, tokenizer, unknown=unknown)
    starts, ends = offsets[:-1], offsets[1:]
    nonempty = ends > starts
    if not nonempty.any():
        raise ValueError("No sequence is left: no item is in the `tokenizer`. Is it the tokenizer of another log?")
    if not nonempty.all():
        logger.warning(f"{int((~nonempty).sum())} of {len(users)} users have no item in the tokenizer: no row for them")
    owners = np.flatnonzero(nonempty)
    starts, ends = starts[owners], ends[owners]
    if max_length is not None and windows == "newest":
        starts = np.maximum(starts, ends - max_length)
    elif max_length is not None:
        rows, starts, ends = overlapping_windows(starts, ends, max_length=max_length, stride=stride)
        owners = owners[rows]
    return _dataset({"user_id": users.take(pa.array(owners)), "input_ids": take_lists(tokens, starts, ends)})


def to_evaluation_sequences(history: Interactions, targets: Interactions, tokenizer: ItemTokenizer) -> datasets.Dataset:
    """One row per target interaction, with the user's whole history before it.

    Args:
        history ([`Interactions`]): What the model may know: `split.train` for validation, `split.history` for test.
            Items that the tokenizer does not know are left out.
        targets ([`Interactions`]): What is to be ranked.
        tokenizer ([`ItemTokenizer`]): Gives each item its token id.

    Returns:
        `datasets.Dataset`: `user_id: string, input_ids: list<int32>` (empty for a user without history),
        `target: int32` (an unknown item is `tokenizer.unk_token_id`, which counts as a miss).

    Raises:
        ValueError: `targets` is empty.
    """
    if len(targets) == 0:
        raise ValueError("`targets` is empty: there is nothing to evaluate. Do all users have one interaction only?")
    users, tokens, offsets = _histories(history, tokenizer, unknown="drop")
    owner = pc.index_in(targets.table["user_id"].combine_chunks(), users)
    known = np.asarray(pc.is_valid(owner).to_numpy(zero_copy_only=False), dtype=bool)
    row = np.asarray(pc.fill_null(owner, 0), dtype=np.int64)  # (num_targets,)
    starts, ends = np.zeros_like(row), np.zeros_like(row)
    starts[known], ends[known] = offsets[row[known]], offsets[row[known] + 1]
    target = tokenizer.encode_column(targets.table["item_id"], unknown="unk")
    return _dataset(
        {
            "user_id": targets.table["user_id"],
            "input_ids": take_lists(tokens, starts, ends),
            "target": _as_array(target).cast(pa.int32()),
        }
    )


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


def _histories(
    interactions: Interactions, tokenizer: ItemTokenizer, *, unknown: Literal["error", "drop", "unk"]
) -> tuple[pa.Array, pa.Array, IntArray]:
    """Users, all tokens in one array, and where each user's begin: `(num_users,), (num_tokens,), (num_users + 1,)`."""
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
    return column.dictionary, tokens.drop_null(), offsets


def overlapping_windows(
    starts: IntArray, ends: IntArray, *, max_length: int, stride: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Row, start and end of each window, each of shape `(num_windows,)`."""
    excess = np.maximum(ends - starts - max_length, 0)
    counts = 1 + -(-excess // stride)
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


def _dataset(columns: dict[str, pa.Array | pa.ChunkedArray]) -> datasets.Dataset:
    import datasets

    return datasets.Dataset(pa.table(columns))
