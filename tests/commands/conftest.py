"""One small log and one small trained checkpoint for all tests of the commands."""

from pathlib import Path

import pyarrow.csv
import pytest

from hfrec import synthetic_tables
from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14)
    path = tmp_path_factory.mktemp("log") / "interactions.csv"
    pyarrow.csv.write_csv(log, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "pretrained"
    words = ["pretrain", "--train_file", str(log_file), "--output_dir", str(folder), "--num_train_epochs", "2"]
    assert main([*words, *TINY, *QUIET]) == 0
    return folder
