"""Two processes against one with the doubled batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest
from safetensors.torch import load_file

from hfrec import synthetic_tables
from hfrec.data.files import SEAL_FILE, fault_of
from hfrec_command import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "scripts" / "configs" / "accelerate"
LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--main_process_port", "0"]
QUIET = ["--load_best_model_at_end", "false", "--disable_tqdm", "true", "--early_stopping_patience", "0"]
# SGD: Adam would blow float noise near zero gradients up to whole steps.
PLAIN = [*QUIET, "--use_cpu", "true", "--optim", "sgd", "--learning_rate", "0.5", "--num_train_epochs", "2"]
# No dropout: its draws differ between one process and two by nature.
PRETRAIN = ["--objective", "causal", "--hidden_dropout_prob", "0", "--max_length", "10", "--hidden_size", "16", *PLAIN]


def on_two_processes(script: str, words: list[str], config: str = "ddp") -> None:
    process = launched(script, words, config)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]


def launched(script: str, words: list[str], config: str = "ddp") -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [*LAUNCH, "--config_file", str(CONFIGS / f"{config}.yaml")]
    launched_file = [str(ROOT / f"{script}.py")] if "/" in script else ["--module", "hfrec_command", script]
    command = [sys.executable, *launch, *launched_file, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def largest_difference(one: Path, two: Path) -> float:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert set(first) == set(second)
    return max(float((weight - second[name]).abs().max()) for name, weight in first.items())


def log_of(path: Path) -> pa.Table:
    """48 users whose rows fill whole batches: with a rest, the sampler gives some rows twice to even it out."""
    log, _ = synthetic_tables(num_users=48, num_items=20, num_groups=4, min_length=4, max_length=12)
    pyarrow.csv.write_csv(log, path)
    return log


def test_two_processes_train_the_weights_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """A loss averaged over processes instead of labels would only make the model a little worse."""
    log_of(tmp_path / "log.csv")
    words = ["--train_file", str(tmp_path / "log.csv"), *PRETRAIN]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["pretrain", *words, "--per_device_train_batch_size", "16", "--output_dir", str(one)]) == 0
    on_two_processes("pretrain", [*words, "--per_device_train_batch_size", "8", "--output_dir", str(two)])
    assert largest_difference(one, two) < 1e-5


@pytest.mark.parametrize("mode", ["coupled", pytest.param("decoupled", marks=pytest.mark.slow)])
def test_two_processes_finetune_with_l2sp_as_one_does(mode: str, tmp_path: Path) -> None:
    """A pull that each process adds, or that DDP averages away, is L2-SP of another strength.

    The items of the target are partly new, so that both strengths act. Three more users, too short to train on, make
    51 to validate: no number of batches of 8 on two processes, so that one user would be lost or counted twice.
    """
    log = log_of(tmp_path / "source.csv")
    start, target = tmp_path / "start", tmp_path / "target.csv"
    assert main(["pretrain", "--train_file", str(tmp_path / "source.csv"), *PRETRAIN, "--output_dir", str(start)]) == 0
    items = log["item_id"].cast(pa.string())
    new = pc.is_in(items, value_set=pc.unique(items)[:5])
    log = log.set_column(1, "item_id", pc.if_else(new, pc.binary_join_element_wise("new", items, "-"), items))
    short = log.slice(0, 9).set_column(0, "user_id", pa.array([f"short{row // 3}" for row in range(9)]))
    log = log.set_column(0, "user_id", log["user_id"].cast(pa.string()))
    pyarrow.csv.write_csv(pa.concat_tables([log, short]), target)

    words = ["--model_name_or_path", str(start), "--train_file", str(target), *PLAIN, "--l2sp_mode", mode]
    pull = ["--l2sp_alpha", "0.2", "--l2sp_beta", "0.1", "--per_device_eval_batch_size", "8"]
    one, two, free = tmp_path / "one", tmp_path / "two", tmp_path / "free"
    whole = ["--per_device_train_batch_size", "16"]
    assert main(["finetune", *words, *pull, *whole, "--output_dir", str(one)]) == 0
    assert main(["finetune", *words, *whole, "--output_dir", str(free)]) == 0
    on_two_processes("finetune", [*words, *pull, "--per_device_train_batch_size", "8", "--output_dir", str(two)])
    assert largest_difference(one, two) < 1e-5 < 1e-3 < largest_difference(one, free)

    first, second = (json.loads((folder / "all_results.json").read_text()) for folder in (one, two))
    metrics = [name for name in first["validation"] if "@" in name]
    assert len(metrics) >= 24 and "eval_ndcg@10" in metrics
    for name in metrics:
        assert second["validation"][name] == pytest.approx(first["validation"][name], abs=1e-9), name
    hits = first["validation"]["eval_unfiltered_hit_rate@10"] * 51
    assert abs(hits - round(hits)) < 1e-6  # a mean over 51 users, neither 52 nor 56
    assert second["test"]["n_users"] == first["test"]["n_users"] == 51


def test_sharded_weights_train_as_whole_ones_and_l2sp_pulls_as_hard(tmp_path: Path) -> None:
    """FSDP2: a norm, a pull or a checkpoint of one shard taken for the whole would not show in the loss of a step.

    23 tokens on two processes: no even number of rows. The best checkpoint is loaded at the end.
    """
    log_of(tmp_path / "log.csv")
    start, one, two = (tmp_path / name for name in ("start", "one", "two"))
    words = ["--train_file", str(tmp_path / "log.csv")]
    assert main(["pretrain", *words, *PRETRAIN, "--output_dir", str(start)]) == 0
    words += [*PLAIN, "--load_best_model_at_end", "true", "--model_name_or_path", str(start)]
    words += ["--l2sp_alpha", "0.2", "--l2sp_mode", "coupled", "--per_device_eval_batch_size", "7"]
    assert main(["finetune", *words, "--per_device_train_batch_size", "16", "--output_dir", str(one)]) == 0
    words += ["--per_device_train_batch_size", "8", "--output_dir", str(two)]
    on_two_processes("tests/fsdp_on_cpu", ["finetune", *words], config="fsdp2")
    assert list(two.glob("checkpoint-*/pytorch_model_fsdp.bin"))  # weights were sharded
    assert largest_difference(one, two) < 1e-5 < 1e-3 < largest_difference(one, start)
    first, second = (json.loads((folder / "all_results.json").read_text()) for folder in (one, two))
    assert second["test"] == first["test"] and second["test"]["n_users"] == 48
    for name in (name for name in first["validation"] if "@" in name):
        assert second["validation"][name] == pytest.approx(first["validation"][name], abs=1e-9), name


def test_two_processes_recommend_what_one_does(tmp_path: Path) -> None:
    """A user lost or doubled where the shares meet, 47 users not being divisible, is a user without recommendations."""
    log = log_of(tmp_path / "log.csv")
    words = ["--train_file", str(tmp_path / "log.csv"), *PRETRAIN, "--output_dir", str(tmp_path / "model")]
    assert main(["pretrain", *words]) == 0
    users = pc.unique(log["user_id"])[:47]
    pyarrow.csv.write_csv(log.filter(pc.is_in(log["user_id"], value_set=users)), tmp_path / "some.csv")
    words = ["--model_name_or_path", str(tmp_path / "model"), "--history_file", str(tmp_path / "some.csv")]
    assert main(["recommend", *words, "--output_file", str(tmp_path / "one.parquet")]) == 0
    on_two_processes("recommend", [*words, "--output_file", str(tmp_path / "two.parquet")])
    one, two = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    assert one.num_rows == 47 * 10 and one.drop_columns("score").equals(two.drop_columns("score"))
    assert max(abs(a - b) for a, b in zip(one["score"].to_pylist(), two["score"].to_pylist(), strict=True)) < 1e-5


@pytest.mark.parametrize("name", ["single", "ddp", "fsdp2", "deepspeed-zero2", "deepspeed-zero3"])
def test_accelerate_reads_the_settings(name: str) -> None:
    """A key that accelerate does not know stops every launch."""
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    kinds = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert settings.distributed_type == kinds.get(name, "DEEPSPEED")
    assert settings.num_processes == (1 if name == "single" else 8)


@pytest.mark.slow
def test_a_launcher_that_is_told_to_stop_leaves_a_checkpoint_of_all_processes(tmp_path: Path) -> None:
    """A process that stopped a step before the other would leave a checkpoint of two steps, or hang the other one."""
    log_of(tmp_path / "log.csv")
    words = ["--train_file", str(tmp_path / "log.csv"), *PRETRAIN, "--per_device_train_batch_size", "8"]
    words += ["--hidden_dropout_prob", "0.2", "--optim", "adamw_torch", "--max_steps", "200", "--save_on_exit", "true"]
    words += ["--save_strategy", "steps", "--save_steps", "40", "--eval_strategy", "no"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    on_two_processes("pretrain", [*words, "--output_dir", str(whole)])
    process = launched("pretrain", [*words, "--output_dir", str(cut)])
    while not (cut / "checkpoint-40" / SEAL_FILE).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode and not (cut / "model.safetensors").exists()
    last = max(cut.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    step = int(last.name.rpartition("-")[2])
    assert 40 < step < 200 and fault_of(last) is None
    assert sorted(path.name for path in last.glob("rng_state_*")) == ["rng_state_0.pth", "rng_state_1.pth"]
    on_two_processes("pretrain", [*words, "--output_dir", str(cut)])
    assert largest_difference(whole, cut) == 0.0
    assert steps_of(cut) == steps_of(whole)


def steps_of(folder: Path) -> list[int]:
    state = json.loads((folder / "checkpoint-200" / "trainer_state.json").read_text())
    return [entry["step"] for entry in state["log_history"]]
