"""Metrics of parts of the evaluated rows: short and long histories, cold and warm targets, head and tail, repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..tokenization import NUM_SPECIAL_TOKENS
from .metrics.functions import ranking_metrics

BoolArray = NDArray[np.bool_]
HISTORY_LENGTHS = ((0, 0), (1, 1), (2, 3), (4, 10), (11, 50), (51, None))
WARM_COUNT = 5
HEAD_SHARE = 0.5
DEFINITIONS = {
    "history": "items of the user's whole history that the vocabulary has",
    "target cold": f"target with fewer than {WARM_COUNT} training interactions, those outside the vocabulary included",
    "target warm": f"target with {WARM_COUNT} training interactions or more",
    "target head": "target among the fewest most popular items that hold half of the training interactions",
    "target tail": "any other target",
    "target repeat": "target that is in the history already; a miss under the seen filter, so only unfiltered",
    "target explore": "target that is not in the history",
}


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


def history_masks(lengths: ArrayLike) -> dict[str, BoolArray]:
    """Rows by the length of their history: 0, 1, 2-3, 4-10, 11-50 and above.

    Args:
        lengths: (n,) items in each history.

    Returns:
        `history 0`, `history 1`, … -> (n,) bool; each row is in one of them.

    Example:
        >>> {name: mask.tolist() for name, mask in history_masks([0, 3]).items() if mask.any()}
        {'history 0': [True, False], 'history 2-3': [False, True]}
    """
    length = np.asarray(lengths)
    masks = {}
    for low, high in HISTORY_LENGTHS:
        name = f">{low - 1}" if high is None else str(low) if low == high else f"{low}-{high}"
        masks[f"history {name}"] = (length >= low) & (length <= (np.inf if high is None else high))
    return masks


def target_masks(
    histories: Sequence[ArrayLike] | NDArray[np.object_], targets: ArrayLike, item_counts: ArrayLike
) -> dict[str, BoolArray]:
    """Rows by their target: cold or warm, head or tail, repeat or explore, as `DEFINITIONS` says.

    Args:
        histories: n token-id arrays, whole histories.
        targets: (n,) token ids; a special token is a target outside the vocabulary: cold, tail and explore.
        item_counts: (vocab_size,) training interactions by token id.

    Returns:
        Six names -> (n,) bool; each row is in one of either pair.

    Raises:
        ValueError: `histories` and `targets` of different lengths, or an id outside `item_counts`.

    Example:
        >>> masks = target_masks([[3], [3]], [3, 4], item_counts=[0, 0, 0, 9, 4])
        >>> [name for name, mask in masks.items() if mask[1]]
        ['target cold', 'target tail', 'target explore']

    Reference:
        Cremonesi, Koren & Turrin, RecSys 2010, section 3: the short head by share of interactions (a third there).
    """
    ids, counts = np.asarray(targets, dtype=np.int64), np.array(item_counts, dtype=np.int64)
    if len(histories) != len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < len(counts)):
        raise ValueError(
            f"`targets` must be one token id below {len(counts)} for each of the {len(histories)} histories, found "
            f"{len(ids)} up to {ids.max(initial=0)}. Encode both with one tokenizer, and count its whole vocabulary."
        )
    counts[:NUM_SPECIAL_TOKENS] = 0
    warm, head = counts[ids] >= WARM_COUNT, _head(counts)[ids]
    item = ids >= NUM_SPECIAL_TOKENS
    repeat = item & np.array(
        [target in np.asarray(row) for row, target in zip(histories, ids, strict=True)], dtype=bool
    )
    pairs = {"cold": ~warm, "warm": warm, "head": head, "tail": ~head, "repeat": repeat, "explore": ~repeat}
    return {f"target {name}": mask for name, mask in pairs.items()}


def fair_masks(masks: Mapping[str, BoolArray], setting: str) -> dict[str, BoolArray]:
    """Cohorts of which the protocol says something: with seen items filtered every repeat is a miss of any model."""
    return {name: mask for name, mask in masks.items() if setting == "unfiltered" or name != "target repeat"}


def _head(counts: NDArray[np.int64]) -> BoolArray:
    """The fewest items that hold `HEAD_SHARE` of all interactions; equal counts by token id."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), dtype=bool)
    head[order] = before < HEAD_SHARE * counts.sum()
    return head


def _check_mask(name: str, mask: BoolArray, shape: tuple[int, ...]) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape or len(shape) != 1:
        found = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(
            f"`masks[{name!r}]` must be a bool array of the shape {shape} of `ranks`, found {found}. "
            "Give one value for each rank, not the places of the chosen rows."
        )
