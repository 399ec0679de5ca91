"""Items that come, go, change their ids or give way to another catalogue: nothing lost, nothing half-done."""

from __future__ import annotations

import copy
from typing import Any

import pyarrow as pa
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer, L2SPCallback
from hfrec.training.anchors import Plan
from hfrec.transfer import (
    ItemRows,
    add_items,
    align_catalogue,
    plan_catalogue,
    remove_items,
    rename_items,
    renamed_vocabulary,
)

ITEMS = ["a", "b", "c", "d"]
MASK = 1


def build(model_class: Any = Bert4RecForMaskedLM, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, hidden_dropout_prob=0.0, **kwargs)
    model = model_class(config).eval()
    if model.decoder.bias is not None:
        torch.nn.init.normal_(model.decoder.bias)
    return model


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    metadata = pa.table({"item_id": ITEMS, "title": ["A", "B", None, "D"], "year": [1, 2, 3, 4]})
    return ItemTokenizer.from_items(ITEMS, metadata=metadata, counts=dict(zip(ITEMS, (9, 8, 7, 6), strict=True)))


def item_rows(model: Any, tokenizer: ItemTokenizer) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Embedding and bias by item id, special tokens included."""
    weight, bias = model.get_input_embeddings().weight.detach().clone(), model.decoder.bias.detach().clone()
    return {item: (weight[row], bias[row]) for item, row in tokenizer.get_vocab().items()}


def same(left: tuple[torch.Tensor, torch.Tensor], right: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return torch.equal(left[0], right[0]) and torch.equal(left[1], right[1])


def trained(model: Any, optimizer: torch.optim.Optimizer, tokenizer: ItemTokenizer) -> None:
    rows = len(tokenizer)
    for item in range(3, rows):
        model(input_ids=torch.tensor([[3, MASK]]), labels=torch.tensor([[-100, item]])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_ranks_among_untouched_items_stay(model_class: Any, tied: bool, tokenizer: ItemTokenizer) -> None:
    """An addition or a removal that reorders what it does not touch changes everybody's recommendations unseen."""
    model = build(model_class, tie_word_embeddings=tied)
    inputs = {"input_ids": torch.tensor([[3, 5, MASK]]), "logits_to_keep": 1}
    before = model(**inputs).logits[0, 0, 3:]
    grown = add_items(model, tokenizer, ["x", "y"])
    between = model(**inputs).logits[0, 0, 3:]
    assert between[:4].argsort().tolist() == before.argsort().tolist()
    smaller = remove_items(model, grown, ["b", "x"])
    assert smaller.items["item_id"].to_pylist() == ["a", "c", "d", "y"]
    assert smaller.items["count"].to_pylist() == [9, 7, 6, 0]
    after = model(input_ids=torch.tensor([[3, 4, MASK]]), logits_to_keep=1).logits[0, 0, 3:]
    torch.testing.assert_close(after, between[[0, 2, 3, 5]])
    assert (model.decoder.weight is model.get_input_embeddings().weight) is tied


def test_alignment_keeps_rows_titles_and_counts_of_matched_items(tokenizer: ItemTokenizer) -> None:
    """A row that lands at another item's place looks like a trained one and is wrong."""
    model = build()
    before = item_rows(model, tokenizer)
    metadata = pa.table({"item_id": ["b", "n"], "title": ["B2", "N"], "genre": ["g", "h"]})
    items = ["n", "d", "b"]
    assert str(plan_catalogue(tokenizer, items)) == "2 of 3 items matched (66.7%), 1 new, 2 dropped"
    aligned = align_catalogue(model, tokenizer, items, metadata=metadata)
    after = item_rows(model, aligned)
    assert all(same(after[item], before[item]) for item in ("[PAD]", "[MASK]", "[UNK]", "b", "d"))
    assert after["n"][1] == 0.0
    assert model.config.vocab_size == len(aligned) == model.decoder.out_features == 6
    assert aligned.items.to_pylist() == [
        {"item_id": "n", "title": "N", "year": None, "genre": "h", "count": 0},
        {"item_id": "d", "title": "D", "year": 4, "genre": None, "count": 6},
        {"item_id": "b", "title": "B2", "year": 2, "genre": "g", "count": 8},
    ]


def test_a_mapping_is_the_only_way_to_match(tokenizer: ItemTokenizer) -> None:
    """Id "a" of two catalogues may be two things: beside a mapping, equal ids must not match."""
    model = build()
    before = item_rows(model, tokenizer)
    mapping = {"b": "a", "z": "q", "d": "elsewhere", "c": "k"}
    plan = plan_catalogue(tokenizer, ["a", "k", "m"], mapping)
    assert (plan.matched, plan.new, plan.dropped, plan.unused) == ({"b": "a", "c": "k"}, ["m"], ["a", "d"], 2)
    aligned = align_catalogue(model, tokenizer, ["a", "k", "m"], mapping)
    after = item_rows(model, aligned)
    assert same(after["a"], before["b"])
    assert same(after["k"], before["c"])
    assert aligned.items["title"].to_pylist() == ["B", None, None]


