"""`pipeline("recommendation")`: the right class, the right tokenizer, the same lists as `recommend`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemTokenizer,
    RecommendationPipeline,
    recommend,
)
from hfrec.inference.pipeline import CheckpointLoader

ITEMS = [f"item {number}" for number in range(12)]
HISTORIES = [["item 1", "item 2"], ["item 5"]]
build: Any = pipeline


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The task as `import hfrec` registers it, whether or not it has."""
    task = {"impl": RecommendationPipeline, "pt": (CheckpointLoader,), "type": "text", "default": {}}
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks, "recommendation", task)
    yield


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    metadata = pa.table({"item_id": ITEMS, "title": [item.title() for item in ITEMS]})
    return ItemTokenizer.from_items(ITEMS, metadata=metadata)


@pytest.fixture(scope="module", params=[Bert4RecForMaskedLM, Bert4RecForCausalLM])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=15, hidden_size=8, num_hidden_layers=1, max_position_embeddings=4)
    return request.param(config).eval()


@pytest.fixture(scope="module")
def folder(model: Any, tokenizer: ItemTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_folder_gives_what_recommend_gives(model: Any, tokenizer: ItemTokenizer, folder: Path) -> None:
    """A causal checkpoint read into the masked class loads without a word and scores nonsense."""
    expected = recommend(model, tokenizer, HISTORIES, top_k=4, deny=["item 3"])
    recommender = build("recommendation", model=str(folder), top_k=4, deny=["item 3"], device="cpu")
    assert type(recommender.model) is type(model)
    assert recommender(HISTORIES) == expected
    assert recommender(tuple(HISTORIES)) == expected
    assert recommender(pa.array(HISTORIES)) == expected
    assert recommender(HISTORIES[0])[0]["item_id"] == expected[0][0]["item_id"]
    assert recommender(HISTORIES[0])[0]["title"] == expected[0][0]["item_id"].title()


def test_arguments_of_a_call_win(model: Any, tokenizer: ItemTokenizer) -> None:
    """A default of the pipeline that beats the call's argument, or one that sticks after it."""
    recommender = build("recommendation", model=model, tokenizer=tokenizer, top_k=2, batch_size=1, device="cpu")
    assert [len(items) for items in recommender(HISTORIES, top_k=3, batch_size=2)] == [3, 3]
    assert [len(items) for items in recommender(HISTORIES)] == [2, 2]
    with pytest.raises(TypeError, match="found \\['topk'\\]"):
        recommender(HISTORIES, topk=3)


def test_one_history_or_several(model: Any, tokenizer: ItemTokenizer) -> None:
    """A list of ids taken for a list of users, each with a history of letters."""
    recommender = build("recommendation", model=model, tokenizer=tokenizer, top_k=2, device="cpu")
    assert isinstance(recommender(pa.array(["item 1"]))[0], dict)
    assert isinstance(recommender([["item 1"]])[0], list)
    assert recommender([]) == []
    with pytest.raises(TypeError, match="`inputs` must be a list"):
        recommender("item 1")


def test_save_pretrained_writes_a_checkpoint_that_loads(model: Any, tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """The stock method adds the pipeline's file as remote code, whose imports fail wherever it is loaded."""
    recommender = build("recommendation", model=model, tokenizer=tokenizer, device="cpu")
    recommender.save_pretrained(tmp_path)
    assert not (tmp_path / "pipeline.py").exists()
    assert build("recommendation", model=str(tmp_path), device="cpu")(HISTORIES) == recommender(HISTORIES)


def test_a_model_object_needs_its_tokenizer(model: Any) -> None:
    """Falling back to some tokenizer would name other items."""
    with pytest.raises(ValueError, match="`tokenizer` must be given with a model object"):
        RecommendationPipeline(model, device=-1)


def test_another_models_checkpoint_is_refused(tmp_path: Path, tokenizer: ItemTokenizer) -> None:
    """A BERT for text would be loaded with fresh weights and recommend at random."""
    config = BertConfig(vocab_size=15, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"found \['BertForMaskedLM'\]"):
        CheckpointLoader.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"`model` must be a Bert4RecForMaskedLM.*Blend, found BertForMaskedLM"):
        build("recommendation", model=str(tmp_path), device="cpu")
