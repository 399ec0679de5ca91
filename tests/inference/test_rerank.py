"""Diversity and popularity: the greedy choice against one written out by hand, and its ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hfrec import ItemTokenizer
from hfrec.inference.rerank import pool_size
from hfrec.inference.rerank import rerank as rerank_

rerank: Callable[..., Any] = rerank_  # bad input is part of the tests
ITEMS = [f"item {number}" for number in range(30)]


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(ITEMS, counts={item: 3**place for place, item in enumerate(ITEMS[:12])})


@pytest.fixture(scope="module")
def vectors() -> Any:
    rows = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def candidates(places: list[int], scores: list[float]) -> list[dict[str, Any]]:
    pairs = zip(places, scores, strict=True)
    return [{"item_id": ITEMS[place], "score": score, "rank": 0, "title": f"T{place}"} for place, score in pairs]


@pytest.fixture(scope="module")
def found() -> list[list[dict[str, Any]]]:
    rng = np.random.default_rng(1)
    lists = [rng.permutation(12)[:size].tolist() for size in (12, 12, 7, 3, 0, 1)]
    return [candidates(places, sorted(rng.normal(size=len(places)).tolist(), reverse=True)) for places in lists]


def by_hand(rows: list[dict[str, Any]], vectors: Any, top_k: int, diversity: float, popularity: float) -> list[str]:
    """One user, one item at a time."""
    if not rows:
        return []
    scores = [row["score"] for row in rows]
    low, spread = min(scores), max(max(scores) - min(scores), 1e-12)
    places = [ITEMS.index(row["item_id"]) for row in rows]
    value = [
        (score - low) / spread + popularity * np.log(1 + 3**place) / np.log(1 + 3**11)
        for score, place in zip(scores, places, strict=True)
    ]
    chosen: list[int] = []
    while len(chosen) < min(top_k, len(rows)):
        worth = {}
        for row in set(range(len(rows))) - set(chosen):
            near = max((float(vectors[places[row] + 3] @ vectors[places[old] + 3]) for old in chosen), default=None)
            worth[row] = value[row] if near is None else (1 - diversity) * value[row] - diversity * near
        chosen.append(max(sorted(worth), key=lambda row: worth[row]))
    return [rows[row]["item_id"] for row in chosen]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("popularity", [-1.0, 0.0, 0.4])
def test_the_choice_is_the_greedy_one(
    diversity: float, popularity: float, tokenizer: ItemTokenizer, vectors: Any, found: Any
) -> None:
    """Lists of several lengths side by side: padding that is chosen, or a user's neighbour, would show here."""
    lists = rerank(found, tokenizer, 5, diversity=diversity, popularity=popularity, vectors=vectors)
    assert [[row["item_id"] for row in rows] for rows in lists] == [
        by_hand(rows, vectors, 5, diversity, popularity) for rows in found
    ]


def test_without_wishes_lists_are_cut_only(tokenizer: ItemTokenizer, found: Any) -> None:
    """Sliders in the middle must show what `recommend` gives."""
    for rows, cut in zip(found, rerank(found, tokenizer, 4), strict=True):
        assert [row["item_id"] for row in cut] == [row["item_id"] for row in rows[:4]]
        assert [row["rank"] for row in cut] == list(range(1, len(cut) + 1))


def test_score_and_title_stay_and_the_ranks_are_new(tokenizer: ItemTokenizer, found: Any) -> None:
    """The score is the model's; a rank of the old list would contradict the order."""
    rows = rerank(found, tokenizer, 5, popularity=-1.0)[0]
    old = {row["item_id"]: row for row in found[0]}
    assert all(row["score"] == old[row["item_id"]]["score"] for row in rows)
    assert all(row["title"] == old[row["item_id"]]["title"] for row in rows)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert found[0][0]["rank"] == 0, "the lists handed in are not changed"


def test_popularity_moves_the_list_its_way(tokenizer: ItemTokenizer, found: Any) -> None:
    def mean_place(strength: float) -> float:
        rows = rerank(found[:1], tokenizer, 4, popularity=strength)[0]
        return float(np.mean([ITEMS.index(row["item_id"]) for row in rows]))  # a later item has more interactions

    assert mean_place(-1.0) < mean_place(0.0) < mean_place(1.0)


def test_lists_do_not_depend_on_their_company(
    tokenizer: ItemTokenizer, vectors: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = rerank(found, tokenizer, 5, diversity=0.5, vectors=vectors)
    monkeypatch.setattr("hfrec.inference.rerank._USERS_AT_ONCE", 2)
    assert rerank(found, tokenizer, 5, diversity=0.5, vectors=vectors) == together


def test_bad_input_is_refused(tokenizer: ItemTokenizer, vectors: Any, found: Any) -> None:
    for wrong in ({"diversity": 1.1}, {"diversity": -0.1}, {"popularity": 1.5}, {"popularity": -2}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"`{name}` must lie between"):
            rerank(found, tokenizer, 5, **wrong)
    with pytest.raises(ValueError, match="`top_k` must be at least 1, found 0"):
        rerank(found, tokenizer, 0)
    with pytest.raises(ValueError, match="`diversity` needs `vectors`"):
        rerank(found, tokenizer, 5, diversity=0.5)
    with pytest.raises(ValueError, match="a row for each of the 33 tokens, found 32"):
        rerank(found, tokenizer, 5, diversity=0.5, vectors=vectors[1:])
    with pytest.raises(ValueError, match="no training counts"):
        rerank(found, ItemTokenizer.from_items(ITEMS), 5, popularity=0.5)
    with pytest.raises(ValueError, match="not in the vocabulary"):
        rerank([[{"item_id": "nobody", "score": 1.0}]], tokenizer, 5, popularity=0.5)


def test_the_pool_fits_the_catalogue() -> None:
    assert (pool_size(10, 1000), pool_size(10, 50)) == (100, 50)