def test_given_rows_are_what_new_items_start_from(tokenizer: ItemTokenizer) -> None:
    """Rows in another order than the plan's new items would start every item from another's content."""
    model = build()
    rows = ItemRows(torch.arange(16.0).view(2, 8), torch.tensor([5.0, 6.0]))
    aligned = align_catalogue(model, tokenizer, ["m", "b", "n"], rows=rows)
    after = item_rows(model, aligned)
    assert same(after["m"], (rows.embeddings[0], torch.tensor(5.0)))
    assert same(after["n"], (rows.embeddings[1], torch.tensor(6.0)))


@pytest.mark.parametrize("tied", [True, False])
def test_adam_moments_move_with_their_rows(tied: bool, tokenizer: ItemTokenizer) -> None:
    """Moments left behind steer an item by the gradients of the item that was there before."""
    model = build(tie_word_embeddings=tied)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
    trained(model, optimizer, tokenizer)
    tables = list({id(w): w for w in (model.get_input_embeddings().weight, *model.decoder.parameters())}.values())
    old = [{name: value.clone() for name, value in optimizer.state[table].items()} for table in tables]
    aligned = align_catalogue(model, tokenizer, ["n", "d", "a"], optimizer=optimizer)
    for table, before in zip(tables, old, strict=True):
        state = optimizer.state[table]
        assert state["step"] == before["step"]
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert before[name][3:].abs().sum() > 0
            assert torch.equal(state[name][[0, 1, 2, 4, 5]], before[name][[0, 1, 2, 6, 3]])
            assert not state[name][3].any()
    trained(model, optimizer, aligned)
    assert all(torch.isfinite(table).all() for table in tables)


def test_untouched_items_train_on_as_if_nothing_had_been_added(tokenizer: ItemTokenizer) -> None:
    """An optimiser that lost its parameter goes on without an error and never changes the embeddings again."""
    model, twin = build(), build()
    optimizers = [torch.optim.Adam(each.parameters(), lr=0.01) for each in (model, twin)]
    for each, optimizer in zip((model, twin), optimizers, strict=True):
        trained(each, optimizer, tokenizer)
    # A bias of minus infinity would be out of the softmax; -40 is as good, and finite.
    rows = ItemRows(torch.zeros(1, 8), torch.tensor([-40.0]))
    add_items(model, tokenizer, ["n"], rows=rows, optimizer=optimizers[0])
    for each, optimizer in zip((model, twin), optimizers, strict=True):
        trained(each, optimizer, tokenizer)
    torch.testing.assert_close(model.decoder.weight[:7], twin.decoder.weight)
    torch.testing.assert_close(model.decoder.bias[:7], twin.decoder.bias)


def test_renaming_moves_no_row(tokenizer: ItemTokenizer) -> None:
    """New ids on moved rows would show other items' titles."""
    model = build()
    before = copy.deepcopy(model.state_dict())
    renamed = rename_items(model, tokenizer, {"a": "b", "b": "a", "d": 17})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert renamed.items.drop_columns(["year"]).to_pylist() == [
        {"item_id": "b", "title": "A", "count": 9},
        {"item_id": "a", "title": "B", "count": 8},
        {"item_id": "c", "title": None, "count": 7},
        {"item_id": "17", "title": "D", "count": 6},
    ]


def anchored(model: Any, tokenizer: ItemTokenizer, reference: Any, vocabulary: Any) -> int:
    """Anchored item rows, specials left out; raises when one is not anchored at its own pretrained row."""
    callback = L2SPCallback(reference, alpha=1.0, reference_tokenizer=vocabulary)
    plan = Plan(model, callback._reference, dict(tokenizer.get_vocab()), alpha=1.0, beta=0.0)
    callback._terms = plan.terms(include_vectors=True)
    assert callback.penalty()["l2sp_penalty"] == 0.0
    (term,) = (term for term in callback._terms if term.name.endswith("item_embeddings.weight"))
    strength = term.anchored.view(-1) if isinstance(term.anchored, torch.Tensor) else torch.ones(len(term.parameter))
    return int(strength[3:].sum())


