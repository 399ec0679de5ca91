"""Metrics of parts of the evaluated rows: short and long histories, cold and warm targets, head and tail, repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics.functions import ranking_metrics

BoolArray = NDArray[np.bool_]


def summarise_cohorts(
    ranks: NDArray[np.int64],
    masks: Mapping[str, BoolArray],
    *,
    ks: Sequence[int] = (10,),
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Metrics with intervals in each cohort, the rows of a cohort being resampled among themselves.

    Args:
        ranks: (n,) integers, 1 is best, 0 is a miss.
        masks: Cohort name -> (n,) bool, True for the rows in it. Cohorts may overlap.
        ks: Cut-offs.
        n_bootstrap: Resamples; 0 leaves the intervals out.
        seed: Seed of the resampling.

    Returns:
        Cohort name -> `n` (rows) and what `ranking_metrics` gives; an empty cohort has `n` 0 and no metrics.

    Raises:
        ValueError: A mask of another type or length than one bool for each rank, or ranks that are none.

    Example:
        >>> masks = {"short": np.array([True, False]), "none": np.array([False, False])}
        >>> found = summarise_cohorts(np.array([1, 3]), masks, n_bootstrap=0)
        >>> found["short"]["n"], found["short"]["ndcg@10"], found["none"]
        (1, 1.0, {'n': 0})
    """
    ranks = np.asarray(ranks)
    for name, mask in masks.items():
        _check_mask(name, mask, ranks.shape)
    options: dict[str, Any] = {"ks": ks, "n_bootstrap": n_bootstrap, "seed": seed}
    return {
        name: {"n": int(mask.sum()), **(ranking_metrics(ranks[mask], **options) if mask.any() else {})}
        for name, mask in masks.items()
    }


def _check_mask(name: str, mask: BoolArray, shape: tuple[int, ...]) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape or len(shape) != 1:
        found = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(
            f"`masks[{name!r}]` must be a bool array of the shape {shape} of `ranks`, found {found}. "
            "Give one value for each rank, not the places of the chosen rows."
        )
