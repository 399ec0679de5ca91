"""Pure functions that turn the ranks of held-out items into metrics with bootstrap intervals.

A *rank* is 1 for the best item; 0 marks a miss (the target cannot be recommended at all). One row is one target.

Per row, with the indicator ``[1 <= rank <= k]``:

* ``hit_rate@k`` and ``recall@k``: the indicator itself. With one target a row they are the same number.
* ``ndcg@k``: ``[..] / log2(1 + rank)``; the ideal gain is 1, so a hit at rank 1 gives 1 (Järvelin & Kekäläinen 2002).
* ``mrr@k``: ``[..] / rank``.

The metric of a data set is the mean over rows. Which items were ranked (whole catalogue, seen items filtered or not,
ties never help) is decided where the ranks are made: ``hfrec.evaluation.ranking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_SPECIAL_TOKENS = 3  # [PAD], [MASK], [UNK] stand before the items; this file must stay loadable on its own
METRIC_NAMES = ("hit_rate", "ndcg", "mrr", "recall")


def metric_values(ranks: ArrayLike, metric: str) -> NDArray[np.float64]:
    """Value of one metric for every row.

    Args:
        ranks: (n,) integers, 1 is best, 0 is a miss.
        metric: `"<name>@<k>"` with a name of `hit_rate`, `ndcg`, `mrr`, `recall`.

    Returns:
        (n,) float64 in [0, 1].

    Raises:
        ValueError: if `metric` is not of that form or `ranks` are not ranks.

    Example:
        >>> metric_values([1, 3, 11, 0], "ndcg@10").tolist()
        [1.0, 0.5, 0.0, 0.0]
    """
    name, k = _parse_metric(metric)
    checked = _check_ranks(ranks)
    hit = (checked >= 1) & (checked <= k)
    rank = np.maximum(checked, 1)
    if name == "ndcg":
        return np.asarray(hit / np.log2(1.0 + rank), dtype=np.float64)
    if name == "mrr":
        return np.asarray(hit / rank, dtype=np.float64)
    return hit.astype(np.float64)


def ranking_metrics(
    ranks: ArrayLike,
    *,
    ks: Sequence[int] = (5, 10, 20),
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Mean hit rate, NDCG, MRR and recall at every `k`, with percentile bootstrap intervals over rows.

    Args:
        ranks: (n,) integers, 1 is best, 0 is a miss.
        ks: cut-offs.
        n_bootstrap: number of resamples; 0 leaves the intervals out.
        seed: seed of the resampling; the same seed gives the same interval.
        confidence: mass inside an interval, in (0, 1).

    Returns:
        Flat dictionary, `"ndcg@10": 0.1` and `"ndcg@10_ci": [0.08, 0.12]`, for each metric and `k`.

    Raises:
        ValueError: if `ranks` is empty or not ranks, or an argument is out of range.

    Example:
        >>> ranking_metrics([1, 3, 0, 40], ks=[10], n_bootstrap=0)
        {'hit_rate@10': 0.5, 'ndcg@10': 0.375, 'mrr@10': 0.3333333333333333, 'recall@10': 0.5}

    Reference:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
    """
    names = [f"{name}@{k}" for k in ks for name in METRIC_NAMES]
    values = np.stack([metric_values(ranks, name) for name in names], axis=1)  # (n, num_metrics)
    means = values.mean(axis=0)
    result: dict[str, Any] = {name: float(mean) for name, mean in zip(names, means, strict=True)}
    if n_bootstrap == 0:
        return result
    low, high = _interval(_bootstrap_means(values, n_bootstrap, seed), confidence)  # (num_metrics,) each
    for index, name in enumerate(names):
        result[f"{name}_ci"] = [float(low[index]), float(high[index])]
    return result


