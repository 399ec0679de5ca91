"""Items like others: cosine by hand, blends, filters, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Blend,
    ItemKNNBaseline,
    ItemTokenizer,
    PopularityBaseline,
)
from hfrec import similar_items as similar_items_
from hfrec.blending.parts import make_blend

similar_items: Callable[..., Any] = similar_items_  # bad input is part of the tests
ITEMS = [f"item {number}" for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    titles = pa.table({"item_id": ITEMS, "title": [f"Title of {item}" for item in ITEMS]})
    return ItemTokenizer.from_items(ITEMS, metadata=titles)


def build(model_class: Any = Bert4RecForMaskedLM, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return model_class(Bert4RecConfig(vocab_size=43, hidden_size=16, num_hidden_layers=1, initializer_range=0.5)).eval()


def cosines(model: Any, token: int) -> torch.Tensor:
    """Cosine of a token with every token, one pair at a time."""
    rows = model.decoder.weight.detach()
    return torch.stack([torch.nn.functional.cosine_similarity(rows[token], row, dim=0) for row in rows])


def best(scores: torch.Tensor, token: int, top_k: int) -> list[str]:
    ids = [other for other in range(3, 43) if other != token]
    return [ITEMS[other - 3] for other in sorted(ids, key=lambda other: -float(scores[other]))[:top_k]]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["item_id"] for row in rows]


@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_lists_are_those_of_the_cosine(model_class: Any, tokenizer: ItemTokenizer) -> None:
    """A dot product in place of the cosine would put popular items, whose rows are long, beside everything."""
    model = build(model_class)
    model.decoder.weight.data[10] *= 30
    for item, found in zip(["item 4", "item 20"], similar_items(model, tokenizer, ["item 4", "item 20"]), strict=True):
        token = ITEMS.index(item) + 3
        expected = cosines(model, token)
        assert names(found) == best(expected, token, 10)
        assert [row["rank"] for row in found] == list(range(1, 11))
        assert found[0]["score"] == pytest.approx(float(expected[ITEMS.index(found[0]["item_id"]) + 3]), abs=1e-6)
        assert found[0]["title"] == f"Title of {found[0]['item_id']}"


def test_an_item_is_not_like_itself(tokenizer: ItemTokenizer) -> None:
    """The item itself has cosine 1 and would lead every list."""
    found = similar_items(build(), tokenizer, ["item 7"], top_k=39)[0]
    assert "item 7" not in names(found)
    assert len(found) == 39


def test_allow_and_deny_hold(tokenizer: ItemTokenizer) -> None:
    """A filter that is applied after the cut leaves a short list or none."""
    allowed = ITEMS[20:]
    found = similar_items(build(), tokenizer, ["item 7"], top_k=5, allow=allowed, deny=["item 21"])[0]
    everything = names(similar_items(build(), tokenizer, ["item 7"], top_k=39)[0])
    assert names(found) == [item for item in everything if item in allowed and item != "item 21"][:5]


def test_batches_change_nothing(tokenizer: ItemTokenizer) -> None:
    """The last batch is a short one."""
    model = build()
    assert similar_items(model, tokenizer, ITEMS, 4, batch_size=7) == similar_items(model, tokenizer, ITEMS, 4)


HISTORIES = [[3, 4, 5], [3, 4], [4, 5, 6], [3, 6], [7, 3, 4]]


def test_a_blend_mixes_the_cosines_of_its_networks(tokenizer: ItemTokenizer) -> None:
    """Without the weights, a network that hardly counts would decide what is alike."""
    first, second = build(), build(Bert4RecForCausalLM, seed=1)
    knn = ItemKNNBaseline().fit(HISTORIES, vocab_size=43)
    blend: Blend = make_blend({"a": first, "b": second, "knn": knn}, [0.9, 0.3, 5.0], counts=torch.ones(43).numpy())
    expected = 0.75 * cosines(first, 12) + 0.25 * cosines(second, 12)
    assert names(similar_items(blend, tokenizer, ["item 9"], top_k=6)[0]) == best(expected, 12, 6)


def test_a_blend_of_tables_gives_its_pairs_and_no_more(tokenizer: ItemTokenizer) -> None:
    """Items that never came together have no weight; to fill the list with them would make things up."""
    knn = ItemKNNBaseline().fit(HISTORIES, vocab_size=43)
    popularity = PopularityBaseline().fit(HISTORIES, vocab_size=43)
    blend = make_blend({"popularity": popularity, "knn": knn}, [1.0, 0.5], counts=popularity.counts)
    found = similar_items(blend, tokenizer, ["item 3", "item 30"], top_k=10)  # token ids 6 and 33
    assert set(names(found[0])) == {"item 0", "item 1", "item 2"}
    assert found[1] == []


def test_what_cannot_be_is_refused(tokenizer: ItemTokenizer) -> None:
    """A blend that knows no relation, an unknown item and a text for a list would each give a plausible list."""
    popularity = PopularityBaseline().fit(HISTORIES, vocab_size=43)
    with pytest.raises(ValueError, match="a blend of popularity alone"):
        similar_items(make_blend({"p": popularity}, [1.0], counts=popularity.counts), tokenizer, ["item 1"])
    with pytest.raises(ValueError, match="not in the vocabulary of 40 items: 'item 99'"):
        similar_items(build(), tokenizer, ["item 99"])
    with pytest.raises(TypeError, match="must be a list of item ids"):
        similar_items(build(), tokenizer, "item 1")
    with pytest.raises(ValueError, match="`top_k` must be between 1 and the 40 items"):
        similar_items(build(), tokenizer, ["item 1"], top_k=41)
