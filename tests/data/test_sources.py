"""Equal ids of two sources never meet, and each raw id can be found again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from hfrec import ItemTokenizer, load_interactions
from hfrec.data.sequences import to_evaluation_sequences, to_sequences
from hfrec.data.source_names import check_source_names, source_names
from hfrec.data.sources import JoinedSources, join_tokenizers
from hfrec.data.splits import leave_one_out
from hfrec.training.rows import build_tokenizer


def a_log(items: str, times: Any = None, metadata: Any = None) -> Any:
    number = len(items)
    log = pa.table({"user_id": ["1"] * number, "item_id": list(items), "timestamp": times or list(range(number))})
    return load_interactions(log, items=metadata)


@pytest.fixture
def joined() -> JoinedSources:
    first = a_log("abcab", metadata=pa.table({"item_id": ["a", "b"], "title": ["tea", "pot"]}))
    dates = [datetime(2020, 1, day) for day in range(1, 7)]
    second = a_log("bbbaca", dates, pa.table({"item_id": ["a"], "brand": ["x"]}))
    splits = {"shop": leave_one_out(first), "shop2": leave_one_out(second)}
    return JoinedSources(splits, {name: build_tokenizer(split.train) for name, split in splits.items()})


def test_equal_ids_are_two_users_and_two_items(joined: JoinedSources) -> None:
    """One token for two items of the same id would mix what two shops sell."""
    table = joined.tokenizer.items
    assert table["item_id"].to_pylist() == ["shop:a", "shop:b", "shop:c", "shop2:b", "shop2:a"]
    assert table["source"].to_pylist() == ["shop"] * 3 + ["shop2"] * 2
    assert table["source_item_id"].to_pylist() == ["a", "b", "c", "b", "a"]
    assert table["count"].to_pylist() == [1, 1, 1, 3, 1]
    assert table["title"].to_pylist() == ["tea", "pot", None, None, None]
    assert table["brand"].to_pylist() == [None, None, None, None, "x"]
    assert joined.blocks == {"shop": (3, 6), "shop2": (6, 8)}
    rows = to_sequences(joined.split.train, joined.tokenizer)
    assert rows["input_ids"][:] == [[3, 4, 5], [6, 6, 6, 7]]
    assert rows["user_id"][:] == ["shop:1", "shop2:1"]


def test_the_joined_log_keeps_the_order_of_each_source(joined: JoinedSources) -> None:
    """Times of another unit beside each other must not reorder anybody's history; unknown targets stay misses."""
    rows = to_evaluation_sequences(joined.split.history, joined.split.test_targets, joined.tokenizer)
    assert {row["user_id"]: (row["input_ids"], row["target"]) for row in rows} == {
        "shop:1": ([3, 4, 5, 3], 4),
        "shop2:1": ([6, 6, 6, 7], 7),
    }
    validation = to_evaluation_sequences(joined.split.train, joined.split.validation_targets, joined.tokenizer)
    assert validation["target"][:] == [3, 2]  # `c` is not in the training part of shop2
    assert joined.split.report.num_train == 7
    assert joined.facts()["shop2"]["items"] == 2


def test_names_come_from_files_or_folders() -> None:
    """Two sources under one name would be one catalogue."""
    assert source_names(["a/log.csv", "b/log.parquet"]) == ["a", "b"]
    assert source_names(["x:y.csv", "z.csv"]) == ["x-y", "z"]
    with pytest.raises(ValueError, match="--source_names"):
        source_names(["a/log.csv", "a/log.csv"])
    for names, found in ((["a", "a"], "2 times"), (["a:b", "c"], "with a colon"), (["", "c"], "empty")):
        with pytest.raises(ValueError, match=found):
            check_source_names(names)


def test_sources_that_cannot_be_joined_are_refused() -> None:
    """A source of one item has nothing to rank; columns of two types have no common meaning."""
    two = ItemTokenizer.from_items(["a", "b"], metadata=pa.table({"item_id": ["a"], "year": [1999]}))
    other = ItemTokenizer.from_items(["a", "b"], metadata=pa.table({"item_id": ["a"], "year": [["x"]]}))
    with pytest.raises(ValueError, match="'tiny' has 1 item"):
        join_tokenizers({"shop": two, "tiny": ItemTokenizer.from_items(["a"])})
    with pytest.raises(ValueError, match="disagree about a column's type"):
        join_tokenizers({"shop": two, "else": other})
    with pytest.raises(ValueError, match="at least two sources, found 1"):
        join_tokenizers({"shop": two})
