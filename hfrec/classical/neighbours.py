"""Item-to-item weights as a table of the strongest neighbours of each item, and what scores with one."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .histories import IntArray, not_fitted, weighted_histories, without_specials

FloatArray = NDArray[np.float32]
MAX_DENSE_ENTRIES = 50_000_000  # 200 MB
_LOW = 2**32 - 1  # the half of a key that holds the token id
Number = TypeVar("Number", bound=np.generic)
Fitted = TypeVar("Fitted", bound="ItemToItemBaseline")


@dataclass(frozen=True, eq=False)
class NeighbourTable:
    """The neighbours of each item, strongest first by absolute weight, of equal ones the lower id first.

    Args:
        offsets: (vocab_size + 1,) where the neighbours of each item begin.
        ids: (num_neighbours,) their token ids.
        weights: (num_neighbours,) their weights.

    Example:
        >>> writer = TableWriter(np.array([1]))
        >>> writer.add(0, *strongest(np.array([0, 2]), np.array([0.5, -2.0]), k=1))
        >>> writer.table().ids.tolist(), writer.table().weights.tolist()
        ([2], [-2.0])
    """

    offsets: IntArray
    ids: NDArray[np.int32]
    weights: FloatArray

    @cached_property
    def matrix(self) -> Any:
        """The table as a (vocab_size, vocab_size) matrix: dense while it is small, which multiplies faster."""
        from scipy import sparse

        size = len(self.offsets) - 1
        matrix = sparse.csr_array((self.weights, self.ids, self.offsets), shape=(size, size))
        return matrix.toarray() if size**2 <= MAX_DENSE_ENTRIES else matrix

    def first(self, k: int) -> NeighbourTable:
        """The table of the k strongest neighbours only."""
        lengths = np.diff(self.offsets)
        if lengths.max(initial=0) <= k:
            return replace(self)  # the dense matrix of a copy goes with the copy
        place = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], lengths)  # (num_neighbours,)
        offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, k))]).astype(np.int64)
        return NeighbourTable(offsets, self.ids[place < k], self.weights[place < k])

    def padded(self) -> tuple[IntArray, FloatArray]:
        """(vocab_size, longest row) ids and weights, filled up with id 0 and weight 0."""
        lengths = np.diff(self.offsets)
        return in_rows(self.ids, lengths).astype(np.int64), in_rows(self.weights, lengths)


class TableWriter:
    """A table that is written row by row where it will stand: beside it there is no list of rows.

    Args:
        sizes: (vocab_size,) neighbours that each token has at most; memory that stays unwritten is never taken.
    """

    def __init__(self, sizes: IntArray) -> None:
        capacity = int(sizes.sum())
        self._lengths = np.zeros(len(sizes), dtype=np.int64)
        self._ids = np.empty(capacity, dtype=np.int32)
        self._weights = np.empty(capacity, dtype=np.float32)
        self._end = 0

    def add(self, token: int, ids: NDArray[np.int32], weights: FloatArray) -> None:
        """The neighbours of a token; tokens rise, and one that is left out has none."""
        begin, self._end = self._end, self._end + len(ids)
        self._ids[begin : self._end], self._weights[begin : self._end] = ids, weights
        self._lengths[token] = len(ids)

    def add_block(self, token: int, keys: IntArray, k: int) -> None:
        """The k strongest neighbours of tokens from `token` on, by `strength_keys` `(tokens, neighbours)`."""
        best = np.sort(keys, axis=1)[:, :k]
        self._lengths[token : token + len(keys)] = np.count_nonzero(best < 0, axis=1)
        chosen = best[best < 0]  # row by row
        begin, self._end = self._end, self._end + len(chosen)
        self._ids[begin : self._end] = chosen & _LOW
        self._weights[begin : self._end] = (-(chosen >> 32)).astype(np.int32).view(np.float32)

    def table(self) -> NeighbourTable:
        """What was written."""
        offsets = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        return NeighbourTable(offsets, self._ids[: self._end], self._weights[: self._end])


def strength_keys(ids: NDArray[Any], weights: NDArray[Any]) -> IntArray:
    """Integers that sort by falling weight, of equal ones by rising id; not below 0 where the weight is 0.

    The order of `hfrec.scoring.encode_keys`, in fewer steps where no weight is negative.

    Args:
        ids: (n,) token ids, each below 2³².
        weights: (..., n) weights, none of them negative.

    Example:
        >>> keys = strength_keys(np.array([3, 4, 5, 6]), np.array([0.5, 0.0, 2.0, 0.5]))
        >>> [int(key) & 0xFFFFFFFF for key in np.sort(keys) if key < 0]
        [5, 3, 6]
    """
    bits = weights.astype(np.float32).view(np.int32).astype(np.int64)
    return np.asarray(ids - (bits << 32))


def strongest_keys(keys: IntArray, lengths: IntArray, k: int) -> IntArray:
    """The k lowest keys of each row in any order, filled with 0: `(n, min(k, longest))`.

    Args:
        keys: `strength_keys` of n rows, one row after the other.
        lengths: (n,) how many keys each row has.
        k: how many are kept.

    Example:
        >>> strongest_keys(np.array([-7, -5, -9]), np.array([1, 2]), k=1).tolist()
        [[-7], [-9]]
    """
    best = np.zeros((len(lengths), min(k, lengths.max(initial=0))), dtype=np.int64)
    groups = np.ceil(2 * np.log2(np.maximum(lengths, 1)))  # rows of like lengths: a long one would fill up many
    for group in np.unique(groups[lengths > 0]):
        chosen = (groups == group) & (lengths > 0)
        rows = in_rows(keys[np.repeat(chosen, lengths)], lengths[chosen])
        if rows.shape[1] > k:
            rows = np.partition(rows, k - 1, axis=1)[:, :k]
        best[chosen, : rows.shape[1]] = rows
    return best


def in_rows(values: NDArray[Number], lengths: IntArray) -> NDArray[Number]:
    """Rows of the `lengths` `(n,)` that stand one after the other, below each other: `(n, longest)`, filled with 0.

    Example:
        >>> in_rows(np.array([5, 6, 7]), np.array([1, 2])).tolist()
        [[5, 0], [6, 7]]
    """
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
    rows = np.zeros(filled.shape, dtype=values.dtype)
    rows[filled] = values
    return rows


def strongest(ids: NDArray[Any], weights: NDArray[Any], k: int) -> tuple[NDArray[np.int32], FloatArray]:
    """The k neighbours of one item with the largest absolute weight, 0 being none; `ids` rise."""
    weights = weights.astype(np.float32)
    strength = np.abs(weights)
    if len(ids) > k:
        limit = np.partition(strength, len(ids) - k)[len(ids) - k]
        tied = np.flatnonzero(strength == limit)
        above = strength > limit
        above[tied[: k - int(above.sum())]] = True
        ids, weights, strength = ids[above], weights[above], strength[above]
    order = np.argsort(-strength, kind="stable")
    order = order[: np.count_nonzero(strength)]
    return ids[order].astype(np.int32), weights[order]


class ItemToItemBaseline:
    """Scores `score(u, j) = sum_i decay^age(u, i) * W[i, j]` over the history, the newest item having age 0.

    Items whose `decay^age` is below the resolution of float32, 1.2e-7, are left out of the sum.

    Args:
        k: neighbours kept of each item, at least 1.
        decay: weight of an item against the one after it, in [0, 1]; 1 forgets the order, 0 all but the newest item.
    """

    def __init__(self, *, k: int, decay: float) -> None:
        if not k >= 1:
            raise ValueError(f"`k` must be at least 1, found {k}. Keep some hundred neighbours of each item.")
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"`decay` must lie in [0, 1], found {decay}. Use 1 to weigh all of the history alike.")
        self.k = k
        self.decay = decay
        self._table: NeighbourTable | None = None

    def table(self) -> tuple[IntArray, FloatArray]:
        """The neighbours of each item, strongest first.

        Returns:
            (vocab_size, k) int64 token ids and float32 weights, filled up with id 0 and weight 0; fewer columns where
            no item has k neighbours.

        Raises:
            RuntimeError: if the baseline is not fitted.
        """
        return self._fitted().padded()

    def score(self, histories: Any) -> FloatArray:
        """Weighted sum of the neighbours of the history.

        Args:
            histories: n lists of token ids, oldest first, or an Arrow list array.

        Returns:
            (n, vocab_size) float32, -inf at special tokens.

        Raises:
            RuntimeError: if the baseline is not fitted.
            ValueError: if a token id lies outside the vocabulary.
        """
        matrix = self._fitted().matrix
        scores = weighted_histories(histories, matrix.shape[0], self.decay) @ matrix  # (n, vocab_size)
        return without_specials(scores if isinstance(scores, np.ndarray) else scores.toarray())

    def with_table(self: Fitted, table: NeighbourTable) -> Fitted:
        """A copy, fitted: the table cut to `k` neighbours."""
        fitted = copy(self)
        fitted._table = table.first(self.k)
        return fitted

    def _fitted(self) -> NeighbourTable:
        if self._table is None:
            raise not_fitted(self)
        return self._table
