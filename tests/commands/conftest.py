"""One small log and one small trained checkpoint for all tests of the commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


@pytest.fixture(scope="session")
def log_file(write_log: Callable[..., Path]) -> Path:
    return write_log("interactions.csv", num_users=60, num_items=30, min_length=5)


@pytest.fixture(scope="session")
def checkpoint(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "pretrained"
    words = ["pretrain", "--train_file", str(log_file), "--output_dir", str(folder), "--num_train_epochs", "2"]
    assert main([*words, *TINY, *QUIET]) == 0
    return folder
