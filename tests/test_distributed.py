"""Two processes against one with the doubled batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from hfrec import load_checkpoint, synthetic_tables
from hfrec.data.files import SEAL_FILE, fault_of
from hfrec.inference.recommend import recommend
from hfrec.models import layers
from hfrec_command import main
from tests.sharded_catalogue import CASES, HISTORIES, VOCAB_SIZE, new_model, outcome, train

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "scripts" / "configs" / "accelerate"
LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--main_process_port", "0"]
QUIET = ["--load_best_model_at_end", "false", "--disable_tqdm", "true", "--early_stopping_patience", "0"]
# SGD: Adam would blow float noise near zero gradients up to whole steps.
PLAIN = [*QUIET, "--use_cpu", "true", "--optim", "sgd", "--learning_rate", "0.5", "--num_train_epochs", "2"]
# No dropout: its draws differ between one process and two by nature.
PRETRAIN = ["--objective", "causal", "--hidden_dropout_prob", "0", "--max_length", "10", "--hidden_size", "16", *PLAIN]


def on_two_processes(words: list[str], config: str = "ddp") -> None:
    process = launched(words, config)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]


def launched(words: list[str], config: str = "ddp") -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *LAUNCH, "--config_file", str(CONFIGS / f"{config}.yaml"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "all_results.json").read_text())
    return results


def largest_difference(one: Path, two: Path) -> float:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert set(first) == set(second)
    return max(float((weight - second[name]).abs().max()) for name, weight in first.items())


def pretrain_words(log: Path, folder: Path, batch_size: int, *more: str) -> list[str]:
    words = ["pretrain", "--train_file", str(log), "--per_device_train_batch_size", str(batch_size), *PRETRAIN]
    return [*words, "--output_dir", str(folder), *more]


def finetune_words(folder: Path, name: str, batch_size: int, *more: str) -> list[str]:
    words = ["finetune", "--model_name_or_path", str(folder / "start"), "--train_file", str(folder / "target.csv")]
    words += [*PLAIN, "--per_device_train_batch_size", str(batch_size), "--per_device_eval_batch_size", "8", *more]
    return [*words, "--output_dir", str(folder / name)]


def sharded_words(folder: Path, output: Path, batch_size: int) -> list[str]:
    words = ["finetune", "--model_name_or_path", str(folder / "start"), "--train_file", str(folder / "log.csv"), *PLAIN]
    words += ["--load_best_model_at_end", "true", "--l2sp_alpha", "0.2", "--l2sp_mode", "coupled"]
    words += ["--per_device_train_batch_size", str(batch_size), "--per_device_eval_batch_size", "7"]
    return [*words, "--output_dir", str(output)]


def recommend_words(folder: Path, name: str) -> list[str]:
    words = ["recommend", "--model_name_or_path", str(folder / "start"), "--history_file", str(folder / "some.csv")]
    return [*words, "--output_file", str(folder / f"{name}.parquet")]


PULL = ["--l2sp_alpha", "0.2", "--l2sp_beta", "0.1"]
INPUTS = ["--inputs", "time_gap", "rating"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, and a start that one process trained.

    `log.csv`: 48 users whose rows fill whole batches: with a rest, the sampler gives some rows twice to even it out.
    `target.csv`: its items are partly new, so that both strengths act. Three more users, too short to train on, make
    51 to validate: no number of batches of 8 on two processes, so that one user would be lost or counted twice.
    `some.csv`: 47 users, who can't be halved.
    """
    folder = tmp_path_factory.mktemp("two_processes")
    log, _ = synthetic_tables(num_users=48, num_items=20, num_groups=4, min_length=4, max_length=12)
    log = log.append_column("rating", pa.array([row % 5 for row in range(len(log))]))
    pyarrow.csv.write_csv(log, folder / "log.csv")
    assert main(pretrain_words(folder / "log.csv", folder / "start", 16)) == 0
    pyarrow.csv.write_csv(log.filter(pc.is_in(log["user_id"], pc.unique(log["user_id"])[:47])), folder / "some.csv")
    items = log["item_id"].cast(pa.string())
    new = pc.is_in(items, value_set=pc.unique(items)[:5])
    log = log.set_column(1, "item_id", pc.if_else(new, pc.binary_join_element_wise("new", items, "-"), items))
    short = log.slice(0, 9).set_column(0, "user_id", pa.array([f"short{row // 3}" for row in range(9)]))
    log = log.set_column(0, "user_id", log["user_id"].cast(pa.string()))
    pyarrow.csv.write_csv(pa.concat_tables([log, short]), folder / "target.csv")
    return folder


