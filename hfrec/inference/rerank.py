"""Lists in another order: more varied ones, or ones with more or less popular items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tokenization import ItemTokenizer
from .prior import item_counts

POOL = 10  # candidates for each place of the list that is asked for
_USERS_AT_ONCE = 256

Found = Sequence[Sequence[dict[str, Any]]]


def rerank(
    found: Found,
    tokenizer: ItemTokenizer,
    top_k: int,
    *,
    diversity: float = 0.0,
    popularity: float = 0.0,
    vectors: NDArray[np.float32] | None = None,
) -> list[list[dict[str, Any]]]:
    """Choose `top_k` items of longer lists: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Item by item, the one of the largest `(1 - diversity) * value - diversity * max cos(item, chosen)` is taken, with
    `value = relevance + popularity * share`. The relevance is the score, brought to [0, 1] over the candidates of the
    user; the share is the logarithm of an item's training interactions, brought to [0, 1] over the catalogue. The best
    by value always comes first. Without diversity and popularity the lists are cut, and nothing else.

    Args:
        found: For each user the candidates, best first, as [`recommend`] gives them; about `POOL * top_k` leave room
            for a choice.
        tokenizer: The tokenizer that names them.
        top_k: Items that are kept.
        diversity: 0 asks for relevance alone, 1 for items as unlike each other as there are.
        popularity: From -1, where items that few know count as much as the whole range of relevance, to 1, where
            popular ones do.
        vectors: Of all tokens, of length 1, `(vocab_size, width)`: `item_vectors` of the model or unit
            vectors of categories. Needed for diversity.

    Returns:
        The chosen items, in the order of choice, with `rank` from 1; `score` stays the model's.

    Raises:
        ValueError: A value out of range, diversity without `vectors`, vectors of another number of tokens, popularity
            without training counts, or an item that the tokenizer does not know.

    Example:
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"], counts={"a": 99, "b": 1, "c": 1})
        >>> rows = [{"item_id": name, "score": score} for name, score in (("a", 3.0), ("b", 2.9), ("c", 1.0))]
        >>> unit = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
        >>> [row["item_id"] for row in rerank([rows], tokenizer, 2, diversity=0.6, vectors=unit)[0]]
        ['a', 'c']
        >>> [row["item_id"] for row in rerank([rows], tokenizer, 1, popularity=-1.0)[0]]
        ['b']
    """
    _check(tokenizer, top_k, diversity, popularity, vectors)
    if not diversity and not popularity:
        return [_ranked(rows[:top_k]) for rows in found]
    shares = _popularity_shares(tokenizer) if popularity else np.zeros(len(tokenizer))
    chosen: list[list[dict[str, Any]]] = []
    for start in range(0, len(found), _USERS_AT_ONCE):
        part = found[start : start + _USERS_AT_ONCE]
        tokens, relevance = _padded(part, tokenizer)  # (num_users, longest) each
        values = relevance + popularity * shares[tokens]
        orders = _choose(values, vectors if diversity else None, tokens, min(top_k, tokens.shape[1]), diversity)
        for rows, order in zip(part, orders, strict=True):
            chosen.append(_ranked([rows[place] for place in order[: len(rows)]]))
    return chosen


def pool_size(top_k: int, num_items: int) -> int:
    """Candidates to ask for before `rerank`, of a catalogue of `num_items`."""
    return max(top_k, min(POOL * top_k, num_items))


def check_wishes(diversity: float, popularity: float) -> None:
    """Refuse a diversity outside [0, 1] and a popularity outside [-1, 1].

    Raises:
        ValueError: With the range.
    """
    if not 0.0 <= diversity <= 1.0:
        raise ValueError(f"`diversity` must lie between 0 and 1, found {diversity}.")
    if not -1.0 <= popularity <= 1.0:
        raise ValueError(f"`popularity` must lie between -1 and 1, found {popularity}.")


def _check(
    tokenizer: ItemTokenizer, top_k: int, diversity: float, popularity: float, vectors: NDArray[np.float32] | None
) -> None:
    check_wishes(diversity, popularity)
    if top_k < 1:
        raise ValueError(f"`top_k` must be at least 1, found {top_k}.")
    if diversity and vectors is None:
        raise ValueError("`diversity` needs `vectors` of the items, found None. Pass `item_vectors(model)`.")
    if vectors is not None and len(vectors) != len(tokenizer):
        raise ValueError(
            f"`vectors` must have a row for each of the {len(tokenizer)} tokens, found {len(vectors)}. Take them from "
            "the checkpoint of the tokenizer."
        )


def _popularity_shares(tokenizer: ItemTokenizer) -> NDArray[np.float64]:
    """Logarithm of 1 + training interactions, over the largest, in [0, 1], `(vocab_size,)`."""
    logs = np.log1p(item_counts(tokenizer).astype(np.float64))
    return np.asarray(logs / max(float(logs.max()), 1e-12))


def _padded(part: Found, tokenizer: ItemTokenizer) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens and relevance of each user's candidates; token 0 and minus infinity fill the end of a row."""
    longest = max((len(rows) for rows in part), default=0)
    tokens = np.zeros((len(part), longest), dtype=np.int64)
    relevance = np.full((len(part), longest), -np.inf)
    flat = np.asarray(tokenizer.encode_column([row["item_id"] for rows in part for row in rows]), dtype=np.int64)
    first = 0
    for user, rows in enumerate(part):
        if not rows:
            continue
        tokens[user, : len(rows)] = flat[first : first + len(rows)]
        scores = np.array([row["score"] for row in rows], dtype=np.float64)
        relevance[user, : len(rows)] = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-12)
        first += len(rows)
    return tokens, relevance


def _choose(
    values: NDArray[np.float64],
    vectors: NDArray[np.float32] | None,
    tokens: NDArray[np.int64],
    top_k: int,
    diversity: float,
) -> NDArray[np.int64]:
    """Places of the chosen candidates in the order of choice, `(num_users, top_k)`; of equals the first."""
    if vectors is None:
        return np.argsort(-values, axis=1, kind="stable")[:, :top_k]
    own = vectors[tokens]  # (num_users, longest, width)
    users = np.arange(len(values))
    left = values.copy()  # minus infinity for what is chosen or no candidate
    nearest = np.zeros_like(values)
    orders = np.zeros((len(values), top_k), dtype=np.int64)
    for step in range(top_k):
        gone = np.isneginf(left)  # kept apart: 0 times minus infinity is no number
        worth = values if step == 0 else (1.0 - diversity) * np.where(gone, 0.0, left) - diversity * nearest
        orders[:, step] = np.where(gone, -np.inf, worth).argmax(axis=1)
        newest = own[users, orders[:, step]]  # (num_users, width)
        likeness = np.einsum("nlw,nw->nl", own, newest)
        nearest = likeness if step == 0 else np.maximum(nearest, likeness)
        left[users, orders[:, step]] = -np.inf
    return orders


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "rank": rank} for rank, row in enumerate(rows, start=1)]
