"""Recommendations: order, filters, sizes and bad input, against the scores of the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.evaluation.ranking import rank_dataset
from hfrec.inference.recommend import recommend as recommend_

recommend: Callable[..., Any] = recommend_  # bad input is part of the tests
MODULE = import_module("hfrec.inference.recommend")  # the function of this name hides it in the package
ITEMS = [f"item {number}" for number in range(40)]
Scorer = Bert4RecForMaskedLM | Bert4RecForCausalLM


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(ITEMS)


def build(model_class: Any, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    settings = {"vocab_size": 43, "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 6}
    return model_class(Bert4RecConfig(**{**settings, "initializer_range": 0.5, **kwargs}))


@pytest.fixture(scope="module", params=[Bert4RecForMaskedLM, Bert4RecForCausalLM])
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture(scope="module")
def masked() -> Any:
    return build(Bert4RecForMaskedLM)


@pytest.fixture(scope="module")
def histories() -> list[list[str]]:
    rng = np.random.default_rng(0)
    return [[ITEMS[place] for place in rng.integers(0, 40, size)] for size in (1, 3, 5, 6, 7, 12, 30)]


def names(found: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[item["item_id"] for item in items] for items in found]


@torch.no_grad()
def reference(model: Any, tokenizer: ItemTokenizer, history: list[str], filter_seen: bool = True) -> list[str]:
    """One user, the whole catalogue, no batch and no padding."""
    tokens = tokenizer.encode_column(history).to_pylist()
    prompt = tokens if isinstance(model, Bert4RecForCausalLM) else [*tokens, tokenizer.mask_token_id]
    logits = model.eval()(input_ids=torch.tensor([prompt[-6:]])).logits[0, -1].tolist()
    ids = [token for token in range(3, 43) if not (filter_seen and token in tokens)]
    return tokenizer.decode_items(sorted(ids, key=lambda token: (-logits[token], token)))


@pytest.mark.parametrize("filter_seen", [True, False])
def test_lists_are_those_of_each_user_alone(
    model: Any, tokenizer: ItemTokenizer, histories: list[list[str]], filter_seen: bool
) -> None:
    """Padding, truncation to the newest items, chunks and the seen filter would each shift somebody's list."""
    found = names(recommend(model, tokenizer, histories, top_k=8, filter_seen=filter_seen))
    assert found == [reference(model, tokenizer, history, filter_seen)[:8] for history in histories]


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 7), (3, 1), (2, 43), (100, 5)])
def test_batches_and_chunks_change_nothing(
    model: Any,
    tokenizer: ItemTokenizer,
    histories: list[list[str]],
    batch_size: int,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An offset forgotten in the second chunk or batch recommends other items under full confidence."""
    expected = recommend(model, tokenizer, histories, top_k=9)
    monkeypatch.setattr(MODULE, "ITEM_CHUNK_SIZE", chunk)
    found = recommend(model, tokenizer, histories, top_k=9, batch_size=batch_size)
    assert names(found) == names(expected)
    scores = [[[item["score"] for item in items] for items in lists] for lists in (found, expected)]
    for ours, theirs in zip(*scores, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_catalogue_is_scored_in_chunks(
    masked: Any, tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of a whole large catalogue would fill the memory."""
    widths: list[int] = []
    score_items = masked.score_items

    def counted(representation: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        widths.append(stop - start)
        return score_items(representation, start, stop)

    monkeypatch.setattr(masked, "score_items", counted)
    monkeypatch.setattr(MODULE, "ITEM_CHUNK_SIZE", 10)
    recommend(masked, tokenizer, [["item 1"], ["item 2"]], batch_size=2)
    assert widths == [10, 10, 10, 10, 3]
    recommend(masked, tokenizer, [["item 1"]], batch_size=3)  # as many scores in all
    assert widths[5:] == [30, 13]


@pytest.mark.parametrize("column", ["filter_seen", "unfiltered"])
def test_evaluation_and_recommendation_agree(
    model: Any, tokenizer: ItemTokenizer, histories: list[list[str]], column: str
) -> None:
    """A model measured in one way and used in another: the published metric would say nothing of the lists."""
    tokens = [tokenizer.encode_column(history).to_pylist() for history in histories]
    rows = [{"input_ids": row, "target": target} for row in tokens for target in range(3, 43)]
    objective = "causal" if isinstance(model, Bert4RecForCausalLM) else "masked"
    collator = DataCollatorForNextItem(tokenizer, objective, max_length=model.config.max_position_embeddings)
    ranks = rank_dataset(model, rows, collator)[column].reshape(len(tokens), 40)
    found = recommend(model, tokenizer, histories, top_k=40, filter_seen=column == "filter_seen")
    for items, row in zip(found, ranks, strict=True):
        places = {item["item_id"]: item["rank"] for item in items}
        assert [places.get(item, 0) for item in ITEMS] == row.tolist()


def test_ties_follow_the_token_id(masked: Any, tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`topk` leaves the order of equal scores open, so that a list would depend on the machine."""
    monkeypatch.setattr(MODULE, "ITEM_CHUNK_SIZE", 7)
    monkeypatch.setattr(
        masked, "score_items", lambda representation, start, stop: torch.zeros(len(representation), stop - start)
    )
    found = recommend(masked, tokenizer, [["item 1"]], top_k=5, batch_size=1)
    assert names(found) == [[ITEMS[0], *ITEMS[2:6]]]


def test_scores_and_ranks_are_the_models(model: Any, tokenizer: ItemTokenizer) -> None:
    """A score that went through the sort keys and came back as another number."""
    (items,) = recommend(model, tokenizer, [["item 1", "item 2"]], top_k=4)
    row = tokenizer.encode_column(["item 1", "item 2"]).to_pylist()
    prompt = row if isinstance(model, Bert4RecForCausalLM) else [*row, 1]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = [logits[tokenizer.encode_column([item["item_id"]]).to_pylist()[0]].item() for item in items]
    np.testing.assert_allclose([item["score"] for item in items], expected, rtol=1e-5)
    assert [item["rank"] for item in items] == [1, 2, 3, 4]
    assert set(items[0]) == {"item_id", "score", "rank"}


def test_specials_are_never_recommended(masked: Any, tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """[MASK] with the highest score of all must not reach a user, even from a model that does not mask it."""
    monkeypatch.setattr(
        masked, "score_items", lambda representation, start, stop: -torch.arange(start, stop).float()[None]
    )
    (found,) = names(recommend(masked, tokenizer, [["item 3"]], top_k=40, filter_seen=False))
    assert sorted(found) == sorted(ITEMS)


def test_a_user_with_few_unseen_items_gets_a_shorter_list(model: Any, tokenizer: ItemTokenizer) -> None:
    """Filling the list up would bring back seen items or special tokens."""
    short, full = recommend(model, tokenizer, [ITEMS[:37], ["item 0"]], top_k=5)
    assert {item["item_id"] for item in short} == set(ITEMS[37:])
    assert [item["rank"] for item in short] == [1, 2, 3]
    assert len(full) == 5


def test_allow_and_deny(model: Any, tokenizer: ItemTokenizer, histories: list[list[str]]) -> None:
    """A denied item that comes through is a complaint; a lost allowed one is lost revenue."""
    allow, deny = ITEMS[5:20], ITEMS[10:12]
    found = names(recommend(model, tokenizer, histories, top_k=13, allow=allow, deny=deny, filter_seen=False))
    for items, history in zip(found, histories, strict=True):
        kept = [item for item in reference(model, tokenizer, history, False) if item in allow and item not in deny]
        assert items == kept
    assert names(recommend(model, tokenizer, [["item 1"]], deny=[])) == names(recommend(model, tokenizer, [["item 1"]]))


def test_arrow_and_other_types_of_ids(masked: Any, histories: list[list[str]], tokenizer: ItemTokenizer) -> None:
    """Numeric ids are strings at the tokenizer; a sliced Arrow array keeps the values that it does not show."""
    expected = recommend(masked, tokenizer, histories)
    column = pa.array(histories)
    assert recommend(masked, tokenizer, column) == expected
    assert recommend(masked, tokenizer, pa.chunked_array([column[:2], column[2:]])) == expected
    assert names(recommend(masked, tokenizer, column[3:])) == names(expected)[3:]
    numbers = ItemTokenizer.from_items(range(40))
    plain = recommend(masked, numbers, [["7", "8"]])
    assert recommend(masked, numbers, [[7, 8]]) == plain
    assert recommend(masked, numbers, [np.array([7, 8])], allow=range(40)) == plain
    assert recommend(masked, numbers, pa.array([[7, 8]])) == plain


def test_titles_come_along(masked: Any) -> None:
    """A title of the neighbour's row is worse than none."""
    metadata = pa.table({"item_id": ITEMS[1:], "title": [f"Title of {item}" for item in ITEMS[1:]]})
    (found,) = recommend(masked, ItemTokenizer.from_items(ITEMS, metadata=metadata), [["item 3"]], top_k=39)
    for item in found:
        assert item["title"] == (None if item["item_id"] == "item 0" else f"Title of {item['item_id']}")


def test_policies_for_unknown_items(masked: Any, tokenizer: ItemTokenizer) -> None:
    """A dropped id must not shift the ids of the next user."""
    with pytest.raises(ValueError, match=r"found 'new' in history 2.*unknown_items='drop'"):
        recommend(masked, tokenizer, [["item 1"], [], ["item 2", "new"]])
    mixed = [["new", "item 1", "new"], ["item 2"], ["new"]]
    dropped = recommend(masked, tokenizer, mixed, unknown_items="drop")
    assert names(dropped) == names(recommend(masked, tokenizer, [["item 1"], ["item 2"], []]))
    as_unk = recommend(masked, tokenizer, mixed, unknown_items="unk")
    assert as_unk[0] != dropped[0]
    assert names(as_unk)[1] == names(dropped)[1]
    with pytest.raises(ValueError, match="`unknown_items` must be"):
        recommend(masked, tokenizer, [["item 1"]], unknown_items="ignore")


def test_empty_histories(masked: Any, tokenizer: ItemTokenizer) -> None:
    """A masked model has an answer for a new user; a causal one would be asked at a token it never saw."""
    assert [len(items) for items in recommend(masked, tokenizer, [[], ["item 1"]])] == [10, 10]
    assert recommend(masked, tokenizer, []) == []
    assert recommend(masked, tokenizer, pa.array([], pa.list_(pa.string()))) == []
    causal = build(Bert4RecForCausalLM)
    with pytest.raises(ValueError, match="found 1 empty, first history 1"):
        recommend(causal, tokenizer, [["item 1"], ["new"]], unknown_items="drop")


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "`top_k` must be between 1 and the 40 items", {"top_k": 41}),
        (ValueError, "`top_k` must be between 1 and the 40 items", {"top_k": 0}),
        (ValueError, "`top_k` must be between 1 and the 2 items", {"allow": ITEMS[:3], "deny": ITEMS[:1]}),
        (ValueError, "`allow` must hold items of the vocabulary, found 1 others: new", {"allow": ["new", "item 1"]}),
        (ValueError, "`deny` must hold items of the vocabulary, found 1 others: new", {"deny": ["new"]}),
        (TypeError, "`deny` must be a list", {"deny": "item 1"}),
        (ValueError, "`batch_size` must be at least 1", {"batch_size": 0}),
        (TypeError, "one list of item ids a user, found 'item 1' as history 0", {"histories": ["item 1"]}),
        (ValueError, "found a null in history 1", {"histories": [["item 1"], ["item 1", None]]}),
        (ValueError, "found a null in history 0", {"histories": [[None]], "unknown_items": "drop"}),
        (TypeError, "Arrow list array, found string", {"histories": pa.array(["item 1"])}),
        (ValueError, "must not be null", {"histories": pa.array([["item 1"], None])}),
        (ValueError, "the model's 43 tokens, found 5", {"tokenizer": ItemTokenizer.from_items(["a", "b"])}),
    ],
)
def test_bad_input_is_named(
    masked: Any, tokenizer: ItemTokenizer, error: type[Exception], message: str, settings: dict[str, Any]
) -> None:
    """Each of these would give a list of something."""
    with pytest.raises(error, match=message):
        recommend(**{"model": masked, "tokenizer": tokenizer, "histories": [["item 1"]], **settings})


