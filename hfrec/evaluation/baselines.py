"""Baselines that a transformer must beat: popularity, item-kNN with recency, EASE.

Each one is fitted on histories of token ids and scores the whole vocabulary for new histories, -inf at special tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hfrec.evaluation.ranking import collect_ranks, rank_catalogue
from hfrec.scoring import rankable_mask
from hfrec.tokenization import NUM_SPECIAL_TOKENS


class Baseline(Protocol):
    """What `rank_baseline` needs."""

    def score(self, histories: Any) -> NDArray[np.float32]: ...


class PopularityBaseline:
    """Every user gets the items with the most training interactions.

    Example:
        >>> PopularityBaseline().fit([[3, 4], [4]], vocab_size=5).score([[3]]).tolist()
        [[-inf, -inf, -inf, 1.0, 2.0]]
    """

    def __init__(self) -> None:
        self._counts: NDArray[np.float32] | None = None

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
        ids, _ = _flatten(sequences, vocab_size)
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
        if self._counts is None:
            raise _not_fitted(self)
        return _without_specials(np.tile(self._counts, (len(histories), 1)))


class ItemKNNBaseline:
    """Cosine similarity between items, the history weighted by `decay ** age`.

    `score(u, j) = sum_i decay^age(u, i) * |U_i ∩ U_j| / sqrt(|U_i| |U_j|)` over the history, the newest item having age
    0 and `U_i` being the users with item i; an item is no neighbour of itself, and one seen twice adds up.

    Args:
        decay: weight of an item against the one after it, in (0, 1]; 1 forgets the order.

    Example:
        >>> knn = ItemKNNBaseline(decay=0.5).fit([[3, 4], [4, 5]], vocab_size=6)
        >>> [round(score, 3) for score in knn.score([[3, 4]])[0, 3:].tolist()]
        [0.707, 0.354, 0.707]

    Reference:
        Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001.
    """

    def __init__(self, *, decay: float = 0.5) -> None:
        self.decay = _checked_decay(decay)
        self._similarity: Any = None

    def fit(self, sequences: Any, vocab_size: int) -> ItemKNNBaseline:
        """Compute the similarity of all items that some user has in common.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
        """
        from scipy import sparse

        matrix = _user_item_matrix(sequences, vocab_size)  # (num_users, vocab_size)
        frequency = np.asarray(matrix.sum(axis=0)).ravel()
        scale = sparse.diags_array(1.0 / np.sqrt(np.maximum(frequency, 1.0)))
        normalised = matrix @ scale
        similarity = (normalised.T @ normalised).tocsr()
        similarity.setdiag(0.0)
        similarity.eliminate_zeros()
        self._similarity = similarity.astype(np.float32)  # (vocab_size, vocab_size)
        return self

    def score(self, histories: Any) -> NDArray[np.float32]:
        """Weighted similarity to the history.

        Args:
            histories: n lists of token ids, oldest first, or an Arrow list array.

        Returns:
            (n, vocab_size) float32.

        Raises:
            RuntimeError: if the baseline is not fitted.
            ValueError: if a token id lies outside the vocabulary.
        """
        if self._similarity is None:
            raise _not_fitted(self)
        weights = _history_weights(histories, self._similarity.shape[0], self.decay)  # (n, vocab_size)
        return _without_specials((weights @ self._similarity).toarray())


class EASEBaseline:
    """Linear item-item model in closed form, the history weighted by `decay ** age`.

    `P = (XᵀX + l2 I)⁻¹`, `B = I − P / diag(P)` column by column (so its diagonal is 0), `score(u) = w_u B` with `w_u`
    the weighted history. `X` is binary. The inverse takes num_items² doubles and num_items³ operations.

    Args:
        l2: ridge penalty, above 0.
        decay: weight of an item against the one after it, in (0, 1]; 1 is the published model.

    Example:
        >>> ease = EASEBaseline(l2=1.0, decay=1.0).fit([[3, 4], [3, 4]], vocab_size=5)
        >>> [round(score, 4) for score in ease.score([[3]])[0, 3:].tolist()]
        [0.0, 0.6667]

    Reference:
        Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, equations 6 to 8.
    """

    def __init__(self, *, l2: float = 500.0, decay: float = 0.8) -> None:
        if not l2 > 0:
            raise ValueError(f"`l2` must be above 0, found {l2}. Values of 100 to 1000 are usual.")
        self.l2 = l2
        self.decay = _checked_decay(decay)
        self._weights: NDArray[np.float32] | None = None

    def fit(self, sequences: Any, vocab_size: int) -> EASEBaseline:
        """Solve for the item-item weights.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
        """
        matrix = _user_item_matrix(sequences, vocab_size)[:, NUM_SPECIAL_TOKENS:]
        gram = (matrix.T @ matrix).toarray()  # (num_items, num_items)
        gram[np.diag_indices_from(gram)] += self.l2
        inverse = np.linalg.inv(gram)
        inverse /= -np.diag(inverse)  # column j by P_jj
        np.fill_diagonal(inverse, 0.0)
        self._weights = inverse.astype(np.float32)
        return self

    def score(self, histories: Any) -> NDArray[np.float32]:
        """Weighted history times the item-item weights.

        Args:
            histories: n lists of token ids, oldest first, or an Arrow list array.

        Returns:
            (n, vocab_size) float32.

        Raises:
            RuntimeError: if the baseline is not fitted.
            ValueError: if a token id lies outside the vocabulary.
        """
        if self._weights is None:
            raise _not_fitted(self)
        vocab_size = len(self._weights) + NUM_SPECIAL_TOKENS
        weights = _history_weights(histories, vocab_size, self.decay)[:, NUM_SPECIAL_TOKENS:]
        scores = np.zeros((weights.shape[0], vocab_size), dtype=np.float32)
        scores[:, NUM_SPECIAL_TOKENS:] = weights @ self._weights
        return _without_specials(scores)


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
        seen_ids=_pad(rows, vocab_size),
        rankable=rankable_mask(vocab_size, allowed_items=allowed_items),
        item_chunk_size=vocab_size,
        top_k=top_k,
    )


def _flatten(sequences: Any, vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists -> all token ids in one array, and the length of each list. Ids are checked."""
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


