"""Histories of token ids as flat arrays and sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tokenization import NUM_SPECIAL_TOKENS

IntArray = NDArray[np.int64]


def flatten(sequences: Any, vocab_size: int) -> tuple[IntArray, IntArray]:
    """All token ids in one array, and the length of each list.

    Args:
        sequences: lists of token ids, or an Arrow list array.
        vocab_size: size of the vocabulary, special tokens included.

    Returns:
        `(num_interactions,)` ids and `(num_users,)` lengths.

    Raises:
        ValueError: if a token id lies outside the vocabulary.

    Example:
        >>> [part.tolist() for part in flatten([[3, 4], [], [4]], vocab_size=5)]
        [[3, 4, 4], [2, 0, 1]]
    """
    import pyarrow as pa

    if isinstance(sequences, pa.ChunkedArray):
        sequences = sequences.combine_chunks()
    if isinstance(sequences, pa.Array):
        lengths = sequences.value_lengths().to_numpy(zero_copy_only=False)
        ids = sequences.flatten().to_numpy(zero_copy_only=False)
    else:
        rows = [np.asarray(row, dtype=np.int64) for row in sequences]
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        ids = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        raise ValueError(
            f"token ids must lie in 0..{vocab_size - 1}, found {ids.min()}..{ids.max()}. "
            "Encode the histories with the tokenizer that gave `vocab_size`."
        )
    return ids.astype(np.int64), lengths.astype(np.int64)


def ages(lengths: IntArray) -> IntArray:
    """Age of each position of the flattened histories, the newest of each having age 0. `(num_interactions,)`."""
    return np.asarray(np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum()))


def weighted_histories(histories: Any, vocab_size: int, decay: float) -> Any:
    """Sparse float32 (n, vocab_size) matrix of `decay ** age`; repeated items add up, special tokens are empty.

    Weights below the resolution of float32 beside the newest item's are left out: long histories are short then.
    """
    from scipy import sparse

    ids, lengths = flatten(histories, vocab_size)
    weights = np.power(np.float64(decay), ages(lengths)).astype(np.float32)
    users = np.repeat(np.arange(len(lengths)), lengths)
    kept = (ids >= NUM_SPECIAL_TOKENS) & (weights >= np.finfo(np.float32).eps)
    return sparse.csr_array((weights[kept], (users[kept], ids[kept])), shape=(len(lengths), vocab_size))


def user_item_matrix(sequences: Any, vocab_size: int, *, newest: int | None = None) -> Any:
    """Binary float32 (num_users, vocab_size) sparse matrix of each user's `newest` items, empty at special tokens."""
    from scipy import sparse

    ids, lengths = flatten(sequences, vocab_size)
    users = np.repeat(np.arange(len(lengths)), lengths)
    kept = ids >= NUM_SPECIAL_TOKENS
    if newest is not None:
        kept &= ages(lengths) < newest
    values = np.ones(int(kept.sum()), dtype=np.float32)
    matrix = sparse.csr_array((values, (users[kept], ids[kept])), shape=(len(lengths), vocab_size))
    matrix.data[:] = 1.0  # repeats were added up
    return matrix


def pad_histories(histories: Any, vocab_size: int) -> IntArray:
    """(n, longest history) token ids, padded with 0 on the right."""
    ids, lengths = flatten(histories, vocab_size)
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.zeros(filled.shape, dtype=np.int64)
    padded[filled] = ids
    return padded


def without_specials(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores, -inf at special tokens, in place."""
    scores[:, :NUM_SPECIAL_TOKENS] = -np.inf
    return scores


def not_fitted(baseline: object) -> RuntimeError:
    """The error of a baseline that is used before `fit`."""
    return RuntimeError(f"{type(baseline).__name__} must be fitted before it scores. Call `fit` with training rows.")
