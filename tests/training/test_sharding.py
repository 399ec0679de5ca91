"""A catalogue divided among processes is the whole one: losses, weights, scores, checkpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import torch
import torch.distributed as dist

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, Bert4RecModel, load_checkpoint, synthetic_tables
from hfrec.inference.recommend import recommend
from hfrec.training.sharding import Shard, clip_grad_norm, shard_catalogue
from tests.sharded_catalogue import CASES, HISTORIES, VOCAB_SIZE, new_model, outcome, train

ROOT = Path(__file__).parents[2]


def on_two_processes(folder: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sharded")
    on_two_processes(folder, str(ROOT / "tests" / "sharded_catalogue.py"), str(folder))
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_and_score_what_one_does(case: str, sharded: tuple[Path, list[dict[str, Any]]]) -> None:
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
        assert parallel.startswith("data_parallel: ") and "not under DDP or the Trainer" in parallel


def test_models_without_a_sharded_loss_are_refused(tmp_path: Path) -> None:
    """They would train on the rows of one process."""
    config = Bert4RecConfig(vocab_size=VOCAB_SIZE, hidden_size=16, loss="chunked")
    with pytest.raises(ValueError, match="init_process_group"):
        shard_catalogue(Bert4RecForMaskedLM(config))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        with pytest.raises(TypeError, match="found Bert4RecModel"):
            shard_catalogue(Bert4RecModel(config))
        with pytest.raises(ValueError, match="'chunked'`, which is the same loss"):
            shard_catalogue(Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=VOCAB_SIZE, hidden_size=16, loss="full")))
        with pytest.raises(ValueError, match="each of 0 tokens, found 1"):
            Shard(dist.group.WORLD, 0)
        with pytest.raises(TypeError, match="what `shard_catalogue` returned"):
            clip_grad_norm(Bert4RecForMaskedLM(config), 1.0)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_the_loop_of_the_documentation_runs(tmp_path: Path) -> None:
    """The only way to use it must not fail."""
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "loop.py").write_text(code)
    log, _ = synthetic_tables(num_users=48, num_items=20, num_groups=4, min_length=4, max_length=12)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    on_two_processes(tmp_path, "loop.py")
    model, tokenizer = load_checkpoint(tmp_path / "out")
    assert len(tokenizer) == model.config.vocab_size == len(model.get_input_embeddings().weight)
    assert len(recommend(model, tokenizer, [tokenizer.decode_items([3, 4])], top_k=5)[0]) == 5
