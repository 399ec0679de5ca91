"""Pure functions that turn the ranks of held-out items into metrics with bootstrap intervals.

A *rank* is 1 for the best item; 0 marks a miss (the target cannot be recommended at all). One row is one target.

Per row, with the indicator ``[1 <= rank <= k]``:

* ``hit_rate@k`` and ``recall@k``: the indicator itself. With one target a row they are the same number.
* ``ndcg@k``: ``[..] / log2(1 + rank)``; the ideal gain is 1, so a hit at rank 1 gives 1 (Järvelin & Kekäläinen 2002).
* ``mrr@k`` and ``map@k``: ``[..] / rank``; with one target a row the average precision is the reciprocal rank.
* ``precision@k``: ``[..] / k``.

The metric of a data set is the mean over rows. Which items were ranked (whole catalogue, seen items filtered or not,
ties never help) is decided where the ranks are made: ``hfrec.evaluation.ranking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import percentile_interval, resampled_means

METRIC = "ndcg@10"  # by which checkpoints and settings are chosen and verdicts are made
METRIC_NAMES = ("hit_rate", "ndcg", "mrr", "recall", "precision", "map")


def metric_values(ranks: ArrayLike, metric: str) -> NDArray[np.float64]:
    """Value of one metric for every row.

    Args:
        ranks: (n,) integers, 1 is best, 0 is a miss.
        metric: `"<name>@<k>"` with a name of `hit_rate`, `ndcg`, `mrr`, `recall`, `precision`, `map`.

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
    if name in ("mrr", "map"):
        return np.asarray(hit / rank, dtype=np.float64)
    if name == "precision":
        return np.asarray(hit / k, dtype=np.float64)
    return hit.astype(np.float64)


def ranking_metrics(
    ranks: ArrayLike,
    *,
    ks: Sequence[int] = (5, 10, 20),
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Mean of every metric at every `k`, with percentile bootstrap intervals over rows.

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
        >>> found = ranking_metrics([1, 3, 0, 40], ks=[10], n_bootstrap=0)
        >>> found["hit_rate@10"], found["ndcg@10"], found["precision@10"]
        (0.5, 0.375, 0.05)

    Reference:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
    """
    names = [f"{name}@{k}" for k in ks for name in METRIC_NAMES]
    values = np.stack([metric_values(ranks, name) for name in names], axis=1)  # (n, num_metrics)
    means = values.mean(axis=0)
    result: dict[str, Any] = {name: float(mean) for name, mean in zip(names, means, strict=True)}
    if n_bootstrap == 0:
        return result
    low, high = percentile_interval(resampled_means(values, n_bootstrap, seed), confidence)  # (num_metrics,) each
    for index, name in enumerate(names):
        result[f"{name}_ci"] = [float(low[index]), float(high[index])]
    return result


def paired_bootstrap(
    ranks_a: ArrayLike,
    ranks_b: ArrayLike,
    *,
    metric: str = METRIC,
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    comparisons: int = 1,
) -> dict[str, Any]:
    """Difference `a - b` of one metric between two models on the same users, resampling users in pairs.

    Several seeds of one model are pooled: the metric of a user is the mean over the seeds, and users are resampled.

    Args:
        ranks_a: (n,) ranks of the first model, or (num_seeds, n) of several seeds.
        ranks_b: The same of the second model, users in the same order; it may have another number of seeds.
        metric: `"<name>@<k>"`.
        n_bootstrap: number of resamples, at least 1.
        seed: seed of the resampling.
        confidence: mass inside the interval, in (0, 1).
        comparisons: how many comparisons this is one of.

    Returns:
        `difference`, `difference_ci` ([low, high]), `p_value` (two-sided, for "no difference", at least
        2 / (n_bootstrap + 1)) and, with several `comparisons`, `difference_ci_simultaneous`: the interval of
        `1 - (1 - confidence) / comparisons`, by which all of them hold at once (Bonferroni).

    Raises:
        ValueError: if the two are of different users, or an argument is out of range.

    Example:
        >>> paired_bootstrap([1, 1, 3], [1, 1, 3])["difference_ci"]
        [0.0, 0.0]

    Reference:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.
    """
    values_a, values_b = pooled_values(ranks_a, metric), pooled_values(ranks_b, metric)
    if len(values_a) != len(values_b):
        raise ValueError(
            f"`ranks_a` and `ranks_b` must rank the same rows, found {len(values_a)} and {len(values_b)}. "
            "Evaluate both models on one data set."
        )
    difference = values_a - values_b
    means = resampled_means(difference[:, None], n_bootstrap, seed)  # (n_bootstrap, 1)
    low, high = percentile_interval(means, confidence)
    several = {}
    if comparisons > 1:
        ends = percentile_interval(means, 1.0 - (1.0 - confidence) / comparisons)
        several["difference_ci_simultaneous"] = [float(end[0]) for end in ends]
    # Each tail counts one resample more than found, so that no finite bootstrap claims a p-value of 0.
    tail = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return {
        "difference": float(difference.mean()),
        "difference_ci": [float(low[0]), float(high[0])],
        "p_value": min(1.0, 2 * tail / (len(means) + 1)),
        **several,
    }


def pooled_values(ranks: ArrayLike, metric: str) -> NDArray[np.float64]:
    """Value of one metric for every user, the mean over seeds where there are several.

    Args:
        ranks: (n,) or (num_seeds, n) integers, 1 is best, 0 is a miss.
        metric: `"<name>@<k>"`.

    Returns:
        (n,) float64.

    Raises:
        ValueError: if `metric` is not of that form or `ranks` are not ranks.

    Example:
        >>> pooled_values([[1, 0], [0, 0]], "hit_rate@10").tolist()
        [0.5, 0.0]
    """
    array = np.asarray(ranks)
    if array.ndim != 2 or len(array) == 0:
        return metric_values(array, metric)
    return np.asarray(np.mean([metric_values(seed, metric) for seed in array], axis=0))


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
