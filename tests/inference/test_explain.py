"""Reasons: the difference that one past item makes, recomputed from whole logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemKNNBaseline,
    ItemTokenizer,
    MarkovBaseline,
)
from hfrec.blending.parts import make_blend
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.inference.explain import explain
from hfrec.inference.prior import PopularityPrior

ITEMS = [f"item {number}" for number in range(20)]
LENGTH = 6


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(ITEMS)


def network(model_class: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": LENGTH}
    return model_class(Bert4RecConfig(**sizes, initializer_range=0.5)).eval()


def markov_blend() -> Any:
    """A blend of one Markov chain: only the newest item says anything."""
    rows = np.random.default_rng(0).integers(3, 23, (60, 8)).tolist()
    chain = MarkovBaseline(k=10, smoothing=1.0).fit(rows, 23)
    return make_blend({"markov": chain}, [1.0], counts=np.bincount(np.concatenate(rows), minlength=23))


@pytest.fixture(scope="module", params=[Bert4RecForMaskedLM, Bert4RecForCausalLM, None])
def model(request: pytest.FixtureRequest) -> Any:
    return markov_blend() if request.param is None else network(request.param)


@torch.no_grad()
def log_probability(model: Any, tokenizer: ItemTokenizer, history: list[str], item: str) -> float:
    """One history, the whole catalogue at once, no collator."""
    tokens = tokenizer.encode_column(history).to_pylist()
    if isinstance(model, Bert4RecForMaskedLM):
        tokens = [*tokens, tokenizer.mask_token_id]
    if isinstance(model, (Bert4RecForMaskedLM, Bert4RecForCausalLM)):
        tokens = (tokens or [tokenizer.unk_token_id])[-LENGTH:]
    tokens = tokens or [tokenizer.pad_token_id]
    logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
    (token,) = tokenizer.encode_column([item]).to_pylist()
    return float(logits.double().log_softmax(dim=0)[token])


@pytest.mark.parametrize("length", [1, 2, 5, 6, 9])
def test_contributions_are_differences_of_log_probabilities(model: Any, tokenizer: ItemTokenizer, length: int) -> None:
    """A reason that is no difference of what the model says with and without the item is an invention."""
    history, item = ITEMS[:length], "item 15"
    whole = log_probability(model, tokenizer, history, item)
    expected = {
        past: whole - log_probability(model, tokenizer, [other for other in history if other != past], item)
        for past in history
    }
    reasons = explain(model, tokenizer, history, [item], top_k=20)[0]
    assert {reason["item_id"]: reason["contribution"] for reason in reasons} == pytest.approx(expected, abs=1e-4)
    values = [reason["contribution"] for reason in reasons]
    assert values == sorted(values, reverse=True)


def test_an_item_goes_wherever_it_stands(tokenizer: ItemTokenizer) -> None:
    """Taking out one of two occurrences leaves the other, which says the same: no reason would be left."""
    model = network(Bert4RecForMaskedLM)
    history = ["item 1", "item 2", "item 1"]
    reasons = explain(model, tokenizer, history, ["item 9"])[0]
    assert sorted(reason["item_id"] for reason in reasons) == ["item 1", "item 2"]
    without = log_probability(model, tokenizer, ["item 2"], "item 9")
    found = {reason["item_id"]: reason["contribution"] for reason in reasons}["item 1"]
    assert found == pytest.approx(log_probability(model, tokenizer, history, "item 9") - without, abs=1e-4)


def test_only_the_newest_item_carries_a_markov_chain(tokenizer: ItemTokenizer) -> None:
    """An explanation that spreads over items which the model cannot see would be plainly false."""
    reasons = explain(markov_blend(), tokenizer, ITEMS[:5], ["item 9", "item 12"], top_k=5)
    for item in reasons:
        moved = {reason["item_id"] for reason in item if abs(reason["contribution"]) > 1e-6}
        assert moved <= {"item 4"}
    assert any(abs(reason["contribution"]) > 1e-3 for item in reasons for reason in item)


def test_a_planted_cause_is_found(tokenizer: ItemTokenizer) -> None:
    """The item that was always seen with the recommended one comes first, although it is the oldest of the history."""
    rows = [[6, 13] for _ in range(30)] + np.random.default_rng(0).integers(14, 23, (30, 4)).tolist()
    pairs = ItemKNNBaseline(k=10, decay=1.0).fit([*rows, [4, 5, 7, 8]], 23)
    counts = np.bincount(np.concatenate(rows), minlength=23)
    model = make_blend({"item_knn": pairs}, [1.0], counts=counts)
    reasons = explain(model, tokenizer, ["item 3", "item 1", "item 2", "item 4", "item 5"], ["item 10"], top_k=5)[0]
    assert reasons[0]["item_id"] == "item 3"
    assert reasons[0]["contribution"] > 1.0 > reasons[1]["contribution"]


def test_batches_change_nothing_and_the_newest_are_kept(tokenizer: ItemTokenizer) -> None:
    """More items than a batch holds, and `max_items` that keeps the oldest, would each show other reasons."""
    wide = ItemTokenizer.from_items([f"item {number}" for number in range(200)])
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=203, hidden_size=8, num_hidden_layers=1, max_position_embeddings=150)
    model = Bert4RecForMaskedLM(config).eval()
    history = [f"item {number}" for number in range(100)]
    everything = explain(model, wide, history, ["item 150"], top_k=100)[0]
    assert len(everything) == 100
    newest = explain(model, wide, history, ["item 150"], top_k=100, max_items=3)[0]
    assert {reason["item_id"] for reason in newest} == {"item 97", "item 98", "item 99"}
    known = {reason["item_id"]: reason["contribution"] for reason in everything}
    for reason in newest:
        assert reason["contribution"] == pytest.approx(known[reason["item_id"]], abs=1e-5)


def test_a_prior_takes_its_share_of_the_score(tokenizer: ItemTokenizer) -> None:
    """Without its one item the history is empty, and what the item is measured against is what is popular."""
    prior = PopularityPrior(np.arange(23, dtype=np.int64), weight=1.0)
    model = network(Bert4RecForMaskedLM)
    reason = explain(prior.over(model), tokenizer, ITEMS[:1], ["item 9"])[0][0]
    own = explain(model, tokenizer, ITEMS[:1], ["item 9"])[0][0]
    token = tokenizer.encode_column(["item 9"])[0].as_py()
    with torch.no_grad():
        batch = DataCollatorForNextItem(tokenizer, "masked")([{"input_ids": []}])
        alone = model.score_items(model.encode_history(batch["input_ids"], batch["attention_mask"]))
    without = float(alone.log_softmax(dim=1)[0, token]) - np.log(prior.probabilities[token])
    assert reason["contribution"] - own["contribution"] == pytest.approx(without, abs=1e-5)


def test_titles_and_training_mode_stay(tokenizer: ItemTokenizer) -> None:
    import pyarrow as pa

    named = ItemTokenizer.from_items(ITEMS, metadata=pa.table({"item_id": ITEMS, "title": [i.upper() for i in ITEMS]}))
    model = network(Bert4RecForMaskedLM).train()
    reason = explain(model, named, ["item 1"], ["item 2"])[0][0]
    assert (reason["item_id"], reason["title"], set(reason)) == (
        "item 1",
        "ITEM 1",
        {"item_id", "title", "contribution"},
    )
    assert model.training
    assert math.isfinite(reason["contribution"])


def test_nothing_to_explain_and_bad_input(tokenizer: ItemTokenizer) -> None:
    model = network(Bert4RecForMaskedLM)
    assert explain(model, tokenizer, [], ["item 1", "item 2"]) == [[], []]
    assert explain(model, tokenizer, ["item 1"], []) == []
    assert explain(model, tokenizer, ["nobody"], ["item 1"], unknown_items="drop") == [[]]
    with pytest.raises(ValueError, match="`histories` must hold items of the vocabulary"):
        explain(model, tokenizer, ["nobody"], ["item 1"])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        explain(model, tokenizer, ["item 1"], ["nobody"])
    with pytest.raises(ValueError, match="`top_k` must be at least 1, found 0"):
        explain(model, tokenizer, ["item 1"], ["item 2"], top_k=0)
    with pytest.raises(ValueError, match="`max_items` must be at least 1, found 0"):
        explain(model, tokenizer, ["item 1"], ["item 2"], max_items=0)
