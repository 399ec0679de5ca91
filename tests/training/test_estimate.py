"""The estimate of memory is what a run takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from hfrec.training.estimate import (
    Workload,
    count_parameters,
    estimate_memory,
    estimate_start,
    eval_batch_size,
    suggestions,
)
from hfrec.training.trainer import prepare_model
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec_command import main

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, resource, sys
import torch
from hfrec.models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec.training.rowwise import rowwise_optimizer

def train(config, batch, length, labelled, rowwise, steps):
    kind = Bert4RecForCausalLM if labelled == 1.0 else Bert4RecForMaskedLM
    model = kind(config).train()
    if rowwise:
        optimizer = rowwise_optimizer(model, RecommenderTrainingArguments(output_dir="unused", use_cpu=True))
    else:
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(steps):
        ids = torch.randint(3, config.vocab_size, (batch, length))
        labels = ids.masked_fill(torch.rand(ids.shape) >= labelled, -100)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

options, batch, length, labelled, rowwise = json.loads(sys.argv[1])
train(Bert4RecConfig(**{**options, "vocab_size": 50}), 2, 4, labelled, rowwise, 2)
before = resident()
train(Bert4RecConfig(**options), batch, length, labelled, rowwise, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_position": "post", "position_embedding_type": "none"},
        {"gated_mlp": True, "embedding_size": 6},
        {"head_transform": False, "head_bias": False},
        {"tie_word_embeddings": False, "embedding_size": 6, "head_transform": False},
        {"item_representation": "content+id", "item_content": {"blocks": [{"kind": "vectors", "width": 4}]}},
    ],
    ids=str,
)
def test_parameters_are_counted(changes: dict[str, Any]) -> None:
    """A weight that is forgotten here is forgotten three times, with its moments."""
    config = Bert4RecConfig(vocab_size=37, hidden_size=16, max_position_embeddings=9, **changes)
    weights = Bert4RecForCausalLM(config).parameters()  # a tied table is one of them
    assert count_parameters(config) == sum(weight.numel() for weight in weights)


def test_parameters_of_a_large_catalogue_are_counted_without_memory_for_them() -> None:
    """The question is asked because the model may not fit: 256 TB here."""
    assert count_parameters(Bert4RecConfig(vocab_size=10**12)) > 64 * 10**12


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
@pytest.mark.parametrize(
    ("options", "batch", "length", "labelled", "rowwise"),
    [
        ({"vocab_size": 40_003, "loss": "full"}, 64, 50, 0.2, False),
        ({"vocab_size": 3_003, "loss": "full"}, 64, 100, 1.0, False),
        ({"vocab_size": 500_003, "loss": "chunked"}, 64, 50, 0.2, False),
        ({"vocab_size": 500_003, "loss": "sampled_softmax"}, 64, 50, 0.2, False),
        ({"vocab_size": 500_003, "loss": "sampled_softmax"}, 64, 50, 0.2, True),
        ({"vocab_size": 100_003, "loss": "sampled_softmax", "num_hard_negatives": 512}, 64, 50, 1.0, False),
        ({"vocab_size": 100_003, "loss": "sampled_softmax", "num_hard_negatives": 512}, 64, 50, 1.0, True),
        ({"vocab_size": 3_003, "loss": "chunked", "num_hidden_layers": 4}, 128, 100, 0.2, False),
        ({"vocab_size": 3_003, "loss": "chunked", "hidden_size": 128}, 64, 200, 1.0, False),
    ],
    ids=str,
)
def test_estimate_is_within_15_percent_of_the_peak(
    options: dict[str, Any], batch: int, length: int, labelled: float, rowwise: bool
) -> None:
    """An estimate that is off by a factor sends a run to a machine on which it dies after hours."""
    options = {"max_position_embeddings": length, **options}
    command = [sys.executable, "-c", PROGRAM, json.dumps([options, batch, length, labelled, rowwise])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    measured = int(done.stdout.splitlines()[-1])
    workload = Workload(batch_size=batch, length=length, labelled=labelled, rowwise_embeddings=rowwise)
    assert estimate_memory(Bert4RecConfig(**options), workload).training == pytest.approx(measured, rel=0.15)


def test_sharding_divides_and_checkpointing_saves() -> None:
    """A knob without effect is a wrong advice."""
    config = Bert4RecConfig(vocab_size=100_003, num_hidden_layers=4)
    one, many = (estimate_memory(config, Workload(world_size=n, sharding="full")) for n in (1, 4))
    assert many.optimizer * 4 == pytest.approx(one.optimizer, rel=1e-6)
    assert many.training < one.training
    spared = estimate_memory(config, Workload(gradient_checkpointing=True))
    assert spared.activations < 0.5 * one.activations


def test_a_divided_catalogue_divides_the_items_and_no_more() -> None:
    """A body counted as divided, or a catalogue as whole, decides wrongly on how many devices are needed."""
    config = Bert4RecConfig(vocab_size=100_000, loss="sampled_softmax")
    one, many = (estimate_memory(config, Workload(world_size=n, sharding="catalogue")) for n in (1, 4))
    items = 4 * 100_000 * (config.hidden_size + 1)
    assert one.parameters - many.parameters == items * 3 // 4
    assert many.optimizer == 2 * many.parameters
    assert many.activations == one.activations


def test_rowwise_gradients_do_not_grow_with_the_catalogue() -> None:
    """A table counted among the gradients advises against what would fit."""
    workload = Workload(rowwise_embeddings=True)
    sizes = [100_003, 1_000_003]
    small, large = (estimate_memory(Bert4RecConfig(vocab_size=n, loss="sampled_softmax"), workload) for n in sizes)
    assert large.gradients - small.gradients == 4 * 900_000  # the bias of each item
    assert small.scores == large.scores
    with pytest.raises(ValueError, match="rowwise_embeddings"):
        estimate_memory(Bert4RecConfig(vocab_size=1_003, loss="chunked"), workload)
    with pytest.raises(ValueError, match="rowwise_embeddings"):
        estimate_memory(Bert4RecConfig(loss="gbce"), Workload(rowwise_embeddings=True, world_size=2))


def test_suggestions_name_what_is_large() -> None:
    """Advice on the wrong part leaves the run as it was."""
    scores = suggestions(Bert4RecConfig(vocab_size=1_000_003), Workload(eval_batch_size=8))
    assert scores[0].startswith(("--loss chunked", "--loss sampled"))
    body = suggestions(Bert4RecConfig(vocab_size=503, num_hidden_layers=8, loss="chunked"), Workload())
    assert body[0].startswith("--gradient_checkpointing true")
    assert not any("--loss" in text for text in body)
    sampled = suggestions(Bert4RecConfig(vocab_size=1_000_003, loss="sampled_softmax"), Workload(eval_batch_size=8))
    assert any(text.startswith("--rowwise_embeddings true") for text in sampled)


def test_command_prints_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers must come from the flags that were given."""
    assert main(["estimate", "--num_items", "1000", "--loss", "full", "--objective", "causal"]) == 0
    printed = capsys.readouterr().out
    sizes = {line.rsplit(maxsplit=2)[0]: line.split()[-2] for line in printed.splitlines() if line.endswith(" MiB")}
    assert {"parameters", "optimizer", "activations", "scores", "total", "whole command"} <= set(sizes)
    assert int(sizes["whole command"].replace(",", "")) - int(sizes["total"].replace(",", "")) in (800, 801)
    assert main(["estimate", "--num_items", "1000", "--mlm_probability", "0"]) == 1
    assert "labelled" in capsys.readouterr().err


