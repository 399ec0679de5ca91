"""What a command says when it is told to stop, and what stands in its last line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfrec.training.checkpoints import last_whole_checkpoint

ROOT = Path(__file__).parents[2]
WORDS = ["pretrain", "--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]
WORDS += ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2"]
WORDS += ["--per_device_train_batch_size", "16", "--early_stopping_patience", "0"]


def start(log: Path, folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "import sys; from hfrec_command import main; sys.exit(main())", *WORDS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command += ["--train_file", str(log), "--output_dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_where_it_goes_on(number: int, code: int, log_file: Path, tmp_path: Path) -> None:
    """A traceback of forty lines says nothing of the checkpoint, and SIGTERM said nothing at all."""
    folder = tmp_path / "run"
    process = start(log_file, folder, "--num_train_epochs", "100000")
    while not list(folder.glob("checkpoint-*/sha256.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    last = errors.splitlines()[-1]
    assert process.returncode == code
    assert last.startswith("hfrec pretrain: interrupted. The last checkpoint is ")
    assert last.endswith(f"{last_whole_checkpoint(folder)}; the same command goes on from it.")
    assert "Traceback" not in errors
    assert not (folder / "_lock").exists()


def test_the_reason_is_the_last_line(log_file: Path, tmp_path: Path) -> None:
    """A progress bar that is drawn when the process ends hides the reason."""
    process = start(log_file, tmp_path / "run", "--learning_rate", "1e30", "--max_grad_norm", "0")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "are no longer finite" in errors.splitlines()[-1]
