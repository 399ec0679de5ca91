"""Sequences: the newest items are kept, windows lose nothing, targets meet the right history."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from hfrec.data.interactions import load_interactions
from hfrec.data.sequences import to_evaluation_sequences, to_sequences
from hfrec.data.splits import leave_one_out
from hfrec.tokenization import ItemTokenizer


def make(**users: str):
    pairs = [(user, item) for user, items in users.items() for item in items]
    table = {"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]}
    return load_interactions(pa.table({**table, "timestamp": range(len(pairs))}))


@pytest.fixture
def tokenizer():
    return ItemTokenizer.from_items(list("abcdefgh"))


def words(dataset, tokenizer):
    return [
        user + ":" + "".join(tokenizer.decode_items(tokens))
        for user, tokens in zip(dataset["user_id"], dataset["input_ids"], strict=True)
    ]


def test_whole_histories_oldest_first(tokenizer):
    """Stops a wrong order of items or users, and a type that the collator does not expect."""
    dataset = to_sequences(make(v="ba", u="abc"), tokenizer)
    assert words(dataset, tokenizer) == ["u:abc", "v:ba"]
    assert dataset.data.schema.field("input_ids").type == pa.list_(pa.int32())


def test_newest_items_are_kept(tokenizer):
    """Stops a long history from losing its newest items."""
    assert words(to_sequences(make(u="abcdef", v="a"), tokenizer, max_length=4), tokenizer) == ["u:cdef", "v:a"]


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (None, ["u:abc", "u:bcde", "u:defg", "v:ab"]),
        (4, ["u:abc", "u:defg", "v:ab"]),
        (3, ["u:abcd", "u:defg", "v:ab"]),
    ],
)
def test_overlapping_windows(tokenizer, stride, expected):
    """Stops windows that lose an item, or whose newest one is short."""
    dataset = to_sequences(make(u="abcdefg", v="ab"), tokenizer, max_length=4, windows="overlapping", stride=stride)
    assert words(dataset, tokenizer) == expected


def test_windows_cover_every_item_of_random_histories():
    """Stops an off-by-one at any length, maximum or stride."""
    generator = np.random.default_rng(0)
    tokenizer = ItemTokenizer.from_items([str(number) for number in range(40)])
    for _ in range(30):
        length, max_length = int(generator.integers(1, 40)), int(generator.integers(1, 12))
        stride = int(generator.integers(1, max_length + 1))
        log = load_interactions(
            pa.table(
                {"user_id": ["u"] * length, "item_id": [str(n) for n in range(length)], "timestamp": range(length)}
            )
        )
        rows = to_sequences(log, tokenizer, max_length=max_length, windows="overlapping", stride=stride)["input_ids"]
        assert {token for row in rows for token in row} == set(range(3, 3 + length))
        assert all(row == list(range(row[0], row[-1] + 1)) and len(row) <= max_length for row in rows)
        assert rows[-1] == list(range(3 + max(0, length - max_length), 3 + length))


def test_unknown_items(tokenizer):
    """Stops an unknown item from shifting the items of the users after it."""
    log = make(u="axb", v="x", w="cd")
    assert words(to_sequences(log, tokenizer, unknown="drop"), tokenizer) == ["u:ab", "w:cd"]
    assert words(to_sequences(log, tokenizer, unknown="unk"), tokenizer)[0] == "u:a[UNK]b"
    with pytest.raises(ValueError, match="'x'"):
        to_sequences(log, tokenizer)
    with pytest.raises(ValueError, match="No sequence is left"):
        to_sequences(make(u="xyz"), tokenizer, unknown="drop")


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": 0},
        {"windows": "overlapping"},
        {"max_length": 4, "stride": 2},
        {"max_length": 4, "windows": "overlapping", "stride": 5},
        {"max_length": 4, "windows": "all"},
    ],
)
def test_lengths_out_of_range(tokenizer, arguments):
    """Stops an option from being ignored."""
    with pytest.raises(ValueError, match=r"`(max_length|windows|stride)"):
        to_sequences(make(u="ab"), tokenizer, **arguments)


def test_evaluation_rows_meet_their_history(tokenizer):
    """Stops a target from being ranked with another user's history, and unknown targets from being left out."""
    split = leave_one_out(make(u="abcd", v="ef", w="a", x="gxhx"))
    dataset = to_evaluation_sequences(split.history, split.test, tokenizer)
    assert words(dataset, tokenizer) == ["u:abc", "v:e", "x:gh"]
    assert dataset["target"] == [6, 8, tokenizer.unk_token_id]
    assert dataset.data.schema.field("target").type == pa.int32()


def test_target_without_history_is_kept(tokenizer):
    """Stops new users from being left out of the mean."""
    dataset = to_evaluation_sequences(make(v="ab", u="x"), make(t="a", u="b", v="cd"), tokenizer)
    assert words(dataset, tokenizer) == ["t:", "u:", "v:ab", "v:ab"]
    assert dataset["target"] == [3, 4, 5, 6]
    with pytest.raises(ValueError, match="`targets` is empty"):
        to_evaluation_sequences(make(u="a"), leave_one_out(make(u="a")).test, tokenizer)
