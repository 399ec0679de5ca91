"""Logs that live on the hub: read by name and revision, and named in the card of what was trained on them."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from hfrec import load_interactions, synthetic_tables
from tests.hub.conftest import Client
from tests.hub.loopback import Hub


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.fixture
def log(hub: Hub) -> pa.Table:
    """Two shards under the tag v1; main has lost one."""
    table, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14)
    if ("datasets", "ann/clicks") not in hub.repositories:
        half = len(table) // 2
        shards = {"data/train-00000-of-00002.parquet": parquet(table.slice(0, half))}
        whole = {**shards, "data/train-00001-of-00002.parquet": parquet(table.slice(half))}
        sha = hub.seed("ann/clicks", whole, kind="datasets")
        hub.repository("ann/clicks", "datasets").tags["v1"] = sha
        hub.seed("ann/clicks", shards, kind="datasets")
    return table


def test_a_log_of_the_hub_is_that_of_its_revision(log: pa.Table, client: Client) -> None:
    """A data set that moves under a name makes every number of a paper unrepeatable."""
    pinned = client("interactions", "ann/clicks@v1")
    assert pinned == {"rows": len(log), "fingerprint": load_interactions(log).fingerprint}
    assert client("interactions", "ann/clicks")["rows"] == len(log) // 2


def test_a_log_of_the_hub_is_streamed_at_its_revision(log: pa.Table, client: Client) -> None:
    """A stream that reads another revision, or one shard of two, trains on another log."""
    expected = [list(row.values()) for row in log.select(["user_id", "item_id", "timestamp"]).to_pylist()]
    assert client("streamed_interactions", "ann/clicks", "v1") == expected
    assert client("streamed_interactions", "ann/clicks", "main") == expected[: len(log) // 2]


@pytest.mark.slow
def test_a_run_on_it_says_so_in_its_card(log: pa.Table, hub: Hub, client: Client, tmp_path: Path) -> None:
    """A card that names no data set is found by nobody who looks for models trained on it."""
    words = ["pretrain", "--dataset", "ann/clicks@v1", "--output_dir", str(tmp_path / "run"), "--max_length", "12"]
    words += ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_train_epochs", "1", "--disable_tqdm", "true"]
    words += ["--push_to_hub", "true", "--hub_model_id", "ann/on-clicks", "--hub_strategy", "end"]
    assert client("command", *words) == 0
    assert ModelCard.load(tmp_path / "run" / "README.md").data.datasets == ["ann/clicks"]
    entry = hub.content("ann/on-clicks", ".eval_results/hfrec.yaml").decode()
    assert "id: ann/clicks" in entry
    assert "revision: v1" in entry
