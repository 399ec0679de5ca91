"""LoRA on the body and trainable rows for new items: train, save, push, load, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hfrec import ItemTokenizer, L2SPCallback, add_items, load_checkpoint
from tests.hub.conftest import ITEMS, Client
from tests.hub.loopback import Hub

peft = pytest.importorskip("peft")
NEW_ITEMS = ["new 1", "new 2"]
BATCH = {"input_ids": torch.tensor([[3, 4, 23, 1]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
LABELS = torch.tensor([[-100, -100, -100, 24]])


def grown(checkpoint: Path) -> tuple[Any, Any]:
    """The checkpoint with rows for two new items; every process makes the same ones."""
    model, tokenizer = load_checkpoint(checkpoint)
    return model, add_items(model, tokenizer, NEW_ITEMS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def adapted(checkpoint: Path) -> tuple[Any, Any]:
    model, tokenizer = grown(checkpoint)
    config = peft.LoraConfig(
        r=2,
        target_modules=["query_key_value", "attention.output", "mlp.input", "mlp.output"],
        trainable_token_indices={"item_embeddings": tokenizer.convert_tokens_to_ids(NEW_ITEMS)},
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config)
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.5)
    adapted.train()
    for _ in range(3):
        adapted(**BATCH, labels=LABELS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted.eval(), tokenizer


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**BATCH).logits[..., 3:]


def test_only_the_adapter_learns(adapted: tuple[Any, Any], checkpoint: Path) -> None:
    """Rows of old items that move, or a body that does, make the adapter useless without its own copy of the model."""
    before = dict(grown(checkpoint)[0].named_parameters())
    trained = adapted[0].get_base_model()
    assert not torch.equal(logits(trained), logits(grown(checkpoint)[0]))
    with adapted[0].disable_adapter():
        for name, weight in adapted[0].named_parameters():
            plain = name.replace("base_model.model.", "", 1).replace(".base_layer", "").replace(".original_module", "")
            if plain in before:
                assert torch.equal(weight, before[plain]), name
    merged = adapted[0].merge_and_unload()
    rows = merged.model.embeddings.item_embeddings.weight
    old = before["model.embeddings.item_embeddings.weight"]
    assert torch.equal(rows[:23], old[:23])
    assert not torch.equal(rows[23:], old[23:])


def test_the_bias_of_the_items_is_kept(checkpoint: Path) -> None:
    """PEFT's layer around the tied decoder drops its bias: every item would lose its popularity."""
    model, _ = grown(checkpoint)
    with torch.no_grad():
        model.decoder.bias.normal_()
    expected = logits(model)
    config = peft.LoraConfig(r=2, target_modules=["query_key_value"], trainable_token_indices={"item_embeddings": [4]})
    torch.testing.assert_close(logits(peft.get_peft_model(model, config).eval()), expected)


def test_save_load_and_merge_give_the_same_scores(adapted: tuple[Any, Any], checkpoint: Path, tmp_path: Path) -> None:
    """An adapter that loads without its rows scores the new items at random."""
    model, tokenizer = adapted
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(grown(checkpoint)[0], tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), expected)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")
    merged, items = load_checkpoint(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected)
    assert items.items["item_id"].to_pylist() == [*ITEMS, *NEW_ITEMS]


def test_l2sp_pulls_what_the_adapter_trains_and_nothing_else(
    adapted: tuple[Any, Any], checkpoint: Path, tmp_path: Path
) -> None:
    """The rows of new items are not in the checkpoint: held to its rows of that number, they would become old items."""
    model, tokenizer = adapted
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name or "trainable_tokens_delta" in name for name in trained)
    expected = sum(float(weight.detach().square().sum()) for weight in trained.values())
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    start = (TrainingArguments(output_dir=str(tmp_path), report_to=[]), TrainerState(), TrainerControl())
    callback = L2SPCallback(checkpoint, alpha=1.0, beta=2.0, tokenizer=tokenizer)
    callback.on_train_begin(*start, model=model, optimizer=optimizer)
    assert callback.penalty()["l2sp_penalty"] == pytest.approx(expected, rel=1e-6)
    callback = L2SPCallback(checkpoint, alpha=1.0, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="no trainable weight is in the reference"):
        callback.on_train_begin(*start, model=model, optimizer=optimizer)


def test_an_adapter_is_pushed_without_the_model(
    adapted: tuple[Any, Any], checkpoint: Path, hub: Hub, client: Client, tmp_path: Path
) -> None:
    """An adapter is small; a push that wants the whole model defeats it."""
    model, tokenizer = adapted
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    client("push", str(tmp_path / "adapter"), "ann/adapter")
    files = hub.files("ann/adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "items.parquet"} <= set(files)
    assert "model.safetensors" not in files
    folder = Path(client("pull", "ann/adapter", verify=True))
    assert (folder / "adapter_model.safetensors").read_bytes() == hub.content(
        "ann/adapter", "adapter_model.safetensors"
    )
    loaded = peft.PeftModel.from_pretrained(grown(checkpoint)[0], folder).eval()
    torch.testing.assert_close(logits(loaded), logits(model))
    assert ItemTokenizer.from_pretrained(folder).items["item_id"].to_pylist() == [*ITEMS, *NEW_ITEMS]
