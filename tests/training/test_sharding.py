"""What a divided catalogue refuses, and its documentation; `tests/test_distributed.py` trains one on two processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.csv
import pytest
import torch.distributed as dist

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, Bert4RecModel, load_checkpoint, synthetic_tables
from hfrec.inference.recommend import recommend
from hfrec.training.sharding import Shard, clip_grad_norm, shard_catalogue
from tests.sharded_catalogue import VOCAB_SIZE

ROOT = Path(__file__).parents[2]


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
        searched = Bert4RecConfig(vocab_size=VOCAB_SIZE, loss="sampled_softmax", num_hard_negatives=4)
        with pytest.raises(ValueError, match="num_hard_negatives"):
            shard_catalogue(Bert4RecForMaskedLM(searched))
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "loop.py"]
    done = subprocess.run(launch, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    model, tokenizer = load_checkpoint(tmp_path / "out")
    assert len(tokenizer) == model.config.vocab_size == len(model.get_input_embeddings().weight)
    assert len(recommend(model, tokenizer, [tokenizer.decode_items([3, 4])], top_k=5)[0]) == 5
