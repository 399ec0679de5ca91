"""Streamed batches bring every row once, in an order that depends on the seed alone; layouts of plain SQL are read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from hfrec import ItemTokenizer, leave_one_out, load_interactions, to_evaluation_sequences, to_sequences
from hfrec.data.large import prepare_sequences
from hfrec.data.shards import INFO_FILE, SequenceShards, StreamedBatches
from hfrec.training.rows import build_tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "scaling.md"


def write_rows(folder: Path, rows: list[list[int]], *, shards: int = 3, group: int = 5) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part-{number}.parquet" for number in range(shards)]
    for number, path in enumerate(paths):
        lists = pa.array(rows[number::shards], pa.list_(pa.int32()))
        users = pa.array([f"u{row}" for row in range(len(lists))])
        pq.write_table(pa.table({"user_id": users, "input_ids": lists}), path, row_group_size=group)
    return paths


def batches(paths: list[Path], *, workers: int = 0, epoch: int = 0, **settings: Any) -> list[list[list[int]]]:
    options = {
        "batch_size": 4,
        "vocab_size": 10_000,
        "max_length": 6,
        "windows": "newest",
        "buffer_size": 7,
        **settings,
    }
    dataset = StreamedBatches(paths, lambda rows: [row["input_ids"].tolist() for row in rows], **options)  # type: ignore[arg-type, return-value]
    dataset.set_epoch(epoch)
    found = list(DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=list))
    assert len(found) == len(dataset)
    return found  # type: ignore[return-value]


def flat(found: list[list[list[int]]]) -> list[list[int]]:
    return sorted(row for batch in found for row in batch)


@pytest.mark.parametrize("num_rows", [1, 3, 8, 9, 16, 17, 18, 31, 40])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_each_row_once_and_equally_many_batches(num_rows: int, num_processes: int, tmp_path: Path) -> None:
    """A row twice or never skews what is learnt; a process with a batch more waits for the others for ever."""
    rows = [[3 + row] * (1 + row % 6) for row in range(num_rows)]
    paths = write_rows(tmp_path, rows)
    settings = [{"process": process, "num_processes": num_processes} for process in range(num_processes)]
    if num_rows < num_processes:
        with pytest.raises(ValueError, match="Give a larger log or fewer processes"):
            batches(paths, **settings[0])
        return
    for epoch in range(2):
        found = [batches(paths, epoch=epoch, **setting) for setting in settings]
        assert flat([batch for process in found for batch in process]) == sorted(rows)
        assert len({len(process) for process in found}) == 1
        assert all(batch for process in found for batch in process)
        assert max(len(batch) for process in found for batch in process) <= 5


def test_order_hangs_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    """An order that depends on the workers cannot be gone on with; one of every epoch gives the same masks again."""
    paths = write_rows(tmp_path, [[3 + row] for row in range(50)])
    first = batches(paths)
    assert batches(paths) == batches(paths, workers=2) == batches(paths, workers=3) == first
    others = [batches(paths, epoch=1), batches(paths, seed=1), batches(paths, buffer_size=50)]
    assert all(other != first and flat(other) == flat(first) for other in others)
    assert [row for batch in first for row in batch] != flat(first)  # shuffled at all


@pytest.mark.parametrize("windows", ["newest", "overlapping"])
def test_windows_are_those_of_sequences_in_memory(windows: Any, tmp_path: Path) -> None:
    """Streamed windows that lose the newest items train on the past."""
    draw = np.random.default_rng(0)
    log = pa.table({"user_id": draw.geometric(0.1, 400), "item_id": draw.integers(0, 30, 400), "timestamp": range(400)})
    interactions = load_interactions(log)
    tokenizer = build_tokenizer(interactions)
    expected = to_sequences(interactions, tokenizer, max_length=6, windows=windows)["input_ids"]
    paths = write_rows(tmp_path, to_sequences(interactions, tokenizer)["input_ids"][:])
    assert flat(batches(paths, windows=windows, vocab_size=len(tokenizer))) == sorted(expected)
    long = [row for row in expected if len(row) >= 4]
    assert flat(batches(paths, windows=windows, min_length=4)) == sorted(long)


@pytest.mark.parametrize(("rows", "reason"), [([[3, 99]], "holds 99"), ([[2]], "holds 2"), ([[3, None]], "nulls")])
def test_tokens_of_another_vocabulary_are_refused(rows: list[Any], reason: str, tmp_path: Path) -> None:
    """Shards beside the items of another preparation would train other items, or die hours later."""
    with pytest.raises(ValueError, match=f"part-0.parquet, row group 0.*{reason}"):
        batches(write_rows(tmp_path, rows, shards=1), vocab_size=50)


def test_what_is_no_prepared_folder(tmp_path: Path) -> None:
    """A raw log taken for sequences would fail somewhere in the reader."""
    with pytest.raises(FileNotFoundError, match="hfrec prepare --layout sequences"):
        SequenceShards(tmp_path)
    ItemTokenizer.from_items(["a"]).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train holds no \.parquet file"):
        SequenceShards(tmp_path)
    write_rows(tmp_path / "train", [[3]])
    write_rows(tmp_path / "validation", [[3]])
    with pytest.raises(ValueError, match="expected the columns user_id, input_ids, target, found user_id, input_ids"):
        SequenceShards(tmp_path)


def test_a_layout_that_plain_sql_wrote(tmp_path: Path) -> None:
    """SQL in the documentation that gives another split or order than hfrec poisons every result on it."""
    draw = np.random.default_rng(1)
    log = pa.table(
        {
            "user_id": [f"u{user}" for user in draw.geometric(0.05, 600)],
            "item_id": [f"i{item}" for item in draw.geometric(0.05, 600)],
            "timestamp": draw.integers(0, 20, 600),
        }
    )
    sql = re.search(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert sql is not None
    frame = pl.from_arrow(log)
    assert isinstance(frame, pl.DataFrame)
    engine = pl.SQLContext(log=frame.with_row_index("place"), eager=True)
    for statement in re.sub(r"--.*", "", sql.group(1)).split(";"):
        if statement.strip():
            engine.execute(statement)
    for name in ("train", "validation", "test"):
        (tmp_path / name).mkdir()
        engine.execute(f"SELECT * FROM {name}").write_parquet(tmp_path / name / "part-0.parquet")
    engine.execute("SELECT item_id, count FROM items ORDER BY token_id").write_parquet(tmp_path / "items.parquet")

    shards = SequenceShards(tmp_path)
    split = leave_one_out(load_interactions(log))
    tokenizer = build_tokenizer(split.train)
    assert shards.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert shards.tokenizer.items.to_pydict() == tokenizer.items.to_pydict()
    train = to_sequences(split.train, tokenizer)
    assert pq.read_table(tmp_path / "train")["input_ids"].to_pylist() == train["input_ids"][:]
    histories = {"validation": split.train, "test": split.history}
    for name, history in histories.items():
        expected = to_evaluation_sequences(history, getattr(split, name), tokenizer)
        found = shards.targets(name)  # type: ignore[arg-type]
        for column in ("user_id", "input_ids", "target"):
            assert found[column][:] == expected[column][:], (name, column)
    read = batches(shards.files("train"), vocab_size=len(tokenizer), max_length=1000)
    assert flat(read) == sorted(train["input_ids"])


def test_a_changed_description_is_refused(tmp_path: Path) -> None:
    """A count that was changed in `dataset_info.json` stood in the results of the run."""
    log = pa.table({"user_id": ["u"] * 4, "item_id": list("abca"), "timestamp": [1, 2, 3, 4]})
    pq.write_table(log, tmp_path / "log.parquet")
    folder = tmp_path / "sequences"
    prepare_sequences(load_interactions(tmp_path / "log.parquet", streaming=True), folder)
    SequenceShards(folder)
    info = json.loads((folder / INFO_FILE).read_text())
    (folder / INFO_FILE).write_text(json.dumps({**info, "num_users": 7}))
    with pytest.raises(ValueError, match=r"not as it was saved: dataset_info\.json damaged"):
        SequenceShards(folder)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_shard_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    """A pipe in the place of a shard was waited for without end."""
    ItemTokenizer.from_items(["a"]).save_pretrained(tmp_path)
    path = write_rows(tmp_path / "train", [[3]])[0]
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("gone")
    with pytest.raises(ValueError, match=f"{path.name} is no file"):
        SequenceShards(tmp_path)
