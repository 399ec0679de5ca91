"""`hfrec refresh --push_to_hub true`: one commit after the verdict, of what was judged."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv

from hfrec_command import main
from tests.hub.conftest import Client
from tests.hub.loopback import Hub
from tests.hub.test_training import RUN, SHAPE


def test_only_what_is_promoted_is_pushed_and_once(hub: Hub, client: Client, log_file: Path, tmp_path: Path) -> None:
    """Every epoch was published before the verdict, with the old card and the pickled arguments."""
    start = ["pretrain", "--train_file", str(log_file), "--output_dir", str(tmp_path / "old"), *SHAPE, *RUN]
    assert main(start) == 0
    times = sorted(pyarrow.csv.read_csv(log_file)["timestamp"].to_pylist())
    words = ["refresh", "--model_name_or_path", str(tmp_path / "old"), "--train_file", str(log_file), *RUN]
    words += ["--test_start", str(times[len(times) * 3 // 4]), "--n_bootstrap", "20", "--learning_rate", "0"]
    words += ["--push_to_hub", "true", "--hub_model_id", "ann/daily", "--new_item_start", "random", "--tag", "monday"]
    assert client("command", *words, "--output_dir", str(tmp_path / "new")) == 0
    assert hub.log("ann/daily") == ["Refresh with hfrec: promoted", "initial commit"]
    files = set(hub.files("ann/daily"))
    assert {"README.md", "all_results.json", "refresh_report.md", "model.safetensors", "items.parquet"} <= files
    assert "training_args.bin" not in files and not [name for name in files if name.startswith("checkpoint-")]
    card = hub.content("ann/daily", "README.md")
    assert b"Verdict: promote" in card and b"# ann/daily" in card
    assert hub.content("ann/daily", "model.safetensors") == (tmp_path / "new" / "model.safetensors").read_bytes()
    assert hub.files("ann/daily", "monday") == hub.files("ann/daily")
    # The same tag again: nothing is sent, and the folder says how to push it.
    assert client("command", *words, "--output_dir", str(tmp_path / "again")) == 1
    assert "`--tag` 'monday' is in ann/daily already" in client.printed()
    assert len(hub.log("ann/daily")) == 2
