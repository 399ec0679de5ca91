"""Item-kNN: the most similar items by the users in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .cooccurrence import bounded_k, common_users, item_frequencies, row_bounds, training_matrix
from .neighbours import ItemToItemBaseline, NeighbourTable, TableWriter, strength_keys, strongest_keys


class ItemKNNBaseline(ItemToItemBaseline):
    """Cosine similarity between items, the history weighted by `decay ** age`.

    `W[i, j] = c_ij / sqrt(n_i n_j) * c_ij / (c_ij + shrinkage)`, with `n_i` users of item i and `c_ij` users of both;
    an item is no neighbour of itself, and one seen twice adds up in the history.

    Args:
        k: neighbours kept of each item.
        shrinkage: users in common at which a similarity counts half, at least 0; 0 is the plain cosine.
        decay: weight of an item against the one after it, in [0, 1]; 1 forgets the order.

    Example:
        >>> knn = ItemKNNBaseline(decay=0.5).fit([[3, 4], [4, 5]], vocab_size=6)
        >>> [round(score, 3) for score in knn.score([[3, 4]])[0, 3:].tolist()]
        [0.707, 0.354, 0.707]

    Reference:
        Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001. Bell and Koren, Improved
        neighborhood-based collaborative filtering, KDD Cup and Workshop 2007 (shrinkage).
    """

    def __init__(self, *, k: int = 1000, shrinkage: float = 0.0, decay: float = 0.5) -> None:
        super().__init__(k=k, decay=decay)
        if not shrinkage >= 0:
            raise ValueError(f"`shrinkage` must be at least 0, found {shrinkage}. Use 0 for the plain cosine.")
        self.shrinkage = shrinkage

    def fit(self, sequences: Any, vocab_size: int) -> ItemKNNBaseline:
        """Find the most similar items of each item among those that it has users in common with.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
            CostError: if there are too many pairs of items even in the newest of each history.
        """
        (self._table,) = cosine_tables(training_matrix(sequences, vocab_size), [self.shrinkage], k=self.k)
        return self


def cosine_tables(matrix: Any, shrinkages: Sequence[float], *, k: int) -> list[NeighbourTable]:
    """Tables of the k most similar items, one for each shrinkage; common users are counted once for all.

    Args:
        matrix: binary (num_users, vocab_size) sparse matrix.
        shrinkages: as in `ItemKNNBaseline`.
        k: neighbours kept of each item.
    """
    sizes = row_bounds(matrix)
    k = bounded_k(k, sizes, num_tables=len(shrinkages))
    scale = 1.0 / np.sqrt(np.maximum(item_frequencies(matrix), 1))  # (vocab_size,)
    writers = [TableWriter(np.minimum(sizes, k)) for _ in shrinkages]
    for start, counts in common_users(matrix):
        ids, common, lengths = counts.indices, counts.data, np.diff(counts.indptr)
        items = np.repeat(np.arange(start, start + len(lengths)), lengths)
        cosine = common * scale[ids] * scale[items]
        cosine[ids == items] = 0.0
        for writer, shrinkage in zip(writers, shrinkages, strict=True):
            keys = strength_keys(ids, cosine * (common / (common + shrinkage)))
            writer.add_block(start, strongest_keys(keys, lengths, k), k)
    return [writer.table() for writer in writers]