def _user_item_matrix(sequences: Any, vocab_size: int) -> Any:
    """Binary (num_users, vocab_size) sparse matrix, empty at special tokens."""
    matrix = _history_weights(sequences, vocab_size, 1.0, dtype=np.float64)
    matrix.data[:] = 1.0
    return matrix


def _history_weights(histories: Any, vocab_size: int, decay: float, dtype: type = np.float32) -> Any:
    """Sparse (n, vocab_size) matrix of `decay ** age`, the newest item having age 0; repeated items add up."""
    from scipy import sparse

    ids, lengths = _flatten(histories, vocab_size)
    users = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(ids))
    weights = np.power(decay, age).astype(dtype)
    item = ids >= NUM_SPECIAL_TOKENS
    shape = (len(lengths), vocab_size)
    return sparse.csr_array((weights[item], (users[item], ids[item])), shape=shape)


def _pad(histories: Any, vocab_size: int) -> Tensor:
    """(n, longest history) int64, padded with 0 on the right."""
    ids, lengths = _flatten(histories, vocab_size)
    filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.zeros(filled.shape, dtype=np.int64)
    padded[filled] = ids
    return torch.from_numpy(padded)


def _without_specials(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    scores[:, :NUM_SPECIAL_TOKENS] = -np.inf
    return scores


def _checked_decay(decay: float) -> float:
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"`decay` must lie in (0, 1], found {decay}. Use 1 to weigh all of the history alike.")
    return decay


def _not_fitted(baseline: object) -> RuntimeError:
    return RuntimeError(f"{type(baseline).__name__} must be fitted before it scores. Call `fit` with training rows.")
