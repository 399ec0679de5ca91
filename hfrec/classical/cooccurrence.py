"""Which items users have in common, counted block by block, at a cost that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from .histories import IntArray, user_item_matrix

logger = logging.get_logger(__name__)
MAX_PAIRS = 1_000_000_000  # pairs of items in one history, over all users: some ten seconds to a minute of one core
MIN_HISTORY = 20  # histories are not cut to fewer items than this
BLOCK_ENTRIES = 500_000  # entries of a block of counts: what is made of them stays in the cache
MAX_TABLE_ENTRIES = (
    50_000_000  # neighbours of all items together, 8 bytes each; as much again for what is cut from them
)


class CostError(ValueError):
    """What was asked for would take more time or memory than the stated limit."""


def training_matrix(sequences: Any, vocab_size: int, *, max_pairs: int = MAX_PAIRS) -> Any:
    """Binary (num_users, vocab_size) matrix, long histories cut to their newest items if there are too many pairs.

    Args:
        sequences: lists of token ids, or an Arrow list array.
        vocab_size: size of the vocabulary, special tokens included.
        max_pairs: largest sum of the squared lengths of the histories.

    Raises:
        CostError: if there are too many pairs in the newest `MIN_HISTORY` items too.
    """
    matrix = user_item_matrix(sequences, vocab_size)
    lengths = np.diff(matrix.indptr)
    newest = int(lengths.max(initial=0))
    while num_pairs(lengths, newest) > max_pairs:
        if newest <= MIN_HISTORY:
            raise CostError(
                f"{num_pairs(lengths, newest):,} pairs of items in the newest {newest} of each history, more than "
                f"{max_pairs:,}. Fit on a part of the users."
            )
        newest = max(MIN_HISTORY, newest * 9 // 10)
    if newest == lengths.max(initial=0):
        return matrix
    logger.warning(
        f"{num_pairs(lengths, int(lengths.max())):,} pairs of items in the histories, more than {max_pairs:,}: similar "
        f"items are sought in the newest {newest} of each history"
    )
    return user_item_matrix(sequences, vocab_size, newest=newest)


def num_pairs(lengths: NDArray[Any], newest: int) -> int:
    """Pairs of items in the newest of each history."""
    return int((np.minimum(lengths, newest).astype(np.int64) ** 2).sum())


def common_users(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Runs of tokens, each as its first token and a sparse `(tokens, vocab_size)` matrix: users in common with others.

    The ids of a row are in any order; a token itself is one of them.

    Args:
        matrix: binary (num_users, vocab_size) sparse matrix.
    """
    users_of = matrix.T.tocsr()  # (vocab_size, num_users)
    for start, stop in blocks(row_bounds(matrix), BLOCK_ENTRIES):
        yield start, users_of[start:stop] @ matrix


def blocks(sizes: NDArray[Any], limit: int) -> Iterator[tuple[int, int]]:
    """Bounds of runs of rows whose sizes sum to at most `limit`; a larger row stands alone.

    Example:
        >>> list(blocks(np.array([2, 1, 5, 1]), limit=3))
        [(0, 2), (2, 3), (3, 4)]
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start, stop
        start = stop


def row_bounds(matrix: Any) -> IntArray:
    """(vocab_size,) items that each item has users in common with, at most."""
    return np.asarray(np.minimum(matrix.T @ np.diff(matrix.indptr), matrix.shape[1]), dtype=np.int64)


def bounded_k(k: int, sizes: NDArray[Any], *, num_tables: int = 1) -> int:
    """`k`, or as many neighbours as `MAX_TABLE_ENTRIES` allow.

    Args:
        k: neighbours wanted of each item.
        sizes: (vocab_size,) neighbours that each item has at most.
        num_tables: tables that are held at once.
    """
    wanted = k
    while k > 1 and np.minimum(sizes, k).sum() * num_tables > MAX_TABLE_ENTRIES:
        k = k * 9 // 10
    if k < wanted:
        logger.warning(f"{len(sizes):,} items are many: {k} neighbours of each are kept and not {wanted}")
    return k


def item_frequencies(matrix: Any) -> IntArray:
    """(vocab_size,) users of each item."""
    return np.asarray(matrix.sum(axis=0)).ravel().astype(np.int64)
