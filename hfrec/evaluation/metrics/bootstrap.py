"""The bootstrap behind every interval: rows, which are users, are drawn with replacement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DRAWN_AT_ONCE = 2**24  # counts held while resampling: 128 MiB


def mean_interval(
    values: NDArray[np.float64], *, n_bootstrap: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean over rows with its percentile bootstrap interval.

    Args:
        values: (n,) one value for each row, such as a metric of each user.
        n_bootstrap: number of resamples, at least 1.
        seed: seed of the resampling.
        confidence: mass inside the interval, in (0, 1).

    Returns:
        Mean, low end and high end.

    Example:
        >>> mean_interval(np.ones(5))
        (1.0, 1.0, 1.0)
    """
    low, high = percentile_interval(resampled_means(values[:, None], n_bootstrap, seed), confidence)  # (1,) each
    return float(values.mean()), float(low[0]), float(high[0])


def resampled_means(values: NDArray[np.float64], n_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """Means over rows in each resample: (n, m) -> (n_bootstrap, m).

    Rows with equal values are exchangeable, so that drawing how often each *distinct* row occurs (a multinomial) is
    the bootstrap over rows, without an (n_bootstrap, n) array.
    """
    if n_bootstrap < 1:
        raise ValueError(f"`n_bootstrap` must be at least 1 here, found {n_bootstrap}. Use 1000 or more.")
    distinct, counts = np.unique(values, axis=0, return_counts=True)  # (d, m), (d,)
    rng, at_once = np.random.default_rng(seed), max(1, _DRAWN_AT_ONCE // len(distinct))
    sizes = [min(at_once, n_bootstrap - start) for start in range(0, n_bootstrap, at_once)]
    means = [rng.multinomial(len(values), counts / len(values), size=size) @ distinct for size in sizes]
    return np.asarray(np.concatenate(means) / len(values), dtype=np.float64)  # (n_bootstrap, m)


def percentile_interval(means: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Low and high end of each column: (n_bootstrap, m) -> (2, m)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must lie between 0 and 1, found {confidence}. Use for example 0.95.")
    tail = (1.0 - confidence) / 2.0
    return np.asarray(np.quantile(means, [tail, 1.0 - tail], axis=0))  # (2, m)
