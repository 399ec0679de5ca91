"""Pure functions on the recommended lists: what is shown, how rare and how varied it is, and how well it fits a taste.

Lists are (n, top_k) token ids, one row a user. Special ids fill the places that nothing could be recommended for, and
count for nothing. What is measured of each user comes first, NaN where a user has nothing to measure; the mean is
outside. Counts and features are given by token id, special tokens included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_SPECIAL_TOKENS = 3  # [PAD], [MASK], [UNK] stand before the items; this file must stay loadable on its own
Floats = NDArray[np.float64]
Lists = Sequence[Sequence[int]] | Sequence[NDArray[np.int64]] | NDArray[Any]
_ROWS_AT_ONCE = 4096  # users whose features are held at a time


def coverage(recommended: Lists, *, num_items: int) -> float:
    """Share of the catalogue that is recommended to anybody.

    Args:
        recommended: (n, top_k) token ids.
        num_items: size of the catalogue, special tokens not counted.

    Returns:
        Number of distinct items in `recommended` / `num_items`.

    Raises:
        ValueError: if `num_items` is smaller than the number of distinct items.

    Example:
        >>> coverage([[3, 4], [3, 5]], num_items=6)
        0.5
    """
    return len(_shown_counts(recommended, num_items)) / num_items


def gini_index(recommended: Lists, *, num_items: int) -> float:
    """How unequally often the items of the catalogue are recommended: 0 all alike, towards 1 always the same few.

    ``sum_i (2 i - m - 1) x_i / (m sum_i x_i)`` over the m items of the catalogue, those that nobody gets included,
    `x` being the numbers of recommendations in ascending order.

    Args:
        recommended: (n, top_k) token ids.
        num_items: size of the catalogue, special tokens not counted.

    Raises:
        ValueError: if nothing was recommended, or `num_items` is smaller than the number of distinct items.

    Example:
        >>> gini_index([[3, 4], [5, 6]], num_items=4), gini_index([[3], [3]], num_items=4)
        (0.0, 0.75)

    Reference:
        Castells, Hurley & Vargas, Novelty and diversity in recommender systems, Recommender Systems Handbook, 2015.
    """
    shown = np.sort(_shown_counts(recommended, num_items))
    if shown.size == 0:
        raise ValueError("`recommended` holds no item, so it has no Gini index. Recommend at least one item.")
    place = np.arange(num_items - len(shown) + 1, num_items + 1)  # items that nobody gets come first and add nothing
    return float(((2 * place - num_items - 1) * shown).sum() / (num_items * shown.sum()))


def mean_popularity(recommended: Lists, *, item_counts: ArrayLike) -> float:
    """Mean number of training interactions of a recommended item.

    Args:
        recommended: (n, top_k) token ids.
        item_counts: (vocab_size,) training interactions.

    Returns:
        The mean over all recommended places.

    Raises:
        ValueError: if nothing was recommended, or an id lies outside `item_counts`.

    Example:
        >>> mean_popularity([[3, 4], [3, 0]], item_counts=[0, 0, 0, 10, 4])
        8.0
    """
    ids, _, _ = _flatten(recommended)
    if ids.size == 0:
        raise ValueError("`recommended` holds no item, so it has no mean popularity. Recommend at least one item.")
    return float(_by_id(item_counts, ids, "item_counts")[ids].mean())


def list_popularity(lists: Lists, *, item_counts: ArrayLike) -> Floats:
    """Mean number of training interactions of the items in each list.

    Args:
        lists: n lists of token ids, recommended or consumed, of any length.
        item_counts: (vocab_size,) training interactions.

    Returns:
        (n,) float64, NaN for an empty list.

    Example:
        >>> list_popularity([[3, 4], [4]], item_counts=[0, 0, 0, 10, 4]).tolist()
        [7.0, 4.0]
    """
    ids, owners, n = _flatten(lists)
    return _means(_by_id(item_counts, ids, "item_counts")[ids], owners, n)


def popularity_lift(recommended: Floats, consumed: Floats) -> float:
    """How much more popular the recommended items are than those that the same users consumed.

    ``mean(recommended) / mean(consumed) - 1`` over the users that have both: 0 is the popularity that they know, 1
    twice as much, below 0 rarer items.

    Args:
        recommended: (n,) `list_popularity` of what is recommended to each user.
        consumed: (n,) that of the user's history.

    Returns:
        The lift; NaN when no user has both.

    Example:
        >>> popularity_lift(np.array([10.0, 6.0]), np.array([6.0, 2.0]))
        1.0

    Reference:
        Abdollahpouri, Mansoury, Burke & Mobasher, The unfairness of popularity bias in recommendation, RMSE 2019.
    """
    both = ~np.isnan(recommended) & ~np.isnan(consumed)
    if not both.any():
        return float("nan")
    return float(recommended[both].mean() / consumed[both].mean() - 1.0)


def novelty(recommended: Lists, *, item_counts: ArrayLike, total: int | None = None) -> Floats:
    """Mean self-information of each user's list, in bits: ``-log2(count / total)`` of an item.

    Args:
        recommended: (n, top_k) token ids.
        item_counts: (vocab_size,) training interactions, or users of each item; an item without counts as with one.
        total: What a share of 1 is, such as the number of users. Left out: the sum of `item_counts`.

    Returns:
        (n,) float64, NaN for an empty list.

    Raises:
        ValueError: if `total` is below 1, or an id lies outside `item_counts`.

    Example:
        >>> novelty([[3, 4], [4, 0]], item_counts=[0, 0, 0, 6, 2]).round(4).tolist()
        [1.2075, 2.0]

    Reference:
        Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010.
    """
    ids, owners, n = _flatten(recommended)
    counts = _by_id(item_counts, ids, "item_counts")
    whole = int(counts[NUM_SPECIAL_TOKENS:].sum()) if total is None else total
    if whole < 1:
        raise ValueError(f"`total` must be at least 1, found {whole}. Give the number of users or interactions.")
    return _means(-np.log2(np.maximum(counts[ids], 1.0) / whole), owners, n)


def intra_list_diversity(
    recommended: Lists, *, features: ArrayLike, distance: Literal["jaccard", "cosine"] = "jaccard"
) -> Floats:
    """Mean distance between two items of a list: 0 all alike, 1 nothing in common.

    Args:
        recommended: (n, top_k) token ids.
        features: (vocab_size, width) categories as 0 and 1, or vectors; an item whose row is 0 is left out.
        distance: `jaccard`, 1 - |A ∩ B| / |A ∪ B| of categories, or `cosine`, 1 - cos of vectors.

    Returns:
        (n,) float64, NaN for a list of fewer than two items with features.

    Raises:
        ValueError: if an id lies outside `features`, `distance` is another one, or Jaccard gets other values than 0, 1.

    Example:
        >>> table = [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1], [0, 1]]
        >>> intra_list_diversity([[3, 4, 5]], features=table).round(4).tolist()
        [0.6667]

    Reference:
        Ziegler, McNee, Konstan & Lausen, Improving recommendation lists through topic diversification, WWW 2005.
    """
    lists = np.asarray(recommended, dtype=np.int64)
    table = _features(features, lists)
    if distance not in ("jaccard", "cosine"):
        raise ValueError(f"`distance` must be 'jaccard' or 'cosine', found {distance!r}.")
    if distance == "jaccard" and not np.isin(table, (0.0, 1.0)).all():
        raise ValueError("`features` must be 0 or 1 for the Jaccard distance, found other values. Use 'cosine'.")
    if distance == "cosine":
        table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-300)
    parts = [_pairwise(table[lists[start : start + _ROWS_AT_ONCE]], distance) for start in _starts(len(lists))]
    return np.concatenate([np.zeros(0), *parts])


def calibration(recommended: Lists, histories: Lists, *, features: ArrayLike, alpha: float = 0.01) -> Floats:
    """How far the categories of each user's list are from those of the history: Kullback-Leibler divergence in nats.

    ``KL(p || (1 - alpha) q + alpha p)``, p and q being the mean category distributions of history and list, in which
    an item shares 1 among its categories. 0 is a list that has the history's proportions.

    Args:
        recommended: (n, top_k) token ids.
        histories: n lists of token ids.
        features: (vocab_size, num_categories) 0 or 1, or weights of categories; an item whose row is 0 is left out.
        alpha: share of p in the second distribution, in (0, 1), which keeps the divergence finite.

    Returns:
        (n,) float64, NaN where the list or the history has no item with a category.

    Raises:
        ValueError: if the lengths differ, an id lies outside `features`, a weight is below 0 or `alpha` out of range.

    Example:
        >>> table = [[0, 0], [0, 0], [0, 0], [1, 0], [0, 1]]
        >>> calibration([[3, 4], [3, 3]], [[3, 4], [4]], features=table).round(4).tolist()
        [0.0, 4.6052]

    Reference:
        Steck, Calibrated recommendations, RecSys 2018, equations 2, 3, 5 and 6, without weights of places.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"`alpha` must lie between 0 and 1, found {alpha}. Steck uses 0.01.")
    if len(recommended) != len(histories):
        raise ValueError(
            f"`recommended` and `histories` must be of the same users, found {len(recommended)} and {len(histories)}."
        )
    table = _features(features, recommended, histories)
    if (table < 0).any():
        raise ValueError("`features` must not be below 0, as they are weights of categories.")
    table = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    p, q = _category_shares(histories, table), _category_shares(recommended, table)  # (n, num_categories)
    mixed = (1.0 - alpha) * q + alpha * p
    terms = p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, mixed, 1.0))
    return np.asarray(terms.sum(axis=1))


