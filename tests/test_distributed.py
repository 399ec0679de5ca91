"""Two processes against one with the doubled batch."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.csv
from safetensors.torch import load_file

from hfrec import synthetic_tables

ROOT = Path(__file__).parent.parent
# `--multi_gpu` is accelerate's name for its torchrun launcher; `--cpu` starts one process whatever `--num_processes`.
LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def run(words: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_train_the_weights_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """A loss averaged over processes instead of labels would only make the model a little worse.

    The rows fill whole batches: with a rest, the sampler gives some rows twice to even the processes out.
    """
    log, _ = synthetic_tables(num_users=48, num_items=20, num_groups=4, min_length=4, max_length=12)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    script = [str(ROOT / "scripts" / "pretrain.py"), "--train_file", str(tmp_path / "log.csv"), "--objective", "causal"]
    # No dropout: its draws differ between one process and two by nature.
    script += ["--hidden_dropout_prob", "0", "--max_length", "10", "--hidden_size", "16", "--num_train_epochs", "2"]
    script += ["--load_best_model_at_end", "false", "--disable_tqdm", "true", "--early_stopping_patience", "0"]
    script += ["--use_cpu", "true"]
    # SGD: Adam would blow float noise near zero gradients up to whole steps.
    script += ["--optim", "sgd", "--learning_rate", "0.5"]
    run([*script, "--per_device_train_batch_size", "16", "--output_dir", str(tmp_path / "one")])
    run([*LAUNCH, *script, "--per_device_train_batch_size", "8", "--output_dir", str(tmp_path / "two")])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-5, name
