"""New items: old rows to the bit, new rows as promised, and nothing half-done."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecForSequenceClassification,
    Bert4RecModel,
    ItemTokenizer,
)
from hfrec.transfer import add_items

ITEMS = ["a", "b", "c"]


def build(model_class: Any = Bert4RecForMaskedLM, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    model = model_class(Bert4RecConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, **kwargs)).eval()
    if getattr(model, "decoder", None) is not None and model.decoder.bias is not None:
        torch.nn.init.normal_(model.decoder.bias)
    return model


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    metadata = pa.table({"item_id": ITEMS, "title": ["A", None, "C"], "year": [1, 2, 3]})
    return ItemTokenizer.from_items(ITEMS, metadata=metadata, counts={"a": 5, "c": 7})


@pytest.mark.parametrize("kwargs", [{}, {"embedding_size": 4}, {"head_bias": False, "head_transform": False}])
@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_old_scores_stay_to_the_bit(model_class: Any, kwargs: dict[str, Any], tokenizer: ItemTokenizer) -> None:
    """A head bias or an embedding lost on resizing: the model still runs and has forgotten what was popular."""
    model = build(model_class, **kwargs)
    old_state = copy.deepcopy(model.state_dict())
    ids = torch.tensor([[3, 4, 1]])
    with torch.no_grad():
        old_logits = model(input_ids=ids).logits
    grown = add_items(model, tokenizer, ["d", "e"])
    for name, old in old_state.items():
        new = model.state_dict()[name]
        assert torch.equal(new[: len(old)], old), name
    assert model.decoder.weight is model.get_input_embeddings().weight
    assert model.config.vocab_size == len(grown) == 8
    logits = model(input_ids=ids).logits
    assert logits.shape[-1] == 8
    torch.testing.assert_close(logits[..., :6], old_logits)
    assert not kwargs.get("head_bias", True) or model.decoder.bias[6:].tolist() == [0.0, 0.0]
    model(input_ids=ids, labels=torch.tensor([[-100, -100, 7]])).loss.backward()


@pytest.mark.parametrize("model_class", [Bert4RecModel, Bert4RecForSequenceClassification])
def test_models_without_item_scores_grow_too(model_class: Any, tokenizer: ItemTokenizer) -> None:
    """A user classifier meets new items as well."""
    model = build(model_class)
    add_items(model, tokenizer, ["d"])
    model(input_ids=torch.tensor([[6, 3]]))
    assert model.get_input_embeddings().weight.shape == (7, 8)


def test_new_rows_follow_initializer_range_and_the_generator(tokenizer: ItemTokenizer) -> None:
    """New embeddings drawn on another scale outrank or never reach the trained ones."""
    models = [build(initializer_range=0.1) for _ in range(2)]
    items = [f"new {number}" for number in range(500)]
    for model, seed in zip(models, (1, 1), strict=True):
        add_items(model, tokenizer, items, generator=torch.Generator().manual_seed(seed))
        torch.rand(7)
    rows, again = (model.get_input_embeddings().weight[6:] for model in models)
    assert torch.equal(rows, again)
    assert abs(rows.std().item() - 0.1) < 0.01
    assert abs(rows.mean().item()) < 0.01


def test_tokens_metadata_and_counts_are_kept(tokenizer: ItemTokenizer) -> None:
    """New ids before the old, or titles lost, on the way through a rebuilt vocabulary."""
    metadata = pa.table({"item_id": ["x", "7", "a"], "title": ["X", "Seven", "wrong"], "genre": ["g", "h", "i"]})
    grown = add_items(build(), tokenizer, [7, "z"], metadata=metadata)
    assert grown.items.to_pylist() == [
        {"item_id": "a", "title": "A", "year": 1, "genre": None, "count": 5},
        {"item_id": "b", "title": None, "year": 2, "genre": None, "count": 0},
        {"item_id": "c", "title": "C", "year": 3, "genre": None, "count": 7},
        {"item_id": "7", "title": "Seven", "year": None, "genre": "h", "count": 0},
        {"item_id": "z", "title": None, "year": None, "genre": None, "count": 0},
    ]
    assert grown.encode_column(["a", "b", "c", "7", "z"]).to_pylist() == [3, 4, 5, 6, 7]
    plain = add_items(build(), ItemTokenizer.from_items(ITEMS), ["d"])
    assert plain.items.column_names == ["item_id"]


def test_a_grown_model_is_saved_and_loaded(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """A vocabulary size left behind in the config shows only when the checkpoint is loaded."""
    model = build()
    grown = add_items(model, tokenizer, ["d"])
    model.save_pretrained(tmp_path)
    grown.save_pretrained(tmp_path)
    loaded = Bert4RecForMaskedLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[6, 1]])
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert ItemTokenizer.from_pretrained(tmp_path).items.equals(grown.items)


def unchanged(model: Any, old_state: dict[str, torch.Tensor], tokenizer: ItemTokenizer) -> bool:
    state = model.state_dict()
    same = state.keys() == old_state.keys() and all(torch.equal(state[name], old_state[name]) for name in state)
    sizes = (model.config.vocab_size, model.get_input_embeddings().num_embeddings, model.decoder.out_features)
    tied = model.decoder.weight is model.get_input_embeddings().weight
    return same and tied and sizes == (6, 6, 6) and tokenizer.items["item_id"].to_pylist() == ITEMS


@pytest.mark.parametrize(
    ("message", "items", "metadata"),
    [
        ("at least one item", [], None),
        ("found 2 known ones: a, c", ["a", "d", "c"], None),
        ("'d' twice", ["d", "d"], None),
        ("null id", ["d", None], None),
        ("\\[MASK\\], the name of a special token", ["[MASK]"], None),
        ("needs a column 'item_id', found \\['id'\\]", ["d"], pa.table({"id": ["d"]})),
        ("int64 in column 'year'", ["d"], pa.table({"item_id": ["d"], "year": ["soon"]})),
    ],
)
def test_bad_input_changes_nothing(
    message: str, items: list[Any], metadata: pa.Table | None, tokenizer: ItemTokenizer
) -> None:
    """A known item appended again has two rows, of which the trained one is never read."""
    model = build()
    old_state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        add_items(model, tokenizer, items, metadata=metadata)
    assert unchanged(model, old_state, tokenizer)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    """New rows would belong to other items than the tokenizer says."""
    with pytest.raises(ValueError, match="the model's 6 tokens, found 4"):
        add_items(build(), ItemTokenizer.from_items(["a"]), ["d"])


def test_a_failure_while_growing_is_undone(tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory between embeddings and bias leaves a model of two sizes."""
    from hfrec.transfer import rows

    model = build()
    old_state = copy.deepcopy(model.state_dict())
    calls = []

    def fail_at_the_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return original(*args)

    original = rows._taken
    monkeypatch.setattr(rows, "_taken", fail_at_the_second)
    with pytest.raises(RuntimeError, match="out of memory"):
        add_items(model, tokenizer, ["d"])
    assert unchanged(model, old_state, tokenizer)
    monkeypatch.undo()
    add_items(model, tokenizer, ["d"])
    assert model(input_ids=torch.tensor([[6, 1]])).logits.shape[-1] == 7
