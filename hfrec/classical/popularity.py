"""What is popular, over all of the log or of late."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .histories import flatten, not_fitted, without_specials


class PopularityBaseline:
    """Every user gets the items with the most training interactions.

    Example:
        >>> PopularityBaseline().fit([[3, 4], [4]], vocab_size=5).score([[3]]).tolist()
        [[-inf, -inf, -inf, 1.0, 2.0]]
    """

    def __init__(self) -> None:
        self._counts: NDArray[np.float32] | None = None

    @property
    def counts(self) -> NDArray[np.float32]:
        """(vocab_size,) weight of each token's training interactions.

        Raises:
            RuntimeError: if the baseline is not fitted.
        """
        if self._counts is None:
            raise not_fitted(self)
        return self._counts

    def fit(self, sequences: Any, vocab_size: int) -> PopularityBaseline:
        """Count the items.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
        """
        ids, _ = flatten(sequences, vocab_size)
        self._counts = np.bincount(ids, minlength=vocab_size).astype(np.float32)
        return self

    @classmethod
    def from_counts(cls, counts: NDArray[np.int64]) -> PopularityBaseline:
        """The baseline of (vocab_size,) training interactions of each token, counted elsewhere."""
        baseline = cls()
        baseline._counts = np.asarray(counts, dtype=np.float32)
        return baseline

    def score(self, histories: Any) -> NDArray[np.float32]:
        """Training counts, the same for every history.

        Args:
            histories: n histories; only their number matters.

        Returns:
            (n, vocab_size) float32.

        Raises:
            RuntimeError: if the baseline is not fitted.
        """
        return without_specials(np.tile(self.counts, (len(histories), 1)))


class RecentPopularityBaseline(PopularityBaseline):
    """Popularity of late: an interaction counts `0.5 ** (age / half_life)`.

    The age is the share of the log's interactions that came later, in [0, 1): it follows the log's order and not the
    clock, so that one half-life fits logs of any length and pace. Equal times have equal ages.

    Args:
        half_life: share of the log's interactions after which one counts half, above 0.

    Example:
        >>> recent = RecentPopularityBaseline(half_life=0.5).fit([[3, 4], [4, 5]], 6, times=[1, 3, 2, 4])
        >>> [round(count, 3) for count in recent.counts[3:].tolist()]
        [0.354, 1.207, 1.0]
    """

    def __init__(self, *, half_life: float = 0.1) -> None:
        super().__init__()
        if not half_life > 0:
            raise ValueError(f"`half_life` must be above 0, found {half_life}. 0.1 is a tenth of the log.")
        self.half_life = half_life

    def fit(self, sequences: Any, vocab_size: int, *, times: ArrayLike | None = None) -> RecentPopularityBaseline:
        """Count the items, the recent interactions more.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.
            times: (num_interactions,) time of each, in the order of the flattened `sequences`.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary, or there is not one time for each interaction.
        """
        ids, _ = flatten(sequences, vocab_size)
        when = np.zeros(0) if times is None else np.asarray(times)
        if when.shape != ids.shape:
            raise ValueError(
                f"`times` must hold one time for each of the {len(ids)} interactions, found shape {when.shape}. "
                "Give the log's times in the order of the flattened `sequences`."
            )
        later = len(when) - np.searchsorted(np.sort(when), when, side="right")  # (num_interactions,)
        weights = np.power(0.5, later / max(len(when), 1) / self.half_life)
        self._counts = np.bincount(ids, weights=weights, minlength=vocab_size).astype(np.float32)
        return self
