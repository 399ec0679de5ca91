"""The flags of `hfrec finetune` that change what is trained, how fast, and what is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfrec.commands.finetune import parse
from hfrec.data.files import RUN_FILE
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec_command import main

ROOT = Path(__file__).parents[2]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0", "--load_best_model_at_end", "false"]
PLAIN = ["--per_device_train_batch_size", "16", "--lr_scheduler_type", "constant", "--learning_rate", "0.01", *QUIET]


@pytest.fixture(scope="module")
def deep(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three layers."""
    folder = tmp_path_factory.mktemp("deep") / "pretrained"
    words = [
        "pretrain",
        "--position_embedding_type",
        "absolute",
        "--train_file",
        str(log_file),
        "--output_dir",
        str(folder),
        "--num_train_epochs",
        "1",
    ]
    words += [*PLAIN, "--objective", "masked"]
    assert main([*words, "--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "3"]) == 0
    return folder


def finetune(log: Path, start: Path, output: Path, *words: str) -> None:
    fixed = ["finetune", "--model_name_or_path", str(start), "--train_file", str(log), "--output_dir", str(output)]
    assert main([*fixed, *PLAIN, *words]) == 0


def moves(start: Path, end: Path) -> dict[str, float]:
    """Furthest move of a weight of each part, the matrices of the layers only."""
    before, after = (load_file(folder / "model.safetensors") for folder in (start, end))
    parts: dict[str, float] = {}
    for name, weight in before.items():
        part = next((f"layer {layer}" for layer in range(3) if f"layers.{layer}." in name), name.split(".")[-2])
        move = float((after[name] - weight).abs().max())
        parts[part] = max(move, parts.get(part, 0.0))
    return parts


@pytest.mark.parametrize(
    ("steps", "every", "still"),
    [
        ("4", "100", {"item_embeddings", "position_embeddings", "layer 0", "layer 1"}),
        ("4", "2", {"item_embeddings", "position_embeddings", "layer 0"}),
        ("5", "2", {"item_embeddings", "position_embeddings"}),
        ("4", "1", set()),
    ],
)
def test_gradual_unfreezing_goes_from_the_top(
    steps: str, every: str, still: set[str], log_file: Path, deep: Path, tmp_path: Path
) -> None:
    """A flag that reaches no callback trains all layers from the first step, which nothing in the log shows."""
    finetune(log_file, deep, tmp_path / "out", "--unfreeze_every_steps", every, "--max_steps", steps)
    moved = moves(deep, tmp_path / "out")
    assert {part for part, move in moved.items() if move == 0.0} == still
    assert moved["layer 2"] > 0.0


def test_layerwise_learning_rates_slow_the_lower_layers(log_file: Path, deep: Path, tmp_path: Path) -> None:
    """Rates that the optimiser does not get leave plain fine-tuning. Adam's first step is as long as its rate."""
    finetune(log_file, deep, tmp_path / "out", "--layerwise_lr_decay", "0.5", "--max_steps", "1", "--save_steps", "1")
    moved = moves(deep, tmp_path / "out")
    expected = {"dense": 1.0, "layer 2": 0.5, "layer 1": 0.25, "layer 0": 0.125, "item_embeddings": 0.0625}
    for part, share in expected.items():
        assert moved[part] == pytest.approx(0.01 * share, rel=0.01), part


def test_layerwise_learning_rates_follow_the_schedule(log_file: Path, deep: Path, tmp_path: Path) -> None:
    """Rates that the schedule or a resumed run sets back to one are lost after the first step."""
    words = ["--layerwise_lr_decay", "0.5", "--lr_scheduler_type", "linear", "--max_steps", "8", "--save_steps", "2"]
    words += ["--save_strategy", "steps", "--eval_strategy", "no", "--save_total_limit", "9"]
    finetune(log_file, deep, tmp_path / "whole", *words)
    (tmp_path / "cut").mkdir()
    shutil.copy(tmp_path / "whole" / RUN_FILE, tmp_path / "cut")
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "cut" / "checkpoint-4")
    finetune(log_file, deep, tmp_path / "cut", *words)
    for folder in ("whole", "cut"):
        state: Any = torch.load(tmp_path / folder / "checkpoint-6" / "optimizer.pt", weights_only=True)
        rates = sorted({group["lr"] for group in state["param_groups"]})
        assert rates == pytest.approx([0.0025 * 0.5**depth for depth in (4, 3, 2, 1, 0)])
    first, second = (load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "cut"))
    assert all(first[name].equal(second[name]) for name in first)


def test_tensorboard_shows_the_penalty(
    log_file: Path, deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A penalty that stands in the console only is missing where runs are compared."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    words = ["--l2sp_alpha", "0.1", "--report_to", "tensorboard", "--num_train_epochs", "2"]
    finetune(log_file, deep, tmp_path / "out", *words)
    events = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/l2sp_penalty", "train/l2sp_distance/model.layers.0", "eval/ndcg@10"} <= tags
    values = [event.value for event in events.Scalars("train/l2sp_penalty")]
    assert len(values) == 2 and all(value > 0.0 for value in values)


def test_several_trackers_are_named_after_one_flag() -> None:
    """`HfArgumentParser` trims the parent's union of types to a single name."""
    words = ["--train_file", "a.csv", "--model_name_or_path", "b", "--report_to", "tensorboard", "trackio"]
    for given, expected in ((words, ["tensorboard", "trackio"]), (words[:4], [])):
        (training,) = (found for found in parse(given) if isinstance(found, RecommenderTrainingArguments))
        assert training.report_to == expected


@pytest.mark.slow
def test_two_trackers_at_once(log_file: Path, deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second name after the flag must not be lost, nor what callbacks add to the logs."""
    pytest.importorskip("trackio")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    # trackio reads the folder when it is first imported, so the run has a process of its own.
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(ROOT)}
    words = ["--l2sp_alpha", "0.1", "--report_to", "tensorboard", "trackio", "--num_train_epochs", "1", *PLAIN]
    words += ["--model_name_or_path", str(deep), "--train_file", str(log_file), "--output_dir", str(tmp_path / "out")]
    command = [sys.executable, str(ROOT / "scripts" / "finetune.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "events").iterdir())
    assert b"l2sp_penalty" in b"".join(path.read_bytes() for path in (tmp_path / "trackio").iterdir())
