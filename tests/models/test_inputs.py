"""A model that reads more than items: it starts as one without, packed and padded ways agree, and it is saved whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecForSequenceClassification,
    Bert4RecModel,
    load_checkpoint,
)
from hfrec.models.layers import InputTable
from hfrec.tokenization import ItemTokenizer

INPUTS = [
    {"name": "time_gap", "kind": "time", "size": 34},
    {"name": "stars", "kind": "column", "size": 4, "values": ["5", "4", "3"]},
]
SIZE = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 2, "hidden_dropout_prob": 0.0}
MODELS = [Bert4RecForMaskedLM, Bert4RecForCausalLM]


def make(kind: type, seed: int = 0, **settings: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return kind(Bert4RecConfig(**SIZE, **settings))


def trained(kind: type, **settings: object) -> torch.nn.Module:
    """A model whose tables are no longer zero."""
    model = make(kind, inputs=INPUTS, **settings).eval()
    with torch.no_grad():
        for table in model.base_model.embeddings.input_tables:
            table.weight.normal_()
    return model


def some_batch(seed: int = 0) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    ids = torch.randint(3, 12, mask.shape, generator=generator) * mask
    codes = {
        entry["name"]: torch.randint(entry["size"], mask.shape, generator=generator) * mask  # type: ignore[call-overload]
        for entry in INPUTS
    }
    return {"input_ids": ids, "attention_mask": mask, "inputs": codes}


@pytest.mark.parametrize("kind", MODELS)
def test_a_new_model_starts_as_one_without_inputs(kind: type) -> None:
    """Tables that draw random numbers would start every other weight elsewhere, and blur what an input is worth."""
    plain, model = make(kind), make(kind, inputs=INPUTS)
    own = model.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in plain.state_dict().items())
    assert len(own) == len(plain.state_dict()) + 2
    batch = some_batch()
    without = {name: value for name, value in batch.items() if name != "inputs"}
    assert torch.equal(plain.eval()(**without).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("positions", ["absolute", "rotary"])
def test_packed_and_padded_ways_agree(kind: type, positions: str) -> None:
    """Codes that are packed in another order than their tokens give each token the gap of another."""
    model = trained(kind, position_embedding_type=positions)
    batch = some_batch()
    labels = torch.full_like(batch["input_ids"], -100)  # type: ignore[arg-type]
    labels[:, -2:] = 5
    packed = model(**batch, labels=labels).logits
    padded = model(**batch).logits[labels != -100]
    assert torch.allclose(packed, padded, atol=1e-5)
    states = model.encode_history(**batch)
    assert torch.allclose(model.score_items(states)[:, 3:], padded.view(3, 2, -1)[:, 1, 3:], atol=1e-5)
    alone = {"input_ids": batch["input_ids"][:1, 2:], "inputs": {n: c[:1, 2:] for n, c in batch["inputs"].items()}}  # type: ignore[index, attr-defined]
    assert torch.allclose(model.encode_history(**alone), states[:1], atol=1e-5)
    other = {**batch, "inputs": {**batch["inputs"], "stars": 1 - batch["inputs"]["stars"].clamp(max=1)}}  # type: ignore[dict-item, index]
    assert not torch.allclose(model.encode_history(**other), states, atol=1e-3)


@pytest.mark.parametrize("kind", [*MODELS, Bert4RecForSequenceClassification, Bert4RecModel])
def test_a_model_with_inputs_refuses_to_go_without(kind: type) -> None:
    """Codes that nobody gives would be read as nothing, by every caller that has not heard of inputs."""
    batch = some_batch()
    plain = {name: value for name, value in batch.items() if name != "inputs"}
    with pytest.raises(ValueError, match="reads time_gap, stars beside the items, found nothing in `inputs`"):
        trained(kind)(**plain)
    with pytest.raises(ValueError, match="reads nothing beside the items, found time_gap, stars"):
        make(kind)(**batch)


def test_content_models_read_inputs_too() -> None:
    """Items that are made of content take another way into the body."""
    content = {"item_representation": "content+id", "item_content": {"blocks": [{"width": 3}]}}
    model = trained(Bert4RecForCausalLM, **content)
    model.model.embeddings.content.features.normal_()
    batch = some_batch()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)  # type: ignore[attr-defined, operator]
    packed = model(**batch, labels=labels).logits
    assert torch.allclose(packed, model(**batch).logits[labels != -100], atol=1e-5)


def test_a_share_of_the_codes_is_hidden_in_training_alone() -> None:
    """Without it the row of what is unknown is never trained, and a request of unknown time reads noise."""
    table = InputTable(5, 2)
    with torch.no_grad():
        table.weight[1:] = 1.0
    codes = torch.full((4000,), 3)
    torch.manual_seed(0)
    hidden = (table(codes)[:, 0] == 0).float().mean()
    assert 0.08 < float(hidden) < 0.12
    assert bool((table.eval()(codes) == 1).all())


@pytest.mark.parametrize("kind", MODELS)
def test_saved_and_loaded_it_is_the_same_model(kind: type, tmp_path: Path) -> None:
    """A config or weights without the inputs would load as another model."""
    model = trained(kind)
    model.save_pretrained(tmp_path)
    ItemTokenizer.from_items([str(number) for number in range(9)]).save_pretrained(tmp_path)
    loaded, _ = load_checkpoint(tmp_path)
    assert loaded.config.inputs == INPUTS
    batch = some_batch()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    claimed = json.loads((tmp_path / "config.json").read_text())
    claimed["inputs"][0]["size"] = 10**9
    (tmp_path / "config.json").write_text(json.dumps(claimed))
    with pytest.raises(ValueError, match=r"claims `inputs` = \[1000000000, 4\], its weights have \[34, 4\]"):
        load_checkpoint(tmp_path)


def test_a_config_without_inputs_does_not_speak_of_them(tmp_path: Path) -> None:
    """Checkpoints of items alone stay as they were, to the last byte of their config."""
    make(Bert4RecForMaskedLM).save_pretrained(tmp_path)
    assert "inputs" not in json.loads((tmp_path / "config.json").read_text())
    assert Bert4RecConfig.from_pretrained(tmp_path).inputs is None


def test_inputs_can_be_added_to_a_trained_model() -> None:
    """Fine-tuning on a log that says more must start at the checkpoint's own scores."""
    model = make(Bert4RecForCausalLM).eval()
    batch = some_batch()
    before = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    model.add_inputs(INPUTS[:1])
    model.add_inputs(INPUTS[1:])
    assert model.config.inputs == INPUTS
    assert torch.equal(model(**batch).logits, before)
    with pytest.raises(ValueError, match="must have different names, found time_gap, stars, stars"):
        model.add_inputs(INPUTS[1:])


@pytest.mark.parametrize(
    "entry",
    [{"name": "a", "kind": "time"}, {"name": "a", "kind": "tree", "size": 3}, {"kind": "time", "size": 3},
     {"name": "a", "kind": "column", "size": 3, "values": ["1"]}, {"name": "a", "kind": "time", "size": 1}],
)  # fmt: skip
def test_inputs_of_another_form_are_refused(entry: dict) -> None:
    """A damaged config must not fail deep in the model."""
    with pytest.raises(StrictDataclassError, match="`inputs` must each have a `name`"):
        Bert4RecConfig(vocab_size=9, inputs=[entry])