def _shown_counts(recommended: Lists, num_items: int) -> NDArray[np.int64]:
    """How often each item that is recommended at all is recommended."""
    ids, _, _ = _flatten(recommended)
    shown = np.unique(ids, return_counts=True)[1]
    if num_items < max(len(shown), 1):
        raise ValueError(
            f"`num_items` must be at least the {max(len(shown), 1)} distinct items in `recommended`, found {num_items}."
            " Pass the vocabulary size without its special tokens."
        )
    return shown


def _flatten(lists: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """All item ids, the row of each, and the number of rows."""
    rows = [np.asarray(row, dtype=np.int64) for row in lists]
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    item = ids >= NUM_SPECIAL_TOKENS
    return ids[item], owners[item], len(rows)


def _by_id(values: ArrayLike, ids: NDArray[np.int64], name: str) -> Floats:
    """The table, which must have a row for each id."""
    table = np.asarray(values, dtype=np.float64)
    if ids.max(initial=0) >= len(table):
        raise ValueError(
            f"`{name}` must hold one row for each token id, found {len(table)} rows and id {ids.max()}. "
            "Pass the whole vocabulary, special tokens included."
        )
    return table


def _features(features: ArrayLike, *lists: Lists) -> Floats:
    """The features, with nothing known of special tokens."""
    table = np.array(features, dtype=np.float64)
    for some in lists:
        _by_id(table, _flatten(some)[0], "features")
    table[:NUM_SPECIAL_TOKENS] = 0.0
    return table


def _means(values: Floats, owners: NDArray[np.int64], n: int) -> Floats:
    """Mean of the values of each row, NaN for a row without."""
    sizes = np.bincount(owners, minlength=n)
    sums = np.bincount(owners, weights=values, minlength=n)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)