def paired_bootstrap(
    ranks_a: ArrayLike,
    ranks_b: ArrayLike,
    *,
    metric: str = "ndcg@10",
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Difference `a - b` of one metric between two models on the same rows, resampling rows in pairs.

    Args:
        ranks_a: (n,) ranks of the first model.
        ranks_b: (n,) ranks of the second model, rows in the same order.
        metric: `"<name>@<k>"`.
        n_bootstrap: number of resamples, at least 1.
        seed: seed of the resampling.
        confidence: mass inside the interval, in (0, 1).

    Returns:
        `difference`, `difference_ci` ([low, high]) and `p_value` (two-sided, for "no difference").

    Raises:
        ValueError: if the two have different lengths, or an argument is out of range.

    Example:
        >>> paired_bootstrap([1, 1, 3], [1, 1, 3])["difference_ci"]
        [0.0, 0.0]
    """
    values_a, values_b = metric_values(ranks_a, metric), metric_values(ranks_b, metric)
    if len(values_a) != len(values_b):
        raise ValueError(
            f"`ranks_a` and `ranks_b` must rank the same rows, found {len(values_a)} and {len(values_b)}. "
            "Evaluate both models on one data set."
        )
    difference = values_a - values_b
    means = _bootstrap_means(difference[:, None], n_bootstrap, seed)  # (n_bootstrap, 1)
    low, high = _interval(means, confidence)
    # Each tail counts one resample more than found, so that no finite bootstrap claims a p-value of 0.
    tail = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return {
        "difference": float(difference.mean()),
        "difference_ci": [float(low[0]), float(high[0])],
        "p_value": min(1.0, 2 * tail / (len(means) + 1)),
    }


def coverage(recommended: ArrayLike, *, num_items: int) -> float:
    """Share of the catalogue that is recommended to anybody.

    Args:
        recommended: (n, top_k) token ids; special ids fill places that nothing could be recommended for.
        num_items: size of the catalogue, special tokens not counted.

    Returns:
        Number of distinct items in `recommended` / `num_items`.

    Raises:
        ValueError: if `num_items` is smaller than the number of distinct items.

    Example:
        >>> coverage([[3, 4], [3, 5]], num_items=6)
        0.5
    """
    ids = _item_ids(recommended)
    distinct = len(np.unique(ids))
    if num_items < max(distinct, 1):
        raise ValueError(
            f"`num_items` must be at least the {max(distinct, 1)} distinct items in `recommended`, found {num_items}. "
            "Pass the vocabulary size without its special tokens."
        )
    return distinct / num_items


def mean_popularity(recommended: ArrayLike, *, item_counts: ArrayLike) -> float:
    """Mean number of training interactions of a recommended item.

    Args:
        recommended: (n, top_k) token ids; special ids are left out.
        item_counts: (vocab_size,) training interactions by token id, special tokens included.

    Returns:
        The mean over all recommended places.

    Raises:
        ValueError: if nothing was recommended, or an id lies outside `item_counts`.

    Example:
        >>> mean_popularity([[3, 4], [3, 0]], item_counts=[0, 0, 0, 10, 4])
        8.0
    """
    ids, counts = _item_ids(recommended), np.asarray(item_counts, dtype=np.float64)
    if ids.size == 0:
        raise ValueError("`recommended` holds no item, so it has no mean popularity. Recommend at least one item.")
    if ids.max() >= len(counts):
        raise ValueError(
            f"`item_counts` must hold one count for each token id, found {len(counts)} counts and id {ids.max()}. "
            "Pass counts for the whole vocabulary, special tokens included."
        )
    return float(counts[ids].mean())


def _parse_metric(metric: str) -> tuple[str, int]:
    name, _, k = metric.partition("@")
    if name not in METRIC_NAMES or not k.isdecimal() or int(k) < 1:
        raise ValueError(
            f"`metric` must be one of {', '.join(METRIC_NAMES)} followed by @ and a whole number of at least 1, "
            f"found {metric!r}. Write for example 'ndcg@10'."
        )
    return name, int(k)


def _check_ranks(ranks: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(ranks)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"`ranks` must be a non-empty (n,) array of integers, found shape {array.shape} of {array.dtype}. "
            "Pass the ranks of one protocol, one for each target."
        )
    if array.min() < 0:
        raise ValueError(f"`ranks` must be at least 0 (0 = miss), found {array.min()}. Leave padding out.")
    return array.astype(np.int64)


def _bootstrap_means(values: NDArray[np.float64], n_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """Means over rows in each resample: (n, m) -> (n_bootstrap, m).

    Rows with equal values are exchangeable, so that drawing how often each *distinct* row occurs (a multinomial) is
    the bootstrap over rows, without an (n_bootstrap, n) array.
    """
    if n_bootstrap < 1:
        raise ValueError(f"`n_bootstrap` must be at least 1 here, found {n_bootstrap}. Use 1000 or more.")
    distinct, counts = np.unique(values, axis=0, return_counts=True)  # (d, m), (d,)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=n_bootstrap)
    return np.asarray(draws @ distinct / len(values), dtype=np.float64)  # (n_bootstrap, m)


def _interval(means: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must lie between 0 and 1, found {confidence}. Use for example 0.95.")
    tail = (1.0 - confidence) / 2.0
    return np.asarray(np.quantile(means, [tail, 1.0 - tail], axis=0))  # (2, m)


def _item_ids(recommended: ArrayLike) -> NDArray[np.int64]:
    ids = np.asarray(recommended, dtype=np.int64).ravel()
    return ids[ids >= NUM_SPECIAL_TOKENS]