def test_the_l2sp_reference_follows_a_renaming_and_an_alignment(tokenizer: ItemTokenizer) -> None:
    """Matched by the old ids, a renamed item counts as new: its row is free, or pulled to another item's."""
    pretrained, model = build(), build()
    renamed = rename_items(model, tokenizer, {"a": "b", "b": "a"})
    vocabulary = renamed_vocabulary(tokenizer, {"a": "b", "b": "a"})
    assert vocabulary == renamed.get_vocab()
    assert anchored(model, renamed, pretrained, vocabulary) == 4
    with pytest.raises(AssertionError):  # by the old ids, a and b are pulled to one another
        anchored(model, renamed, pretrained, tokenizer)
    mapping = {"b": "a", "c": "k"}
    model = build()
    aligned = align_catalogue(model, tokenizer, ["n", "k", "a"], mapping)
    assert anchored(model, aligned, pretrained, renamed_vocabulary(tokenizer, mapping, keep_others=False)) == 2


def test_label_counts_of_sampled_losses_move_too(tokenizer: ItemTokenizer) -> None:
    """Counts by old token id would correct the sampling of one item by the frequency of another."""
    model = build()
    model.register_buffer("label_counts", torch.arange(7.0))
    align_catalogue(model, tokenizer, ["n", "d", "b"])
    assert model.label_counts.tolist() == [0.0, 1.0, 2.0, 0.0, 6.0, 4.0]


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("found 2 unknown ones: x, y", lambda m, t: remove_items(m, t, ["a", "x", "y"])),
        ("'a' twice", lambda m, t: remove_items(m, t, ["a", "a"])),
        ("all 4 items", lambda m, t: remove_items(m, t, ITEMS)),
        ("`items` must hold at least one", lambda m, t: remove_items(m, t, [])),
        ("`mapping` must hold at least one", lambda m, t: rename_items(m, t, {})),
        ("unknown ones: x", lambda m, t: rename_items(m, t, {"x": "y"})),
        ("gives a, b the one id 'b'", lambda m, t: rename_items(m, t, {"a": "b"})),
        ("gives a, b the one id 'x'", lambda m, t: rename_items(m, t, {"a": "x", "b": "x"})),
        ("\\[UNK\\], the name of a special token", lambda m, t: rename_items(m, t, {"a": "[UNK]"})),
        ("null id", lambda m, t: rename_items(m, t, {"a": None})),
        ("`items` must hold at least one", lambda m, t: align_catalogue(m, t, [])),
        ("'a' twice", lambda m, t: align_catalogue(m, t, ["a", "a"])),
        ("`mapping` must hold at least one", lambda m, t: align_catalogue(m, t, ["a"], {})),
        ("leads a, b onto the one item 'x'", lambda m, t: align_catalogue(m, t, ["x"], {"a": "x", "b": "x"})),
        ("None of the 2 `items`", lambda m, t: align_catalogue(m, t, ["x", "y"])),
        ("shape \\(1, 8\\)", lambda m, t: align_catalogue(m, t, ["a", "x"], rows=ItemRows(torch.zeros(1, 4)))),
        (
            "shape \\(1,\\)",
            lambda m, t: add_items(m, t, ["x"], rows=ItemRows(torch.zeros(1, 8), torch.zeros(2))),
        ),
        ("must be finite", lambda m, t: add_items(m, t, ["x"], rows=ItemRows(torch.full((1, 8), float("nan"))))),
        (
            "found none of the model's weights",
            lambda m, t: remove_items(m, t, ["a"], optimizer=torch.optim.SGD([torch.zeros(1)], lr=1.0)),
        ),
        ("the model's 7 tokens, found 4", lambda m, t: rename_items(m, ItemTokenizer.from_items(["a"]), {"a": "x"})),
        (
            "int64 in column 'year'",
            lambda m, t: align_catalogue(m, t, ["a"], metadata=pa.table({"item_id": ["a"], "year": ["soon"]})),
        ),
    ],
)
def test_bad_input_changes_nothing(message: str, change: Any, tokenizer: ItemTokenizer) -> None:
    """A model changed before its tokenizer is refused belongs to no tokenizer at all."""
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        change(model, tokenizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.vocab_size == model.decoder.out_features == 7
    assert tokenizer.items["item_id"].to_pylist() == ITEMS


def test_an_optimizer_without_rows_is_refused_before_anything_moves(tokenizer: ItemTokenizer) -> None:
    """A factored second moment has no rows to move; left alone it would fail, or worse fit, at the next step."""
    model = build()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    trained(model, optimizer, tokenizer)
    with pytest.raises(ValueError, match="must keep its state by row, found 'row_var'"):
        add_items(model, tokenizer, ["x"], optimizer=optimizer)
    assert model.get_input_embeddings().weight.shape == (7, 8)
