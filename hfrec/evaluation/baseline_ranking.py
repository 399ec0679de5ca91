"""Ranks of held-out items under a baseline, by the rules that models are ranked by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..classical.histories import pad_histories
from ..scoring import rankable_mask
from .ranking import collect_ranks, rank_catalogue


class Baseline(Protocol):
    """What `rank_baseline` needs."""

    def score(self, histories: Any) -> NDArray[np.float32]: ...


def rank_baseline(
    baseline: Baseline,
    histories: Any,
    targets: ArrayLike,
    *,
    batch_size: int = 256,
    allowed_items: Iterable[int] | None = None,
    top_k: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Ranks of the targets under a fitted baseline, by the rules of `rank_dataset`.

    Args:
        baseline: fitted baseline.
        histories: n lists of token ids, oldest first, or an Arrow list array.
        targets: (n,) token ids; a special token is a miss.
        batch_size: users scored at a time.
        allowed_items: token ids that may be recommended. None allows all items.
        top_k: number of items to recommend for each row, seen items filtered; 0 for none.

    Returns:
        `filter_seen` and `unfiltered`: (n,) int64 ranks; with `top_k` also `recommended`: (n, top_k) int64.

    Raises:
        ValueError: if there are no rows, or the lengths of `histories` and `targets` differ.

    Example:
        >>> from hfrec.classical.popularity import PopularityBaseline
        >>> popularity = PopularityBaseline().fit([[3, 4], [4]], vocab_size=5)
        >>> {name: ranks.tolist() for name, ranks in rank_baseline(popularity, [[4]], [3]).items()}
        {'filter_seen': [1], 'unfiltered': [2]}
    """
    wanted = torch.from_numpy(np.asarray(targets, dtype=np.int64).copy())  # (n,)
    if len(histories) != len(wanted) or len(wanted) == 0:
        raise ValueError(
            f"`histories` and `targets` must have the same length of at least 1, found {len(histories)} and "
            f"{len(wanted)}. Give one target for each history."
        )
    allowed = None if allowed_items is None else list(allowed_items)
    parts = []
    for start in range(0, len(wanted), batch_size):
        rows = histories[start : start + batch_size]
        parts.append(_rank_rows(baseline.score(rows), rows, wanted[start : start + batch_size], allowed, top_k))
    return collect_ranks(parts)


def _rank_rows(
    scores: NDArray[np.float32], rows: Any, targets: Tensor, allowed_items: Sequence[int] | None, top_k: int
) -> tuple[Tensor, Tensor]:
    logits = torch.from_numpy(scores)  # (batch, vocab_size)
    vocab_size = logits.shape[1]
    return rank_catalogue(
        lambda start, stop: logits[:, start:stop],
        targets,
        seen_ids=torch.from_numpy(pad_histories(rows, vocab_size)),
        rankable=rankable_mask(vocab_size, allowed_items=allowed_items),
        item_chunk_size=vocab_size,
        top_k=top_k,
    )
