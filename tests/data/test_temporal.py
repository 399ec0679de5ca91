"""The temporal protocol: who is in which part, what is a target, and what cannot be divided."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from hfrec.data.arguments import ProtocolArguments, SplitArguments
from hfrec.data.interactions import Interactions, load_interactions, timestamps_to_numpy
from hfrec.data.sequences import to_evaluation_sequences
from hfrec.data.splits import leakage_audit, leave_one_out, split_facts
from hfrec.data.temporal import (
    new_items,
    new_users,
    split_log,
    temporal_split,
)
from hfrec.tokenization import ItemTokenizer

# (user, item, time): validation from 10, test from 20. w comes with validation, x and y with the test.
ROWS = [
    ("u", "a", 1),
    ("u", "b", 5),
    ("u", "c", 10),
    ("u", "a", 12),
    ("u", "d", 20),
    ("u", "a", 21),
    ("v", "b", 2),
    ("v", "c", 9),
    ("v", "new", 30),
    ("w", "a", 11),
    ("w", "b", 25),
    ("x", "b", 22),
    ("x", "c", 23),
    ("y", "new", 24),
    ("z", "d", 3),
]


def log(rows: list[tuple[str, str, int]] = ROWS) -> Interactions:
    users, items, times = zip(*rows, strict=True)
    return load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))


def pairs(part: Interactions) -> list[str]:
    names = (part.table[name].to_pylist() for name in ("user_id", "item_id"))
    return [user + ":" + item for user, item in zip(*names, strict=True)]


def test_targets_and_histories_by_hand() -> None:
    """A target from the middle of the test has a history that nobody knew when the test began."""
    split = temporal_split(log(), validation_start=10, test_start=20)
    assert pairs(split.train) == ["u:a", "u:b", "v:b", "v:c", "z:d"]
    assert pairs(split.validation) == ["u:c", "u:a", "w:a"]
    assert pairs(split.validation_targets) == ["u:c", "w:a"]
    assert pairs(split.test_targets) == ["u:d", "v:new", "w:b", "x:b", "y:new"]
    tokenizer = ItemTokenizer.from_items(list("abcd"))
    validation = to_evaluation_sequences(split.train, split.validation_targets, tokenizer)
    assert validation["input_ids"][:] == [[3, 4], []] and validation["target"][:] == [5, 3]
    test = to_evaluation_sequences(split.history, split.test_targets, tokenizer)
    assert test["input_ids"][:] == [[3, 4, 5, 3], [4, 5], [3], [], []]
    assert test["target"][:] == [6, tokenizer.unk_token_id, 4, 4, tokenizer.unk_token_id]


def test_newcomers_are_counted() -> None:
    """A miss that no model can avoid would be blamed on the model."""
    split = temporal_split(log(), validation_start=10, test_start=20)
    assert new_users(split) == 2  # x and y; w has a history from the validation part
    assert new_items(split, split.test_targets) == 2  # of v and y


@pytest.mark.parametrize("kind", ["numbers", "datetimes"])
def test_nothing_trains_that_is_later_than_the_start(kind: str) -> None:
    """A model that has seen the time after the cut has seen the fashion of the test."""
    rng = np.random.default_rng(0)
    times: list[object] = [int(second) for second in rng.integers(10**9, 10**9 + 10**6, 500)]
    if kind == "datetimes":
        times = [datetime.fromtimestamp(second) for second in times]
    users, items = rng.integers(0, 40, 500).astype(str).tolist(), rng.integers(0, 30, 500).astype(str).tolist()
    whole = load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))
    split = split_log(whole, SplitArguments(protocol="temporal"))
    parts = [timestamps_to_numpy(part.table["timestamp"]) for part in (split.train, split.validation, split.test)]
    assert parts[0].max() < parts[1].min() and parts[1].max() < parts[2].min()
    assert [len(part) for part in parts] == [400, 50, 50], "a tenth each"
    assert leakage_audit(split).future_train_share == 0.0 and split_facts(split)["leakage"]["is_clean"]
    # The starts that the report tells are flags that give the same split.
    flags = {name: str(getattr(split.report, name)) for name in ("validation_start", "test_start")}
    assert split_log(whole, SplitArguments(protocol="temporal", **flags)).report == split.report  # type: ignore[arg-type]


def test_ratios_are_shares_of_the_interactions() -> None:
    """A share of the span would put half of a log that grows into the test."""
    times = [*range(80), *range(1000, 1020)]
    whole = log([("u" + str(time % 7), "a", time) for time in times])
    split = split_log(whole, SplitArguments(protocol="temporal", validation_ratio=0.1, test_ratio=0.2))
    assert (len(split.train), len(split.validation), len(split.test)) == (70, 10, 20)
    assert (split.report.validation_start, split.report.test_start) == (70, 1000)


def test_leave_one_out_is_as_it_was() -> None:
    """Existing results must stay what they are."""
    assert split_log(log(), ProtocolArguments()).report == leave_one_out(log()).report


def test_ties_in_time_are_those_among_a_part() -> None:
    """A target that the order of the file chose must be told as such; no tie crosses the cut."""
    rows = [("u", "a", 1), ("u", "b", 5), ("u", "c", 9), ("u", "d", 9), ("v", "a", 9), ("v", "b", 10)]
    report = temporal_split(log(rows), validation_start=5, test_start=9).report
    assert (report.validation_tie_share, report.test_tie_share) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"test_start": "20"}, "`test_start` need `--protocol temporal`"),
        ({"protocol": "temporal", "test_start": "20", "test_ratio": 0.1}, "say the same twice"),
        ({"protocol": "temporal", "test_ratio": 1.5}, r"must lie in \(0, 1\)"),
    ],
)
def test_flags_that_do_not_fit(flags: dict[str, object], expected: str) -> None:
    """A start that is ignored gives another test than was asked for."""
    with pytest.raises(ValueError, match=expected):
        ProtocolArguments(**flags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ({"test_start": 31}, "`test_start` must lie after the first .* the log runs from 1 to 30"),
        ({"test_start": 20, "validation_start": 1}, "`validation_start` must lie after the first"),
        ({"test_start": 10, "validation_start": 20}, "must be before `test_start`"),
        ({"test_start": 10, "validation_start": 10}, "must be before `test_start`"),
        ({"test_start": 20, "validation_start": 15}, "nothing is left to validate on"),
        ({"test_start": "soon"}, "`test_start` must be a number like the log's times"),
        ({"test_ratio": 0.01}, "leave a part empty"),
        ({"test_ratio": 0.9, "validation_ratio": 0.5}, "leave a part empty"),
    ],
)
def test_starts_that_leave_nothing(starts: dict[str, object], expected: str) -> None:
    """An empty part gives a number that means nothing."""
    with pytest.raises(ValueError, match=expected):
        temporal_split(log(), **starts)  # type: ignore[arg-type]


def test_places_in_a_sequence_are_no_times(caplog: pytest.LogCaptureFixture) -> None:
    """A cut through places holds out the longest histories, and looks like a split in time."""
    rows = [(f"u{user}", f"i{place}", place) for user in range(12) for place in range(user + 2)]
    split_log(log(rows), SplitArguments(protocol="temporal"))
    assert "places in each user's sequence" in caplog.text
