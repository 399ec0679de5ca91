"""Inputs beside the items: what each is made of, and that rows carry the value that a model may know."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from hfrec import (
    DataCollatorForMaskedItems,
    DataCollatorForNextItem,
    Interactions,
    ItemTokenizer,
    declare_inputs,
    load_interactions,
    to_evaluation_sequences,
    to_requests,
    to_sequences,
)
from hfrec.data.inputs import input_content, seconds, time_codes

TOKENIZER = ItemTokenizer.from_items(["a", "b", "c", "d"])  # tokens 3 to 6
TIMES = {"u": [100, 100, 103, 110], "v": [50, 58]}
# Seconds since the interaction before: none, 0, 3, 7; none, 8.
GAPS = {"u": [0, 1, 3, 4], "v": [0, 5]}


def make_log(items: str = "abcd", other: str = "ba") -> Interactions:
    users = ["u"] * len(items) + ["v"] * len(other)
    times = [*TIMES["u"][: len(items)], *TIMES["v"][: len(other)]]
    stars = [5.0, 4.0, None, 5.0][: len(items)] + [4.0, 5.0][: len(other)]
    table = {"user_id": users, "item_id": list(items + other), "timestamp": times, "stars": stars}
    return load_interactions(pa.table(table))


@pytest.fixture(scope="module")
def inputs() -> list[dict]:
    return declare_inputs(["time_gap", "stars"], make_log())


def test_declared_inputs_hold_what_the_training_part_has(inputs: list[dict]) -> None:
    """A vocabulary in another order, or with the ".0" of a reader, would read other values than were trained."""
    assert inputs[0] == {"name": "time_gap", "kind": "time", "size": 34}
    assert inputs[1] == {"name": "stars", "kind": "column", "size": 3, "values": ["5", "4"]}
    assert declare_inputs([], make_log()) is None


def test_rows_carry_the_codes_of_their_tokens(inputs: list[dict]) -> None:
    """A shift by one, or a gap across two users, trains on the wrong times without a word."""
    rows = to_sequences(make_log(), TOKENIZER, inputs=inputs)
    assert rows["inputs"][:] == [
        {"time_gap": GAPS["u"], "stars": [1, 2, 0, 1]},
        {"time_gap": GAPS["v"], "stars": [2, 1]},
    ]
    windows = to_sequences(make_log(), TOKENIZER, max_length=3, windows="overlapping", stride=2, inputs=inputs)
    assert windows["input_ids"][:2] == [[3, 4], [4, 5, 6]]
    assert windows[1]["inputs"] == {"time_gap": [1, 3, 4], "stars": [2, 0, 1]}


def test_gaps_are_between_neighbours_that_the_model_knows(inputs: list[dict]) -> None:
    """Users, items or the first of a user that are left out must not leave their gaps to others."""
    tokenizer = ItemTokenizer.from_items(["b", "d"])
    rows = to_sequences(make_log(), tokenizer, unknown="drop", inputs=inputs)
    assert rows["inputs"][:] == [{"time_gap": [0, 5], "stars": [2, 1]}, {"time_gap": [0], "stars": [2]}]


def test_what_is_asked_for_has_its_time_and_no_rating(inputs: list[dict]) -> None:
    """The rating of a target is not known before it is rated; its time is that of the request."""
    history, targets = make_log("abc", "b"), make_log("abcd", "ba")
    targets = targets.select(np.array([False, False, False, True, False, True]))
    rows = to_evaluation_sequences(history, targets, TOKENIZER, inputs=inputs)
    assert rows["target"][:] == [6, 3]
    assert rows["inputs"][:] == [
        {"time_gap": [0, 1, 3, 4], "stars": [1, 2, 0, 0]},
        {"time_gap": [0, 5], "stars": [2, 0]},
    ]
    asked = to_requests(history, TOKENIZER, ["v", "nobody"], inputs=inputs, now=58)
    assert asked["input_ids"][:] == [[4], []]
    assert asked["inputs"][:] == [{"time_gap": [0, 5], "stars": [2, 0]}, {"time_gap": [0], "stars": [0]}]
    unknown = to_requests(history, TOKENIZER, ["v"], inputs=inputs)
    assert unknown["inputs"][:] == [{"time_gap": [0, 0], "stars": [2, 0]}]


def test_rows_without_inputs_are_as_ever() -> None:
    """Who asks for nothing pays nothing."""
    assert to_sequences(make_log(), TOKENIZER).column_names == ["user_id", "input_ids"]
    assert to_evaluation_sequences(make_log(), make_log(), TOKENIZER).column_names == ["user_id", "input_ids", "target"]


def test_masked_rows_hide_what_is_known_afterwards(inputs: list[dict]) -> None:
    """A model that reads the rating of the item behind a `[MASK]` in training finds none there when it is asked."""
    rows = list(to_sequences(make_log(), TOKENIZER, inputs=inputs))
    plain = DataCollatorForMaskedItems(TOKENIZER, mask_last_probability=1.0, seed=0)
    collator = DataCollatorForMaskedItems(TOKENIZER, mask_last_probability=1.0, seed=0, inputs=inputs, max_length=3)
    batch = collator(rows)
    assert batch["input_ids"].tolist() == [[4, 5, 1], [0, 4, 1]]
    assert batch["inputs"]["time_gap"].tolist() == [[1, 3, 4], [0, 0, 5]]
    assert batch["inputs"]["stars"].tolist() == [[2, 0, 0], [0, 2, 0]]
    assert plain(rows)["labels"][:, 1:].tolist() == batch["labels"].tolist()


def test_causal_rows_read_the_time_of_the_next_item(inputs: list[dict]) -> None:
    """The gap to the item that is asked for is known; its own rating is read at the item that was rated."""
    rows = list(to_sequences(make_log(), TOKENIZER, inputs=inputs))
    batch = DataCollatorForNextItem(TOKENIZER, "causal", train=True, inputs=inputs)(rows)
    assert batch["input_ids"].tolist() == [[3, 4, 5], [0, 0, 4]]
    assert batch["inputs"]["time_gap"].tolist() == [[1, 3, 4], [0, 0, 5]]
    assert batch["inputs"]["stars"].tolist() == [[1, 2, 0], [0, 0, 2]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_questions_read_the_time_of_the_request(side: str, inputs: list[dict]) -> None:
    """Evaluation and recommendation must ask as training did, an empty history too."""
    asked = list(to_requests(make_log("abc", "b"), TOKENIZER, ["u", "v", "nobody"], inputs=inputs, now=110))
    given = {"inputs": inputs, "max_length": 3, "padding_side": side}
    masked = DataCollatorForNextItem(TOKENIZER, "masked", **given)(asked)
    causal = DataCollatorForNextItem(TOKENIZER, "causal", **given)(asked)
    for batch, gaps, stars in (
        (masked, [[1, 3, 4], [0, 7], [0]], [[2, 0, 0], [2, 0], [0]]),
        (causal, [[1, 3, 4], [7], [0]], [[1, 2, 0], [2], [0]]),
    ):
        for name, expected in (("time_gap", gaps), ("stars", stars)):
            rows = zip(batch["inputs"][name], batch["attention_mask"].bool(), strict=True)
            found = [row[mask].tolist() for row, mask in rows]
            assert found == expected, name
            assert batch["inputs"][name].shape == batch["input_ids"].shape


def test_rows_of_another_kind_are_refused(inputs: list[dict]) -> None:
    """Rows made without inputs, or with one code too few, would be read as unknown in silence."""
    collator = DataCollatorForNextItem(TOKENIZER, "masked", inputs=inputs)
    with pytest.raises(ValueError, match=r"time_gap, stars, which the model reads beside the items, found none"):
        collator([{"input_ids": [3]}])
    with pytest.raises(ValueError, match="`features` must hold a code of 'time_gap' for each item"):
        collator(list(to_sequences(make_log(), TOKENIZER, inputs=inputs)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["colour"], "expected time_gap or a further column of the log, found 'colour'; the log has stars"),
        (["item_id"], "found 'item_id'"),
        (["stars", "stars"], "must name each input once, found stars, stars"),
        (["price"], "expected 1 to 1,000 different values in the column 'price', found 1,001"),
        (["empty"], "in the column 'empty', found 0"),
    ],
)
def test_inputs_that_cannot_be_are_refused(names: list[str], message: str) -> None:
    """A misspelt column, or numbers taken for categories, would train for an hour on nothing."""
    log = make_log()
    if names[0] in ("price", "empty"):
        values = list(range(1001)) if names == ["price"] else pa.array([None] * 1001, pa.string())
        table = {"user_id": ["u"] * 1001, "item_id": ["a"] * 1001, "timestamp": range(1001), names[0]: values}
        log = load_interactions(pa.table(table))
    with pytest.raises(ValueError, match=message):
        declare_inputs(names, log)


def test_a_log_without_the_column_is_refused(inputs: list[dict]) -> None:
    """A checkpoint remembers what it reads; a log that lacks it must not be read as all unknown."""
    log = load_interactions(make_log().table.drop_columns(["stars"]))
    with pytest.raises(ValueError, match="found 'stars'; the log has none"):
        to_sequences(log, TOKENIZER, inputs=inputs)
    hidden = load_interactions(make_log().table.rename_columns(["user_id", "item_id", "timestamp", "time_gap"]))
    with pytest.raises(ValueError, match="'time_gap' is made of the times"):
        declare_inputs(["time_gap"], hidden)
    with pytest.raises(ValueError, match=r"reads the input 'phase' of 9 values, expected one of time_gap \(34\)"):
        time_codes({"name": "phase", "kind": "time", "size": 9}, np.zeros(1), np.zeros(1))


def test_a_changed_column_is_other_content() -> None:
    """The fingerprint of a log leaves further columns out, and an interrupted run would go on with other ratings."""
    log, table = make_log(), make_log().table
    other = load_interactions(table.set_column(3, "stars", pa.array([1, 4, None, 5, 4, 5])))
    found = input_content(["time_gap", "stars"], log)
    assert list(found) == ["input stars"] and found == input_content(["stars"], make_log())
    assert log.fingerprint == other.fingerprint and found != input_content(["stars"], other)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_gaps_do_not_depend_on_the_unit_of_the_times(unit: str, inputs: list[dict]) -> None:
    """A checkpoint trained on seconds is fine-tuned on a log in milliseconds, or asked with datetimes."""
    moments = pa.array([1_714_000_000, 1_714_000_003, 1_714_086_403], pa.timestamp("s")).cast(pa.timestamp(unit))
    for times in (moments.cast(pa.int64()), moments.cast(pa.timestamp("us"))):
        table = {"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": times, "stars": [5, 5, 4]}
        log = load_interactions(pa.table(table))
        assert to_sequences(log, TOKENIZER, inputs=inputs)[0]["inputs"]["time_gap"] == [0, 3, 18]
        assert np.diff(seconds(log.table["timestamp"])).tolist() == [3.0, 86400.0]