def test_scores_of_an_evaluation_are_bounded(tmp_path: Path) -> None:
    """256 users times a million items took 5 GB where training takes 2; the run must do as the estimate says."""
    config = Bert4RecConfig(vocab_size=1_000_003, hidden_size=8, num_hidden_layers=1)
    assert estimate_memory(config, Workload()).evaluation < 2**30
    training = RecommenderTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    prepare_model(Bert4RecForMaskedLM(config), training)
    assert training.per_device_eval_batch_size == eval_batch_size(256, 1_000_003) < 256


@pytest.mark.parametrize("name", ["batch_size", "length", "eval_batch_size", "world_size"])
def test_sizes_out_of_range_are_refused(name: str) -> None:
    """A batch of nothing would be estimated at nothing."""
    with pytest.raises(ValueError, match=name):
        Workload(**{name: 0})


def test_the_start_is_as_large_as_what_is_counted() -> None:
    """A start that is left out, or that grows without its bound, decides wrongly on a machine."""
    config = Bert4RecConfig(vocab_size=1_000_003)
    short, long, longest = (estimate_start(config, number) for number in (100_000, 1_600_000, None))
    assert short.memory < long.memory == longest.memory == pytest.approx(3.25e9, rel=0.15)  # measured
    assert short.seconds < 5 < longest.seconds == pytest.approx(232, rel=0.15)


def test_the_start_counts_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A total below what the start takes is one that the run never reaches."""
    words = ["estimate", "--num_items", "1000000", "--loss", "sampled_softmax", "--per_device_eval_batch_size", "1"]
    assert main(words) == 0
    assert "start" in capsys.readouterr().out
    assert main([*words, "--item_start", "random"]) == 0
    assert "start " not in capsys.readouterr().out
    config = Bert4RecConfig(vocab_size=1_000_003, loss="sampled_softmax")
    assert suggestions(config, Workload()) and not suggestions(config, Workload(), at_least=2**40)
