"""A trained model on a catalogue it has never seen: what stays to the bit, what is new, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    ItemTokenizer,
    L2SPCallback,
    adopt_catalogue,
    content_features,
    describe_content,
    load_checkpoint,
    recommend,
    set_item_features,
    synthetic_tables,
)
from hfrec.training.anchors import Plan
from hfrec.transfer.adoption import adopt
from hfrec_command import main

KINDS = ("red", "green", "blue", "round", "flat", "long")


def catalogue(prefix: str, number: int, seed: int) -> pa.Table:
    draw = np.random.default_rng(seed)
    kinds = ["|".join(draw.choice(KINDS, 2, replace=False)) for _ in range(number)]
    return pa.table({"item_id": [f"{prefix}{row}" for row in range(number)], "kind": kinds})


def source() -> tuple[Bert4RecForCausalLM, ItemTokenizer]:
    """A small model of 20 items whose weights are all drawn, as if they were trained."""
    table = catalogue("s", 20, 0)
    specification = describe_content(table, category_column="kind")
    shape: dict[str, Any] = {"item_representation": "content+id", "hidden_size": 8, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=23, item_content=specification.to_dict(), **shape)
    model = Bert4RecForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    set_item_features(model, content_features(specification, table))
    model.eval()
    return model, ItemTokenizer.from_items(table["item_id"].to_pylist())


def test_body_and_adapter_are_carried_over_to_the_bit() -> None:
    """What adoption changes is lost: nothing would be left of the pretraining."""
    model, tokenizer = source()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    adopt_catalogue(model, tokenizer, catalogue("t", 9, 1))
    by_item = ("item_embeddings.weight", "decoder.weight", "decoder.bias", "features", ".mean", ".whitening")
    carried = [name for name in before if not name.endswith(by_item)]
    assert len(carried) == len(before) - 6
    for name in carried:
        assert model.state_dict()[name].equal(before[name]), name
    assert not model.get_input_embeddings().weight[3:].any()


def test_scores_equal_those_of_a_model_built_by_hand() -> None:
    """Rows, features or statistics in another order give scores that look right."""
    model, tokenizer = source()
    other = catalogue("t", 9, 1)
    specification = describe_content(catalogue("s", 20, 0), category_column="kind")
    rows = content_features(specification, other)
    config = Bert4RecConfig(**{**model.config.to_dict(), "vocab_size": 12})
    by_hand = Bert4RecForCausalLM(config)
    state = model.state_dict()
    block = "model.embeddings.content.blocks.0."
    mean, axes, matrix = (state[block + name].double().numpy() for name in ("mean", "basis", "whitening"))
    items = rows.double().numpy()
    spread = (9 * np.cov((items @ axes).T, bias=True) + 1000 * np.linalg.inv(matrix @ matrix)) / 1009
    values, vectors = np.linalg.eigh(spread)
    values = np.maximum(values, 1e-3 * values.max())
    state[block + "mean"] = torch.from_numpy((items.sum(axis=0) + 30 * mean) / 39).float()
    state[block + "whitening"] = torch.from_numpy((vectors / np.sqrt(values)) @ vectors.T).float()
    state["model.embeddings.content.features"] = torch.cat([torch.zeros(3, rows.shape[1]), rows])
    bias = state["decoder.bias"]
    state["decoder.bias"] = torch.cat([bias[:3], bias[3:].mean().repeat(9)])
    residuals = state["model.embeddings.item_embeddings.weight"]
    for name in ("model.embeddings.item_embeddings.weight", "decoder.weight"):
        state[name] = torch.cat([residuals[:3], torch.zeros(9, residuals.shape[1])])
    by_hand.load_state_dict(state)
    by_hand.eval()
    adopt_catalogue(model, tokenizer, other)
    history = torch.tensor([[3, 7, 11]])
    with torch.no_grad():
        found, expected = (each.score_items(each.encode_history(history)) for each in (model, by_hand))
    assert torch.allclose(found, expected, atol=1e-3)


def test_items_known_by_id_keep_what_they_learnt_and_optimiser_moments_follow() -> None:
    model, tokenizer = source()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()
    model(input_ids=torch.tensor([[3, 4]]), labels=torch.tensor([[4, 5]])).loss.backward()
    optimizer.step()
    weight = model.get_input_embeddings().weight
    row, bias = weight[8].detach().clone(), model.decoder.bias[8].detach().clone()
    moments = optimizer.state[weight]["exp_avg"][8].clone()
    mixed = pa.concat_tables([catalogue("t", 9, 1), catalogue("s", 20, 0).slice(5, 1)])
    adopted = adopt_catalogue(model, tokenizer, mixed, optimizer=optimizer)
    place = adopted.get_vocab()["s5"]
    assert place == 12 and weight[place].equal(row) and model.decoder.bias[place].equal(bias)
    assert optimizer.state[weight]["exp_avg"][place].equal(moments)
    assert not optimizer.state[weight]["exp_avg"][3].any()


def test_a_catalogue_that_is_mostly_known_keeps_the_statistics() -> None:
    """Whitened anew for one more item, every known item would move."""
    model, tokenizer = source()
    before = model.item_table()[3:23].detach().clone()
    adopt_catalogue(model, tokenizer, pa.concat_tables([catalogue("s", 20, 0), catalogue("t", 1, 1)]))
    assert torch.allclose(model.item_table()[3:23], before, atol=1e-6)


def test_another_item_under_a_known_id_is_new() -> None:
    """Two shops both have an item 1: the one would rank by what the other has learnt."""
    model, tokenizer = source()
    other = catalogue("s", 20, 1)  # the same ids, other content
    kept = [a == b for a, b in zip(other["kind"].to_pylist(), catalogue("s", 20, 0)["kind"].to_pylist(), strict=True)]
    adoption = adopt(model, tokenizer, other)
    residuals = model.get_input_embeddings().weight[3:].abs().sum(dim=1) > 0
    assert not all(kept) and adoption.num_namesakes >= 15 and residuals.sum() == adoption.num_shared
    assert all(found or not same for same, found in zip(kept, residuals.tolist(), strict=True))
    assert "under the id of another item" in str(adoption)


def test_the_same_item_under_another_id_keeps_what_it_learnt() -> None:
    """Two shops number the same goods in their own ways; what one log taught of them would be thrown away."""
    model, tokenizer = source()
    kinds = catalogue("s", 20, 0)["kind"].to_pylist()
    sets = [frozenset(kind.split("|")) for kind in kinds]
    alone = [row for row, kind in enumerate(sets) if sets.count(kind) == 1]
    several = [row for row, kind in enumerate(sets) if sets.count(kind) > 1]
    assert len(alone) >= 3 and several
    ids = [f"t{row}" for row in range(len(alone) + 2)]
    # The last two are alike: nobody can say which of them is the known one.
    other = pa.table({"item_id": ids, "kind": [kinds[row] for row in (*alone[:-1], several[0], alone[-1], alone[-1])]})
    weight, bias = (part.detach().clone() for part in (model.get_input_embeddings().weight, model.decoder.bias))
    adoption = adopt(model, tokenizer, other)
    number = len(alone) - 1
    assert adoption.known == {f"s{row}": place + 3 for place, row in enumerate(alone[:-1])}
    assert adoption.new.tolist() == [False] * number + [True] * 3
    assert adoption.num_twins == adoption.num_shared == number and adoption.num_namesakes == 0
    assert "under another id, by their content" in str(adoption)
    rows = [row + 3 for row in alone[:-1]]
    assert model.get_input_embeddings().weight[3 : 3 + number].equal(weight[rows])
    assert model.decoder.bias[3 : 3 + number].equal(bias[rows])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (catalogue("t", 1, 1), "at least two items"),
        (pa.concat_tables([catalogue("t", 2, 1)] * 2), "more than one row"),
        (catalogue("t", 2, 1).set_column(1, "kind", pa.array([None, ""])), "None of the 2 `items` .* some in kind"),
        (
            catalogue("t", 3, 1).rename_columns(["item_id", "colour"]),
            r"made of kind.* no column kind, found item_id, colo",
        ),
    ],
)
def test_a_catalogue_that_does_not_fit_changes_nothing(items: pa.Table, message: str) -> None:
    model, tokenizer = source()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        adopt_catalogue(model, tokenizer, items)
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_a_model_of_ids_is_refused() -> None:
    model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=5))
    with pytest.raises(ValueError, match="item_representation content"):
        adopt_catalogue(model, ItemTokenizer.from_items(["a", "b"]), catalogue("t", 3, 1))


def test_l2sp_draws_residuals_to_zero_and_the_body_to_its_start(tmp_path: Path) -> None:
    """One strength for both would hold the body too loosely or the items too tightly; against autograd."""
    model, tokenizer = source()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    adopted = adopt_catalogue(model, tokenizer, catalogue("t", 9, 1))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    callback = L2SPCallback(str(tmp_path), alpha=0.3, beta=0.2, residual=0.7, tokenizer=adopted)
    plan = Plan(model, callback._reference, adopted.get_vocab(), alpha=0.3, beta=0.2, residual=0.7)
    terms = {term.name: term for term in plan.terms(include_vectors=True)}
    penalty = torch.zeros(())
    for name, weight in model.named_parameters():
        if name == "model.embeddings.item_embeddings.weight":
            penalty = penalty + 0.7 / 2 * (weight[:3] - start[name][:3]).square().sum()
            penalty = penalty + 0.7 / 2 * weight[3:].square().sum()
        elif name == "decoder.bias":  # the rows of special tokens are shared, those of the items new
            penalty = penalty + 0.3 / 2 * (weight[:3] - start[name][:3]).square().sum()
            penalty = penalty + 0.2 / 2 * weight[3:].square().sum()
        elif not name.startswith(("head.", "recent.")):  # what is added to content starts anew with the catalogue
            penalty = penalty + 0.3 / 2 * (weight - start[name]).square().sum()
    penalty.backward()
    for name, weight in model.named_parameters():
        if weight.grad is None:
            assert name.startswith(("head.", "recent.")) and name not in terms
            continue
        assert torch.allclose(terms[name].offset() * terms[name].strength, weight.grad, atol=1e-6), name


def test_the_way_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pretrain, adopt, fine-tune on a log with no shared item, evaluate and recommend: flags that others rely on."""
    sizes = {"num_users": 40, "num_items": 24, "num_groups": 4, "min_length": 5, "max_length": 12}
    log, items = synthetic_tables(**sizes)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    pyarrow.csv.write_csv(items, tmp_path / "items.csv")
    other, shop = (
        table.set_column(
            table.column_names.index("item_id"),
            "item_id",
            pa.array([f"shop-{i}" for i in table["item_id"].to_pylist()]),
        )
        for table in synthetic_tables(**sizes, seed=1)
    )
    pyarrow.csv.write_csv(other, tmp_path / "other.csv")
    pyarrow.csv.write_csv(shop, tmp_path / "shop.csv")
    quick = ["--num_train_epochs", "1", "--disable_tqdm", "true", "--early_stopping_patience", "0"]
    words = ["pretrain", "--train_file", tmp_path / "log.csv", "--items_file", tmp_path / "items.csv", *quick]
    words += ["--hidden_size", "16", "--num_hidden_layers", "1", "--max_length", "10", "--output_dir", tmp_path / "out"]
    run(*words, "--category_column", "genres", code=1)
    assert "go together" in capsys.readouterr().err
    run(*words, "--item_representation", "content+id", "--category_column", "genres", "--objective", "causal")
    checkpoint = ["--model_name_or_path", tmp_path / "out"]
    run("items", "adopt", *checkpoint, "--items_file", tmp_path / "shop.csv", "--output_dir", tmp_path / "adopted")
    assert "0 known, 24 new, 24 dropped" in capsys.readouterr().out
    shopping = ["--items_file", tmp_path / "shop.csv"]
    target = ["--train_file", tmp_path / "other.csv", *quick, "--l2sp_alpha", "0.01", "--l2sp_residual", "0.1"]
    run("finetune", *checkpoint, *target, "--output_dir", tmp_path / "none", code=1)
    assert "--items_file" in capsys.readouterr().err and not (tmp_path / "none" / "model.safetensors").exists()
    pyarrow.csv.write_csv(shop.slice(4), tmp_path / "part.csv")
    part = ["--items_file", tmp_path / "part.csv", "--output_dir", tmp_path / "part"]
    run("finetune", *checkpoint, *target, *part, code=1)
    assert "lacks" in capsys.readouterr().err
    run("finetune", *checkpoint, *target, *shopping, "--output_dir", tmp_path / "tuned")
    history = ["--history_file", tmp_path / "other.csv", "--top_k", "3"]
    run("evaluate", *checkpoint, "--test_file", tmp_path / "other.csv", *shopping, "--output_dir", tmp_path / "eval")
    run("recommend", *checkpoint, *history, *shopping, "--output_file", tmp_path / "zero.csv")
    run("recommend", "--model_name_or_path", tmp_path / "adopted", *history, "--output_file", tmp_path / "same.csv")
    assert (tmp_path / "zero.csv").read_text() == (tmp_path / "same.csv").read_text()
    model, tokenizer = load_checkpoint(tmp_path / "tuned")
    (found,) = recommend(model, tokenizer, [shop["item_id"].to_pylist()[:2]], top_k=5)
    assert len(found) == 5 and all(item["item_id"].startswith("shop-") for item in found)
    assert model.get_input_embeddings().weight[3:].any()  # the residuals of the shop's items


def renamed(table: pa.Table) -> pa.Table:
    """The same under ids that no other catalogue has."""
    ids = pa.array([f"shop-{item}" for item in table["item_id"].to_pylist()])
    return table.set_column(table.column_names.index("item_id"), "item_id", ids)


def run(*words: Any, code: int = 0) -> None:
    assert main([str(word) for word in words]) == code