def _starts(n: int) -> range:
    return range(0, n, _ROWS_AT_ONCE)


def _pairwise(vectors: Floats, distance: str) -> Floats:
    """Mean distance of the pairs in each row: (n, top_k, width) -> (n,)."""
    known: NDArray[np.bool_] = (vectors != 0).max(axis=2)  # (n, top_k)
    alike = vectors @ vectors.transpose(0, 2, 1)  # (n, top_k, top_k)
    if distance == "jaccard":
        sizes = vectors.sum(axis=2)
        alike = alike / np.maximum(sizes[:, :, None] + sizes[:, None, :] - alike, 1.0)
    places = np.arange(vectors.shape[1])
    pairs = known[:, :, None] & known[:, None, :] & (places[:, None] < places)  # (n, top_k, top_k)
    count = pairs.sum(axis=(1, 2))
    total = np.where(pairs, 1.0 - alike, 0.0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _category_shares(lists: Lists, table: Floats) -> Floats:
    """Mean category distribution of each list, (n, num_categories); NaN for a list without a category."""
    parts = []
    for start in _starts(len(lists)):
        ids, owners, n = _flatten(lists[start : start + _ROWS_AT_ONCE])
        kept = table[ids].any(axis=1)
        ids, owners = ids[kept], owners[kept]
        sums = np.zeros((n, table.shape[1]))
        if len(ids):
            first = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
            sums[owners[first]] = np.add.reduceat(table[ids], first, axis=0)
        sizes = np.bincount(owners, minlength=n)[:, None]
        parts.append(np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan))
    return np.concatenate([np.zeros((0, table.shape[1])), *parts])
