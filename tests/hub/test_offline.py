"""A warm cache is enough: offline, with the hub down, and in a process that never had hfrec."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfrec import ItemTokenizer
from tests.hub.conftest import ITEMS, READ_TOKEN, Client, ClientError, client_environment, make_checkpoint
from tests.hub.loopback import Hub

WITHOUT_HFREC = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hfrec":
            raise ImportError("hfrec is not installed here")

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

name, revision, history = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
model = AutoModelForMaskedLM.from_pretrained(name, revision=revision, trust_remote_code=True).eval()
ids = tokenizer.convert_tokens_to_ids(history)
with torch.no_grad():
    scores = model(torch.tensor([[*ids, tokenizer.mask_token_id]])).logits[0, -1]
scores[ids] = float("-inf")
best = scores.topk(5)
found = [[item, score] for item, score in zip(tokenizer.convert_ids_to_tokens(best.indices), best.values.tolist())]
print(json.dumps({"found": found, "ours": [m for m in sys.modules if m.split(".")[0] == "hfrec"]}))
"""


@pytest.fixture
def pinned(hub: Hub, client: Client, checkpoint: Path, tmp_path: Path) -> str:
    """A repository whose tag v1 is the checkpoint, and whose main branch is another one."""
    if ("models", "ann/served") not in hub.repositories:
        client("push", str(checkpoint), "ann/served")
        client("tag", "ann/served", "v1")
        make_checkpoint(tmp_path / "new", seed=1)
        client("push", str(tmp_path / "new"), "ann/served")
    return "ann/served"


def test_a_process_without_hfrec_recommends_the_same(hub: Hub, client: Client, log_file: Path, tmp_path: Path) -> None:
    """The reader of a repository has transformers and nothing of ours; other scores there go unnoticed."""
    train = ["--train_file", str(log_file), "--num_train_epochs", "1", "--disable_tqdm", "true"]
    shape = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1"]
    base, tuned = str(tmp_path / "base"), str(tmp_path / "tuned")
    assert client("command", "pretrain", *train, *shape, "--objective", "masked", "--output_dir", base) == 0
    start = ["--model_name_or_path", base, "--l2sp_alpha", "0.1", "--push_to_hub", "true", "--hub_strategy", "end"]
    assert client("command", "finetune", *train, *start, "--output_dir", tuned, "--hub_model_id", "ann/tuned") == 0
    client("tag", "ann/tuned", "v1")
    client("push", base, "ann/tuned")
    history = ItemTokenizer.from_pretrained(tuned).decode_items([3, 7, 5])
    environment = client_environment(hub, tmp_path / "home", HF_TOKEN=READ_TOKEN)
    environment.pop("PYTHONPATH")
    command = [sys.executable, "-c", WITHOUT_HFREC, "ann/tuned", "v1", json.dumps(history)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["ours"] == []
    expected = client("recommendations", tuned, history)
    assert expected != client("recommendations", base, history)
    assert [item for item, _ in answer["found"]] == [item for item, _ in expected]
    assert [score for _, score in answer["found"]] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_a_warm_cache_serves_while_the_hub_is_down(hub: Hub, pinned: str, client: Client) -> None:
    """A service that restarts while the hub is away should come up; one with a cold cache should say why not."""
    tagged = client("recommendations", pinned, ITEMS[:3], revision="v1")
    newest = client("recommendations", pinned, ITEMS[:3])
    fingerprint = client("reference_fingerprint", pinned, "v1")
    folder = client("pull", pinned, revision="v1")
    hub.stop()
    try:
        assert client("recommendations", pinned, ITEMS[:3], revision="v1", local_files_only=True) == tagged
        assert client("recommendations", pinned, ITEMS[:3], local_files_only=True) == newest
        assert client("pipeline_recommendations", folder, ITEMS[:3]) == tagged
        assert client("pull", pinned, revision="v1", local_files_only=True) == folder
        assert "neither a checkpoint folder nor a model" in client("load_error", "ann/cold", local_files_only=True)
        with pytest.raises(ClientError, match="Could not pull"):
            client("pull", "ann/cold", local_files_only=True)
    finally:
        hub.start()
    assert client("reference_fingerprint", pinned, "v1") == fingerprint


def test_a_warm_cache_serves_without_being_told_that_the_hub_is_down(hub: Hub, pinned: str, client: Client) -> None:
    """Nobody sets a flag before the hub goes away; each listing of files would be tried for 23 s."""
    newest = client("recommendations", pinned, ITEMS[:3])
    hub.stop()
    start = time.monotonic()
    try:
        assert client("recommendations", pinned, ITEMS[:3]) == newest
    finally:
        hub.start()
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_offline_mode_asks_nobody(hub: Hub, pinned: str, client: Client) -> None:
    """One request to a hub that a firewall swallows makes a start wait for its time-out."""
    expected = client("recommendations", pinned, ITEMS[:3], revision="v1")
    home = Path(client.log).parent / "home"
    environment = client_environment(hub, home, HF_HUB_OFFLINE="1")
    hub.requests.clear()
    log = client.log.with_name("offline.txt")
    offline = Client(environment, log)
    try:
        assert offline("recommendations", pinned, ITEMS[:3], revision="v1") == expected
        assert offline("pipeline_recommendations", pinned, ITEMS[:3], revision="v1") == expected
        assert Path(offline("pull", pinned, revision="v1")).is_dir()
    finally:
        offline.close()
    assert hub.requests == []


def test_the_reference_of_l2sp_is_pinned(pinned: str, checkpoint: Path, client: Client) -> None:
    """Fine-tuning that is held to a moving branch is held to another model the next day."""
    local = client("reference_fingerprint", str(checkpoint))
    assert client("reference_fingerprint", pinned, "v1") == local
    assert client("reference_fingerprint", pinned) != local
