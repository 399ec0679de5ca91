"""Models whose items are their content: what is frozen, what new items get, what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForMaskedLM,
    ItemTokenizer,
    add_items,
    feature_rows,
    load_checkpoint,
    recommend,
    remove_items,
    set_item_features,
    synthetic_tables,
    unit_features,
)
from hfrec_command import main

QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]
ITEMS = ["a", "b", "c", "d"]


def feature_model() -> tuple[Bert4RecForMaskedLM, ItemTokenizer]:
    """Four items with the axes of a space as content."""
    torch.manual_seed(0)
    tokenizer = ItemTokenizer.from_items(ITEMS)
    config = Bert4RecConfig(vocab_size=7, embedding_size=6, hidden_size=8, item_features=True, num_hidden_layers=1)
    model = Bert4RecForMaskedLM(config)
    set_item_features(model, torch.eye(4))
    return model, tokenizer


def test_content_is_never_trained_and_stays_so_after_loading(tmp_path: Path) -> None:
    """Content that a step changes is no content any more, and a new item's features would mean something else."""
    model, tokenizer = feature_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = load_checkpoint(tmp_path)
    for each in (model, loaded):
        weight = each.get_input_embeddings().weight
        before = weight.detach().clone()
        assert not weight.requires_grad and each.get_output_embeddings().weight is weight
        optimizer = torch.optim.AdamW([w for w in each.parameters() if w.requires_grad], lr=0.1)
        each.train()
        each(input_ids=torch.tensor([[3, 1]]), labels=torch.tensor([[-100, 4]])).loss.backward()
        optimizer.step()
        assert weight.equal(before) and each.model.embeddings.projection.weight.grad.abs().max() > 0


@pytest.mark.parametrize("hidden_size", [6, 8])
def test_an_adapter_stands_between_content_and_body_also_at_equal_widths(hidden_size: int) -> None:
    """Without it, frozen features of the model's width would go into the body as they are."""
    config = Bert4RecConfig(vocab_size=7, embedding_size=6, hidden_size=hidden_size, item_features=True)
    assert isinstance(Bert4RecForMaskedLM(config).model.embeddings.projection, torch.nn.Linear)


def test_a_new_item_with_known_content_scores_as_its_twin() -> None:
    """The use of it all: an item never trained ranks by its content."""
    model, tokenizer = feature_model()
    model.decoder.bias.data[3:] = torch.tensor([1.0, 1.0, 3.0, 3.0])
    tokenizer = add_items(model, tokenizer, ["twin of b"], rows=feature_rows(model, torch.eye(4)[1:2]))
    model.eval()
    scores = model.score_items(model.encode_history(torch.tensor([[3, 5, 1]])))[0].detach()
    bias = model.decoder.bias.detach()
    assert scores[7] - bias[7] == pytest.approx(float(scores[4] - bias[4]), abs=1e-6)
    assert bias[7] == pytest.approx(2.0)
    (found,) = recommend(model, tokenizer, [["a", "twin of b"]], top_k=3)
    assert {item["item_id"] for item in found} == {"b", "c", "d"}
    smaller = remove_items(model, tokenizer, ["a"])
    assert model.get_input_embeddings().weight[3:, :4].tolist() == [*torch.eye(4)[1:].tolist(), [0, 1, 0, 0]]
    assert len(smaller) == model.config.vocab_size


def test_mask_and_unknown_have_columns_of_their_own() -> None:
    """A mask that looks like some item's content could not be told from it."""
    model, _ = feature_model()
    specials = model.get_input_embeddings().weight[:3]
    assert specials[0].abs().sum() == 0 and specials[1].tolist() == [0, 0, 0, 0, 1, 0] and specials[2, 5] == 1


def test_new_items_without_features_are_refused() -> None:
    """Random rows would be random content."""
    model, tokenizer = feature_model()
    with pytest.raises(ValueError, match=r"features of the new items.*hfrec items add"):
        add_items(model, tokenizer, ["e"])
    assert len(tokenizer) == model.config.vocab_size == 7
    with pytest.raises(ValueError, match=r"\(new items, 4\).*\(1, 5\).*same encoder"):
        feature_rows(model, torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"of the shape \(4, 4\).*\(3, 4\)"):
        set_item_features(model, torch.ones(3, 4))
    with pytest.raises(ValueError, match="item_features=False"):
        set_item_features(Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=7)), torch.ones(4, 62))


def test_bad_features_are_refused() -> None:
    """A number that is none spreads to every score."""
    with pytest.raises(ValueError, match="finite"):
        unit_features(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        unit_features(torch.ones(1, 2), torch.ones(2, 2))


def test_pretrain_on_content_then_add_an_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands must make features of one width, or a new item can never come in."""
    log, items = synthetic_tables(num_users=40, num_items=24, num_groups=4, min_length=5, max_length=12)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    pyarrow.csv.write_csv(items, tmp_path / "items.csv")
    first = items.slice(0, 1).to_pylist()[0]
    new = pa.Table.from_pylist([{**first, "item_id": "new"}])
    pyarrow.csv.write_csv(new, tmp_path / "new.csv")
    words = ["pretrain", "--train_file", str(tmp_path / "log.csv"), "--output_dir", str(tmp_path / "out")]
    words += ["--items_file", str(tmp_path / "items.csv"), "--num_train_epochs", "1", "--max_length", "10"]
    words += ["--hidden_size", "16", "--num_hidden_layers", "1", *QUIET]
    assert main([*words, "--category_column", "genres"]) == 1
    assert "go together" in capsys.readouterr().err
    assert main([*words, "--item_features", "true", "--category_column", "genres"]) == 0
    words = ["items", "add", "--model_name_or_path", str(tmp_path / "out"), "--items_file", str(tmp_path / "new.csv")]
    assert main([*words, "--category_column", "genres", "--output_dir", str(tmp_path / "grown")]) == 0
    model, tokenizer = load_checkpoint(tmp_path / "grown")
    twin, new_row = tokenizer.encode_column([first["item_id"], "new"]).to_pylist()
    weight = model.get_input_embeddings().weight
    assert model.config.item_features and weight[twin].equal(weight[new_row]) and weight[twin].norm() == 1
