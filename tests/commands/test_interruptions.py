"""What a command says when it is told to stop, and what stands in its last line."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hfrec.training.checkpoints import last_whole_checkpoint
from hfrec_command import main

ROOT = Path(__file__).parents[2]
WORDS = ["pretrain", "--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]
WORDS += ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2"]
WORDS += ["--per_device_train_batch_size", "16", "--early_stopping_patience", "0"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_where_it_goes_on(
    number: int, code: int, log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback of forty lines says nothing of the checkpoint, and SIGTERM said nothing at all."""
    folder = tmp_path / "run"

    def stop() -> None:
        while not list(folder.glob("checkpoint-*/sha256.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    words = ["--train_file", str(log_file), "--output_dir", str(folder), "--num_train_epochs", "100000"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    try:
        threading.Thread(target=stop, daemon=True).start()
        assert main([*WORDS, *words]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    errors = capsys.readouterr().err
    last = errors.splitlines()[-1]
    assert last.startswith("hfrec pretrain: interrupted. The last checkpoint is ")
    assert last.endswith(f"{last_whole_checkpoint(folder)}; the same command goes on from it.")
    assert "Traceback" not in errors
    assert not (folder / "_lock").exists()


def test_the_reason_is_the_last_line(log_file: Path, tmp_path: Path) -> None:
    """A progress bar that is drawn when the process ends hides the reason."""
    command = [sys.executable, "-c", "import sys; from hfrec_command import main; sys.exit(main())", *WORDS]
    command += ["--train_file", str(log_file), "--output_dir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--learning_rate", "1e30", "--max_grad_norm", "0"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    assert "are no longer finite" in done.stderr.splitlines()[-1]
