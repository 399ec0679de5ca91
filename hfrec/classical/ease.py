"""EASE: a linear item-item model in closed form, cut to the strongest weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .cooccurrence import CostError, common_users, item_frequencies, training_matrix
from .histories import IntArray
from .neighbours import ItemToItemBaseline, NeighbourTable, TableWriter, strongest

MAX_ITEMS = 15_000  # items with an interaction; their Gram matrix takes 0.9 GB, and its inverse half a minute of a core


class EASEBaseline(ItemToItemBaseline):
    """Linear item-item model in closed form, the history weighted by `decay ** age`.

    `P = (XᵀX + l2 I)⁻¹`, `W = I − P / diag(P)` column by column (so its diagonal is 0), of which the k weights of each
    item that are largest in absolute value are kept. `X` is binary. The inverse takes num_items³ operations.

    Args:
        k: neighbours kept of each item.
        l2: ridge penalty, above 0.
        decay: weight of an item against the one after it, in [0, 1]; 1 is the published model.

    Example:
        >>> ease = EASEBaseline(l2=1.0, decay=1.0).fit([[3, 4], [3, 4]], vocab_size=5)
        >>> [round(score, 4) for score in ease.score([[3]])[0, 3:].tolist()]
        [0.0, 0.6667]

    Reference:
        Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, equations 6 to 8.
    """

    def __init__(self, *, k: int = 500, l2: float = 500.0, decay: float = 0.8) -> None:
        super().__init__(k=k, decay=decay)
        if not l2 > 0:
            raise ValueError(f"`l2` must be above 0, found {l2}. Values of 100 to 1000 are usual.")
        self.l2 = l2

    def fit(self, sequences: Any, vocab_size: int) -> EASEBaseline:
        """Solve for the item-item weights.

        Args:
            sequences: lists of token ids, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
            CostError: if more than `MAX_ITEMS` items have interactions, or there are too many pairs of items.
        """
        items, gram = gram_matrix(training_matrix(sequences, vocab_size))
        self._table = ease_table(items, gram, vocab_size=vocab_size, l2=self.l2, k=self.k)
        return self


def gram_matrix(matrix: Any, *, max_items: int = MAX_ITEMS) -> tuple[IntArray, NDArray[np.float32]]:
    """Users in common of the items that have any.

    Args:
        matrix: binary (num_users, vocab_size) sparse matrix.
        max_items: largest number of such items.

    Returns:
        (n,) their token ids, and the dense (n, n) counts.

    Raises:
        CostError: if there are more items.
    """
    items = np.flatnonzero(item_frequencies(matrix))  # (n,)
    if len(items) > max_items:
        raise CostError(f"EASE inverts a dense matrix of all items: {len(items):,} are more than {max_items:,}.")
    gram = np.zeros((len(items), len(items)), dtype=np.float32)
    place = np.zeros(matrix.shape[1], dtype=np.int64)
    place[items] = np.arange(len(items))
    for start, counts in common_users(matrix):
        rows = np.repeat(np.arange(start, start + counts.shape[0]), np.diff(counts.indptr))
        gram[place[rows], place[counts.indices]] = counts.data
    return items, gram


def ease_table(items: IntArray, gram: NDArray[np.float32], *, vocab_size: int, l2: float, k: int) -> NeighbourTable:
    """The k strongest weights of each item from what `gram_matrix` returns."""
    inverse = torch.from_numpy(gram).clone()  # (n, n)
    inverse.diagonal().add_(l2)
    # In place: at the largest size each copy takes a gigabyte.
    torch.cholesky_inverse(torch.linalg.cholesky(inverse, out=inverse), out=inverse)
    inverse /= -inverse.diagonal().clone()  # column j by P_jj
    inverse.fill_diagonal_(0.0)
    weights = inverse.numpy()
    sizes = np.zeros(vocab_size, dtype=np.int64)
    sizes[items] = min(k, len(items))
    writer = TableWriter(sizes)
    for item, row in zip(items, weights, strict=True):
        writer.add(item, *strongest(items, row, k))
    return writer.table()
