"""Options of the Trainer that save time or memory: the model that comes out is the one of a plain run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hfrec import leave_one_out, load_interactions
from hfrec.models import layers
from hfrec.training import cpu
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec_command import main

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "2", "--num_train_epochs", "2"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0", "--use_cpu", "true"]
# Neither depends on which rows share a batch: no dropout, and only the newest item of each row is masked.
EXACT = ["--hidden_dropout_prob", "0", "--mask_last_probability", "1"]


@pytest.fixture(scope="module")
def log_file(write_log: Callable[..., Path]) -> Path:
    return write_log("log.csv", num_users=45, num_items=30, min_length=4)


def pretrain(log: Path, folder: Path, *words: str) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights at the end, and the training loss of each epoch."""
    command = ["pretrain", "--train_file", str(log), "--output_dir", str(folder), *TINY, *QUIET, *words]
    assert main(command) == 0
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return load_file(last / "model.safetensors"), [row["loss"] for row in history if "loss" in row]


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_accumulated_halves_are_the_whole_batch(objective: str, log_file: Path, tmp_path: Path) -> None:
    """Halves with unequal numbers of labels, each averaged alone, would weigh the labels of one half more."""
    words = ["--objective", objective, *EXACT, "--optim", "sgd", "--learning_rate", "0.5"]
    whole, losses = pretrain(log_file, tmp_path / "whole", *words, "--per_device_train_batch_size", "16")
    halves = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2"]
    weights, halved = pretrain(log_file, tmp_path / "halves", *words, *halves)
    assert halved == pytest.approx(losses, rel=1e-5) and losses[1] < losses[0]
    torch.testing.assert_close(weights, whole, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_checkpointed_activations_change_nothing(objective: str, log_file: Path, tmp_path: Path) -> None:
    """A forward pass done again with other dropout masks trains on gradients of another function."""
    words = ["--objective", objective, "--per_device_train_batch_size", "16"]
    plain, losses = pretrain(log_file, tmp_path / "plain", *words)
    weights, again = pretrain(log_file, tmp_path / "again", *words, "--gradient_checkpointing", "true")
    assert again == losses
    torch.testing.assert_close(weights, plain, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("objective", "loss"), [("masked", "chunked"), ("causal", "full"), ("causal", "sampled_softmax")]
)
def test_bf16_trains_the_model_of_float32(objective: str, loss: str, log_file: Path, tmp_path: Path) -> None:
    """A loss or a mask that overflows in bf16, or weights kept in it, shows on a GPU first: 8 bits give 1 %."""
    words = ["--objective", objective, "--loss", loss, "--per_device_train_batch_size", "16"]
    plain, losses = pretrain(log_file, tmp_path / "float32", *words)
    weights, narrow = pretrain(log_file, tmp_path / "bf16", *words, "--bf16", "true")
    assert narrow == pytest.approx(losses, rel=0.01) and narrow != losses
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    # Adam moves a weight by up to the learning rate a step, whichever way a rounded gradient points.
    torch.testing.assert_close(weights, plain, rtol=0.0, atol=2 * 6 * 1e-3)


@pytest.mark.parametrize(
    ("flags", "warned"), [("avx2 avx_vnni", 1), ("avx2 avx512_bf16", 0), ("asimd bf16", 0), (None, 0)]
)
def test_bf16_on_a_cpu_without_it_is_said_once(
    flags: str | None, warned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A flag that is meant to save time makes a step 8 times longer, and nothing looks wrong."""
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(cpu.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("hfrec"), "propagate", True)
    for _ in range(2):
        RecommenderTrainingArguments(output_dir=str(tmp_path), bf16=True, use_cpu=True)
    RecommenderTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert [("avx_vnni" in message, "Leave the flag out" in message) for message in caplog.messages] == warned * [
        (True, True)
    ]


def test_attention_written_out_trains_the_same_model(
    log_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag that does not reach the model leaves a GPU on the padded way, unseen."""
    attend, calls = layers.eager_attention_forward, []
    monkeypatch.setattr(layers, "eager_attention_forward", lambda *a, **k: calls.append(1) or attend(*a, **k))
    words = ["--objective", "causal", *EXACT, "--optim", "sgd", "--learning_rate", "0.5"]
    plain, losses = pretrain(log_file, tmp_path / "fused", *words)
    assert not calls
    weights, again = pretrain(log_file, tmp_path / "eager", *words, "--attn_implementation", "eager")
    assert calls
    assert again == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(weights, plain, rtol=0.0, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="flash attention may be there")
def test_attention_that_is_not_there_is_refused(
    log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another attention in its place would be slower than what was asked for, and nobody would know."""
    command = ["pretrain", "--train_file", str(log_file), "--output_dir", str(tmp_path / "out"), *TINY, *QUIET]
    assert main([*command, "--attn_implementation", "flash_attention_2"]) == 1
    assert "FlashAttention2" in capsys.readouterr().err


def test_batches_of_similar_length_train_the_same_model(log_file: Path, tmp_path: Path) -> None:
    """A sampler that leaves rows out, or cannot read their lengths, would train on other data or save nothing."""
    words = ["--objective", "causal", *EXACT, "--optim", "sgd", "--learning_rate", "0.5"]
    words += ["--per_device_train_batch_size", "64"]  # all rows: only their order may differ
    plain, losses = pretrain(log_file, tmp_path / "random", *words)
    grouped = ["--train_sampling_strategy", "group_by_length"]
    weights, again = pretrain(log_file, tmp_path / "grouped", *words, *grouped)
    assert again == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(weights, plain, rtol=0.0, atol=1e-5)


def test_batches_of_similar_length_hold_less_padding(log_file: Path, tmp_path: Path) -> None:
    """Sorting that has no effect on the batches costs time for nothing; each row must still come once an epoch."""
    train = leave_one_out(load_interactions(log_file)).train
    tokenizer = build_tokenizer(train)
    data = DataArguments(train_file="unused", max_length=12)
    rows = training_sequences(train, tokenizer, "causal", data, 12)
    model = build_model(ModelArguments(objective="causal", hidden_size=16), len(tokenizer), 12)
    padding, tokens = [], []
    for strategy in ("random", "group_by_length"):
        training = RecommenderTrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            train_sampling_strategy=strategy,
            eval_strategy="no",
            load_best_model_at_end=False,
            use_cpu=True,
        )
        trainer = build_trainer(model, tokenizer, rows, None, data=data, training=training)
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        padding.append(sum(int((mask == 0).sum()) for mask in masks))
        tokens.append(sum(int(mask.sum()) for mask in masks))
    assert tokens[0] == tokens[1] == sum(len(row) - 1 for row in rows["input_ids"])
    assert padding[1] < 0.7 * padding[0]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_a_compiled_model_trains_as_an_eager_one(objective: str, log_file: Path, tmp_path: Path) -> None:
    """What the compiler traces is the padded way, not the packed one that runs on a CPU: both must be one function."""
    words = ["--objective", objective, *EXACT, "--num_hidden_layers", "1", "--per_device_train_batch_size", "32"]
    plain, losses = pretrain(log_file, tmp_path / "eager", *words)
    weights, again = pretrain(log_file, tmp_path / "compiled", *words, "--torch_compile", "true")
    assert again == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(weights, plain, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("loss", ["chunked", "full", "sampled_softmax"])
def test_label_smoothing_reaches_every_loss(loss: str, log_file: Path, tmp_path: Path) -> None:
    """The Trainer's own smoothing takes the special tokens' minus infinity into its mean: the loss becomes infinite."""
    words = ["--loss", loss, "--per_device_train_batch_size", "16"]
    plain, losses = pretrain(log_file, tmp_path / "plain", *words)
    weights, smoothed = pretrain(log_file, tmp_path / "smoothed", *words, "--label_smoothing_factor", "0.1")
    assert all(math.isfinite(value) for value in smoothed) and smoothed != losses
    assert any(not torch.equal(weights[name], plain[name]) for name in plain)
