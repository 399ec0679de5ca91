"""Checkpoints load by `trust_remote_code=True` where hfrec is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import hfrec  # noqa: F401  # registers its classes
from hfrec.models import Bert4RecConfig, Bert4RecForMaskedLM
from hfrec.tokenization import ItemTokenizer

PROGRAM = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hfrec":
            raise ImportError("hfrec is not installed here")

sys.meta_path.insert(0, Absent())
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification,
    AutoTokenizer, PreTrainedTokenizerFast,
)

folder, copy = sys.argv[1:]
stock = PreTrainedTokenizerFast.from_pretrained(folder)  # without a question, as it reads no config
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
ids = torch.tensor([[3, 4, 1]])
found = {
    "tokenizer": type(tokenizer).__name__,
    "vocabulary": tokenizer.get_vocab(),
    "ids": tokenizer(["b 1", "a", "never seen"])["input_ids"],
    "stock ids": stock(["b 1", "a", "never seen"])["input_ids"],
    "config": type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__,
    "classes": {},
}
for auto in (AutoModel, AutoModelForMaskedLM, AutoModelForCausalLM, AutoModelForSequenceClassification):
    model = auto.from_pretrained(folder, trust_remote_code=True)
    found["classes"][auto.__name__] = type(model).__name__
    if auto is AutoModelForMaskedLM:
        found["logits"] = model.eval()(ids).logits[..., 3:].tolist()
        model.save_pretrained(copy)
again = AutoModelForMaskedLM.from_pretrained(copy, trust_remote_code=True).eval()
found["again"] = again(ids).logits[..., 3:].tolist()
AutoModelForSequenceClassification.from_pretrained(copy, trust_remote_code=True)
from transformers import pipeline
recommender = pipeline("recommendation", model=folder, trust_remote_code=True)
found["recommended"] = [recommender(["b 1"], top_k=2), recommender([["b 1"], ["a", "c"]], filter_seen=False)]
found["hfrec"] = [name for name in sys.modules if name.split(".")[0] == "hfrec"]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=6, hidden_size=8, max_position_embeddings=4)).save_pretrained(path)
    ItemTokenizer.from_items(["b 1", "a", "c"]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without hfrec makes of the folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(elsewhere / "home"), "HF_MODULES_CACHE": str(elsewhere / "modules")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(elsewhere / "copy")]
    process = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return {**result, "copy": elsewhere / "copy"}


def test_every_auto_class_loads_without_hfrec(found: dict[str, Any]) -> None:
    """A checkpoint that needs the library loads for its author alone."""
    assert found["hfrec"] == []
    assert found["config"] == "Bert4RecConfig"
    assert found["classes"] == {
        "AutoModel": "Bert4RecModel",
        "AutoModelForMaskedLM": "Bert4RecForMaskedLM",
        "AutoModelForCausalLM": "Bert4RecForCausalLM",
        "AutoModelForSequenceClassification": "Bert4RecForSequenceClassification",
    }


def test_scores_are_those_of_the_library(found: dict[str, Any], folder: Path) -> None:
    """Code that travelled without one of its parts could score otherwise."""
    model = Bert4RecForMaskedLM.from_pretrained(folder).eval()
    expected = model(torch.tensor([[3, 4, 1]])).logits[..., 3:]
    torch.testing.assert_close(torch.tensor(found["logits"]), expected)


def test_a_remotely_loaded_model_saves_a_folder_that_loads_again(found: dict[str, Any]) -> None:
    """transformers writes the map of one Auto class only, so the copy of a copy would be lost to the others."""
    assert found["again"] == found["logits"]
    config = json.loads((found["copy"] / "config.json").read_text())
    assert len(config["auto_map"]) == 5
    assert all("--" not in target for target in config["auto_map"].values())
    assert Bert4RecForMaskedLM.from_pretrained(found["copy"]).config.vocab_size == 6


def test_plain_auto_tokenizer_loads_without_hfrec(found: dict[str, Any]) -> None:
    """A tokenizer class of ours in the folder would make AutoTokenizer refuse it."""
    assert found["tokenizer"] in ("PreTrainedTokenizerFast", "TokenizersBackend")
    assert found["vocabulary"] == {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "b 1": 3, "a": 4, "c": 5}
    assert found["ids"] == found["stock ids"] == [[3], [4], [2]]


def test_plain_auto_tokenizer_asks_nothing_beside_hfrec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers loads the config first, and asked whether to run code that is there already."""

    def ask(question: str) -> str:
        raise AssertionError(question)

    monkeypatch.setattr("builtins.input", ask)
    assert AutoTokenizer.from_pretrained(folder)(["b 1"])["input_ids"] == [[3]]


def test_the_pipeline_needs_no_hfrec(found: dict[str, Any], folder: Path) -> None:
    """Without `import hfrec` the task was a KeyError; with other items than hfrec's own it would be worse."""
    from hfrec import recommend

    model, tokenizer = Bert4RecForMaskedLM.from_pretrained(folder).eval(), ItemTokenizer.from_pretrained(folder)
    expected = [
        recommend(model, tokenizer, [["b 1"]], 2)[0],
        recommend(model, tokenizer, [["b 1"], ["a", "c"]], 3, filter_seen=False),
    ]
    assert [item["item_id"] for item in found["recommended"][0]] == [item["item_id"] for item in expected[0]]
    for mine, theirs in zip(found["recommended"][1], expected[1], strict=True):
        assert [(item["item_id"], item["rank"]) for item in mine] == [(i["item_id"], i["rank"]) for i in theirs]
        assert [item["score"] for item in mine] == pytest.approx([item["score"] for item in theirs], abs=1e-5)
    assert "custom_pipelines" not in model.config.to_dict()  # in memory hfrec's own stands, which knows titles


def test_the_weights_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    """safetensors makes files of mode 0600: a service of another user could not read them."""
    before = os.umask(0o022)
    try:
        Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=6, hidden_size=8)).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