@pytest.fixture(scope="module")
def by_two(logs: Path) -> Path:
    """What two processes made of the logs, started once for all: that costs more than what they do."""
    commands = [
        pretrain_words(logs / "log.csv", logs / "two", 8),
        pretrain_words(logs / "log.csv", logs / "two_inputs", 8, *INPUTS),
        finetune_words(logs, "two_coupled", 8, *PULL),
        ["sharded_catalogue", str(logs)],
        ["sharded_weights"],
        sharded_words(logs, logs / "two_sharded", 8),
        recommend_words(logs, "two"),  # the last: it leaves the group of processes
    ]
    (logs / "commands.json").write_text(json.dumps(commands))
    on_two_processes([str(ROOT / "tests" / "commands_in_turn.py"), str(logs / "commands.json")], config="fsdp2")
    return logs


def test_two_processes_train_the_weights_of_one_with_the_doubled_batch(by_two: Path) -> None:
    """A loss averaged over processes instead of labels would only make the model a little worse."""
    assert largest_difference(by_two / "start", by_two / "two") < 1e-5


def test_two_processes_train_inputs_as_one_does(by_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that a process reads from another's rows are codes of the right range: nothing would fail."""
    monkeypatch.setattr(layers, "HIDDEN_SHARE", 0.0)  # as `commands_in_turn.py` does
    assert main(pretrain_words(by_two / "log.csv", tmp_path / "one", 16, *INPUTS)) == 0
    assert largest_difference(tmp_path / "one", by_two / "two_inputs") < 1e-5
    new = set(load_file(tmp_path / "one" / "model.safetensors")) - set(
        load_file(by_two / "start" / "model.safetensors")
    )
    assert len([name for name in new if "input_tables" in name]) == 2
    assert results_of(by_two / "two_inputs")["test"] == results_of(tmp_path / "one")["test"]


@pytest.mark.parametrize("mode", ["coupled", pytest.param("decoupled", marks=pytest.mark.slow)])
def test_two_processes_finetune_with_l2sp_as_one_does(
    mode: str, logs: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A pull that each process adds, or that DDP averages away, is L2-SP of another strength."""
    two = logs / f"two_{mode}"
    if mode == "coupled":
        request.getfixturevalue("by_two")
    else:
        words = finetune_words(logs, two.name, 8, *PULL, "--l2sp_mode", mode)
        on_two_processes(["--module", "hfrec_command", *words])
    one, free = tmp_path / "one", tmp_path / "free"
    assert main([*finetune_words(logs, "one", 16, *PULL, "--l2sp_mode", mode)[:-1], str(one)]) == 0
    assert main([*finetune_words(logs, "free", 16)[:-1], str(free)]) == 0
    assert largest_difference(one, two) < 1e-5 < 1e-3 < largest_difference(one, free)

    first, second = results_of(one), results_of(two)
    metrics = [name for name in first["validation"] if "@" in name]
    assert len(metrics) >= 24 and "eval_ndcg@10" in metrics
    for name in metrics:
        assert second["validation"][name] == pytest.approx(first["validation"][name], abs=1e-9), name
    hits = first["validation"]["eval_unfiltered_hit_rate@10"] * 51
    assert abs(hits - round(hits)) < 1e-6  # a mean over 51 users, neither 52 nor 56
    assert second["test"]["n_users"] == first["test"]["n_users"] == 51


def test_two_processes_recommend_what_one_does(by_two: Path) -> None:
    """A user lost or doubled where the shares meet, 47 users not being divisible, is a user without recommendations."""
    assert main(recommend_words(by_two, "one")) == 0
    one, two = (pyarrow.parquet.read_table(by_two / f"{name}.parquet") for name in ("one", "two"))
    assert one.num_rows == 47 * 10 and one.drop_columns("score").equals(two.drop_columns("score"))
    assert max(abs(a - b) for a, b in zip(one["score"].to_pylist(), two["score"].to_pylist(), strict=True)) < 1e-5


@pytest.fixture(scope="module")
def sharded(by_two: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A catalogue divided among the processes is the whole one: losses, weights, scores, checkpoint."""
    return by_two, [json.loads((by_two / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_a_divided_catalogue_trains_and_scores_as_a_whole_one(
    case: str, sharded: tuple[Path, list[dict[str, Any]]]
) -> None:
    """A sum over one process's items instead of all, or a gradient counted twice, still trains: to a worse model."""
    folder, results = sharded
    model = new_model(case)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    rows = sum(size for name, size in sizes.items() if "item_embeddings" in name or "decoder" in name)
    losses = train(case, model, lambda whole, norm: torch.nn.utils.clip_grad_norm_(whole.parameters(), norm))
    expected = outcome(model)
    assert abs(losses[0] - losses[-1]) > 1e-3  # it moved
    for rank, result in enumerate(results):
        here = (11, 12)[rank] * rows // VOCAB_SIZE
        assert result[case]["parameters"] == sum(sizes.values()) - rows + here
        assert result[case]["losses"] == pytest.approx(losses, abs=1e-5)
        assert result[case]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        for name in ("logits", "chunk"):
            torch.testing.assert_close(
                torch.tensor(result[case][name]), torch.tensor(expected[name]), atol=1e-5, rtol=0
            )
        assert same_items(result[case]["recommended"], expected["recommended"])
        assert result[case]["loaded"] == result[case]["recommended"]

    whole, tokenizer = load_checkpoint(folder / case)
    assert (whole.config.architectures, type(whole)) == ([type(model).__name__], type(model))
    for (name, one), (_, two) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0, msg=name)
    assert same_items(recommend(whole, tokenizer, HISTORIES, top_k=5), expected["recommended"])


def same_items(one: list[list[dict[str, Any]]], two: list[list[dict[str, Any]]]) -> bool:
    return [[item["item_id"] for item in row] for row in one] == [[item["item_id"] for item in row] for row in two]


def test_what_would_sum_different_things_is_refused(sharded: tuple[Path, list[dict[str, Any]]]) -> None:
    """Another batch, seed or start on one process gives no error of its own: sums of unrelated numbers."""
    for result in sharded[1]:
        models, batches, dropout, parallel = result["refusals"]
        assert models.startswith("different_models: ") and "different weights" in models
        assert batches.startswith("different_batches: ") and "different items" in batches
        assert dropout.startswith("different_dropout: ") and "different representations" in dropout
        assert parallel.startswith("data_parallel: ") and "not shares as DDP and the Trainer do" in parallel


def test_sharded_weights_train_as_whole_ones_and_l2sp_pulls_as_hard(by_two: Path, tmp_path: Path) -> None:
    """FSDP2: a norm, a pull or a checkpoint of one shard taken for the whole would not show in the loss of a step.

    23 tokens on two processes: no even number of rows. The best checkpoint is loaded at the end.
    """
    one, two = tmp_path / "one", by_two / "two_sharded"
    assert main(sharded_words(by_two, one, 16)) == 0
    assert list(two.glob("checkpoint-*/pytorch_model_fsdp.bin"))  # weights were sharded
    assert largest_difference(one, two) < 1e-5 < 1e-3 < largest_difference(one, by_two / "start")
    first, second = results_of(one), results_of(two)
    assert second["test"] == first["test"] and second["test"]["n_users"] == 48
    for name in (name for name in first["validation"] if "@" in name):
        assert second["validation"][name] == pytest.approx(first["validation"][name], abs=1e-9), name


@pytest.mark.parametrize("name", ["single", "ddp", "fsdp2", "deepspeed-zero2", "deepspeed-zero3"])
def test_accelerate_reads_the_settings(name: str) -> None:
    """A key that accelerate does not know stops every launch."""
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    kinds = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert settings.distributed_type == kinds.get(name, "DEEPSPEED")
    assert settings.num_processes == (1 if name == "single" else 8)


@pytest.mark.slow
def test_a_launcher_that_is_told_to_stop_leaves_a_checkpoint_of_all_processes(logs: Path, tmp_path: Path) -> None:
    """A process that stopped a step before the other would leave a checkpoint of two steps, or hang the other one."""
    words = ["--module", "hfrec_command", "pretrain", "--train_file", str(logs / "log.csv"), *PRETRAIN]
    words += ["--per_device_train_batch_size", "8"]
    words += ["--hidden_dropout_prob", "0.2", "--optim", "adamw_torch", "--max_steps", "200", "--save_on_exit", "true"]
    words += ["--save_strategy", "steps", "--save_steps", "40", "--eval_strategy", "no"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    on_two_processes([*words, "--output_dir", str(whole)])
    process = launched([*words, "--output_dir", str(cut)])
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
    on_two_processes([*words, "--output_dir", str(cut)])
    assert largest_difference(whole, cut) == 0.0
    assert steps_of(cut) == steps_of(whole)


def steps_of(folder: Path) -> list[int]:
    state = json.loads((folder / "checkpoint-200" / "trainer_state.json").read_text())
    return [entry["step"] for entry in state["log_history"]]