def test_nan_scores_are_an_error(tokenizer: ItemTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN sorts above everything: a diverged model would recommend its broken items first."""
    model = build(Bert4RecForMaskedLM)
    monkeypatch.setattr(MODULE, "ITEM_CHUNK_SIZE", 5)
    score_items = model.score_items

    def diverged(representation: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        scores = score_items(representation, start, stop)
        return scores if len(scores) == 2 else scores.masked_fill(torch.arange(start, stop) == 7, torch.nan)

    monkeypatch.setattr(model, "score_items", diverged)
    with pytest.raises(ValueError, match="1 NaN, first for history 2 at token id 7"):
        recommend(model, tokenizer, [["item 1"]] * 3, batch_size=2)


def test_the_mode_is_restored_and_dropout_is_off(tokenizer: ItemTokenizer) -> None:
    """Dropout at recommendation makes every call differ; a model left in eval mode trains without it."""
    model = build(Bert4RecForMaskedLM, hidden_dropout_prob=0.5).train()
    assert recommend(model, tokenizer, [["item 1"]]) == recommend(model, tokenizer, [["item 1"]])
    assert model.training
    with pytest.raises(ValueError, match="NaN"), torch.no_grad():
        model.decoder.bias.fill_(torch.nan)
        recommend(model, tokenizer, [["item 1"]])
    assert model.training


def test_the_objective_follows_from_the_class_by_name(tokenizer: ItemTokenizer) -> None:
    """A remotely loaded class is not ours: asked as a masked model, a causal one answers at a token it never saw."""
    causal = build(Bert4RecForCausalLM)
    expected = recommend(causal, tokenizer, [["item 1", "item 2"]])

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.config = causal, causal.config
            self.encode_history, self.score_items = causal.encode_history, causal.score_items

    assert recommend(Wrapped(), tokenizer, [["item 1", "item 2"]]) == expected
