"""A log prepared out of core is the log in memory, and what is wrong with it is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import hfrec.data.readers as readers
from hfrec import (
    Interactions,
    ItemTokenizer,
    LogFilters,
    leave_one_out,
    load_interactions,
    to_evaluation_sequences,
    to_sequences,
)
from hfrec.data.large import prepare_sequences
from hfrec.training.rows import build_tokenizer
from hfrec_command import main


def random_log(*, seed: int = 0, rows: int = 900) -> pa.Table:
    """Ids with spaces and leading zeros, many ties in time, users of one and two interactions, items seen once."""
    draw = np.random.default_rng(seed)
    users = [f"0{user} é" for user in draw.geometric(0.04, rows)]
    items = [f"i {item}" for item in draw.geometric(0.06, rows)]
    return pa.table({"user_id": users, "item_id": items, "timestamp": draw.integers(0, 30, rows)})


def write_shards(log: pa.Table, folder: Path, kind: str) -> Path:
    folder.mkdir()
    for number, start in enumerate(range(0, len(log), 300)):
        path = folder / f"log-{number}.{kind}"
        piece = log.slice(start, 300)
        pq.write_table(piece, path) if kind == "parquet" else pyarrow.csv.write_csv(piece, path)
    return folder


def in_memory(log: Interactions) -> dict[str, pa.Table]:
    split = leave_one_out(log)
    tokenizer = build_tokenizer(split.train)
    return {
        "train": to_sequences(split.train, tokenizer).data.table,
        "validation": to_evaluation_sequences(split.train, split.validation, tokenizer).data.table,
        "test": to_evaluation_sequences(split.history, split.test, tokenizer).data.table,
        "items": tokenizer.items,
    }


def prepared(folder: Path) -> dict[str, pa.Table]:
    parts = {name: pq.read_table(folder / name) for name in ("train", "validation", "test")}
    return {**parts, "items": ItemTokenizer.from_pretrained(folder).items}


def check_equal(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> None:
    for name, table in expected.items():
        assert found[name].to_pydict() == table.to_pydict(), name
        assert found[name].column_names == table.column_names, name
    for name in ("train", "validation", "test"):
        kinds = {field.name: field.type for field in found[name].schema}
        assert kinds.pop("input_ids").value_type == pa.int32(), name
        assert kinds.pop("user_id") == pa.string() and set(kinds.values()) <= {pa.int32()}, name


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("core", [1, 4])
def test_out_of_core_equals_in_memory(kind: str, core: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another order, split or vocabulary than in memory would train another model without a word."""
    monkeypatch.setattr(readers, "PARQUET_BATCH_SIZE", 70)
    monkeypatch.setattr(readers, "CSV_BLOCK_SIZE", 1000)
    source = write_shards(random_log(), tmp_path / "log", kind)
    limits = {"min_user_interactions": core, "min_item_interactions": core}
    log = load_interactions(source, filters=LogFilters(**limits))
    stream = load_interactions(source, streaming=True)
    info = prepare_sequences(stream, tmp_path / "out", interactions_per_shard=100, **limits)
    assert len(list((tmp_path / "out" / "train").iterdir())) > 3
    check_equal(prepared(tmp_path / "out"), in_memory(log))
    report = leave_one_out(log).report.to_dict()
    for name in ("num_train", "num_validation", "num_test", "validation_tie_share", "test_tie_share"):
        assert info[name] == pytest.approx(report[name]), name
    facts = log.report.to_dict()
    for name in ("rows_read", "num_interactions", "num_users", "num_items", "core_rounds", "tied_interactions"):
        assert info[name] == facts[name], name

    again = prepare_sequences(stream, tmp_path / "again", **limits)
    assert again["fingerprint"] == info["fingerprint"]  # whatever the shards' sizes


@pytest.mark.parametrize("times", [["1", "2.5", "3"], ["2024-05-31T12:00:00", "2024-05-31T11:00:00Z", "2024-06-01"]])
def test_kinds_of_time(times: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of time that is guessed from the first piece would cut fractions, or sort dates as words."""
    monkeypatch.setattr(readers, "CSV_BLOCK_SIZE", 40)
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n" + "".join(f"u,item{n},{time}\n" for n, time in enumerate(times)))
    if "T" in times[0]:
        log.write_text(log.read_text().replace("Z", ""))
    prepare_sequences(load_interactions(log, streaming=True), tmp_path / "out")
    check_equal(prepared(tmp_path / "out"), in_memory(load_interactions(log)))


def test_a_bad_row_far_in_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row number counted from the piece that it is in sends people to another row."""
    monkeypatch.setattr(readers, "CSV_BLOCK_SIZE", 200)
    log = tmp_path / "log.csv"
    rows = [f"u{n},i{n},{n}" for n in range(99)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows, "u,i,soon", ""]))
    with pytest.raises(ValueError, match=r"log.csv, row 100 .*'soon', expected a number or an ISO time"):
        prepare_sequences(load_interactions(log, streaming=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stream_refuses_what_needs_the_whole_log(tmp_path: Path) -> None:
    """Half a log split or filtered as if it were the whole one gives wrong targets."""
    source = write_shards(random_log(), tmp_path / "log", "parquet")
    with pytest.raises(TypeError, match="hfrec prepare --layout sequences"):
        leave_one_out(load_interactions(source, streaming=True))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never has the whole log"):
        load_interactions(source, streaming=True, filters=LogFilters((), 2))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="in memory already"):
        load_interactions(pa.table({}), streaming=True)


def test_prepare_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that is ignored, or a missing library in a traceback, costs an evening."""
    source = write_shards(random_log(), tmp_path / "log", "csv")
    words = ["prepare", "--train_file", str(source), "--output_dir", str(tmp_path / "out"), "--layout", "sequences"]

    def refusal(*more: str) -> str:
        assert main([*words, *more]) == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "`--layout sequences` takes the log as it is" in refusal("--duplicates", "first")
    assert "`--where` ['user_id!=u']: filter the log before" in refusal("--where", "user_id!=u")
    assert "`--session_gap` 30m" in refusal("--session_gap", "30m")
    assert "divides by leave-one-out alone" in refusal("--protocol", "temporal")
    assert "every user was filtered out by `--min_user_interactions`=999" in refusal("--min_user_interactions", "999")
    assert "`--min_item_interactions` must be at least 1" in refusal("--min_item_interactions", "0")
    assert "column 'who' (`--user_column`) is missing" in refusal("--user_column", "who")
    monkeypatch.setitem(sys.modules, "polars", None)
    assert "pip install 'hfrec[large]'" in refusal()


def test_a_full_disk_is_told_in_the_words_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's errors are of no class that a command tells in one line."""

    def full(*arguments: Any, **settings: Any) -> None:
        raise pl.exceptions.ComputeError("No space left on device (os error 28)")

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"u,i{n},{n}\n" for n in range(9)))
    with pytest.raises(OSError, match=r"No space left on device .* Free disk space"):
        prepare_sequences(load_interactions(tmp_path / "log.csv", streaming=True), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
