"""Streamed sources: tokens of the joined vocabulary, shares by the temperature, and the same rows as in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfrec.data.shards import StreamedBatches

BLOCKS = {"big": (3, 103), "small": (103, 113)}
SIZES = {"big": 90, "small": 10}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Row `i` of a source is its item `i`, twice, in row groups of 7."""
    found = []
    for name, size in SIZES.items():
        rows = pa.array([[3 + number] * 2 for number in range(size)], pa.list_(pa.int32()))
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"input_ids": rows}), path, row_group_size=7)
        found.append(path)
    return found


def stream(files: list[Path], **settings: Any) -> StreamedBatches:
    def first_tokens(rows: Any) -> Any:
        return [int(row["input_ids"][0]) for row in rows]

    options = {"batch_size": 8, "vocab_size": 113, "max_length": 5, "blocks": list(BLOCKS.values()), **settings}
    return StreamedBatches(files, first_tokens, **options)


def drawn(batches: StreamedBatches, epoch: int) -> list[int]:
    batches.set_epoch(epoch)
    return [token for batch in batches for token in batch]


def test_tokens_are_those_of_the_joined_vocabulary(files: list[Path]) -> None:
    """Item 3 of the small source would be trained as item 3 of the big one."""
    assert sorted(drawn(stream(files), 0)) == [*range(3, 93), *range(103, 113)]
    assert stream(files).item_counts()[103:].tolist() == [2] * 10


def test_an_epoch_has_the_shares_of_the_temperature(files: list[Path]) -> None:
    """By hand: square roots of 90 and 10 are as 3 to 1; over three epochs no row is drawn twice more than another."""
    batches, counts = stream(files, temperature=2.0), Counter[int]()
    for epoch in range(3):
        tokens = drawn(batches, epoch)
        assert len(tokens) == 100
        assert sum(token >= 103 for token in tokens) == 25
        counts.update(tokens)
    assert {counts[token] for token in range(103, 113)} <= {7, 8}
    assert {counts[token] for token in range(3, 93)} <= {2, 3}
    assert drawn(stream(files, temperature=2.0), 2) == drawn(batches, 2)


def test_processes_divide_an_epoch(files: list[Path]) -> None:
    """A row that two processes read, or none, is another epoch."""
    whole = Counter(drawn(stream(files, temperature=2.0), 1))
    parts = [drawn(stream(files, temperature=2.0, process=number, num_processes=2), 1) for number in range(2)]
    assert Counter([*parts[0], *parts[1]]) == whole


def test_tokens_outside_of_the_own_vocabulary_are_refused(files: list[Path]) -> None:
    """The items of a file that is larger than its vocabulary would fall into the next source."""
    with pytest.raises(ValueError, match=r"holds 53, expected token ids of items in 3\.\.52"):
        stream(files, blocks=[(3, 53), (53, 113)])
