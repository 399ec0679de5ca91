"""Where the items of a model lie: vectors whose dot product says how alike two items are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .similar import Comparison

TABLE_WIDTH = 32  # of the vectors that an item-to-item table is factorised into


@torch.no_grad()
def item_vectors(model: Any) -> NDArray[np.float32]:
    """Vectors of all tokens, whose dot product is how alike `similar_items` finds two items.

    Of a masked or causal model these are the directions of its item embeddings, of a blend those of its networks side
    by side, by their weights. A blend without a network has tables alone: the left factors of a truncated singular
    value decomposition of the weightiest one stand in, brought to length 1.

    Args:
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend`.

    Returns:
        float32 `(vocab_size, width)`; rows of length 1, or of zeros for a token that nothing is known of.

    Raises:
        ValueError: A blend of popularity alone.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> vectors = item_vectors(Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=6, hidden_size=8)))
        >>> vectors.shape, bool(np.allclose(np.linalg.norm(vectors[3:], axis=1), 1.0))
        ((6, 8), True)
    """
    known = Comparison(model)
    return _table_vectors(known.table) if known.vectors is None else known.vectors.detach().cpu().numpy()


def _table_vectors(table: Any) -> NDArray[np.float32]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    offsets, ids, weights = (getattr(table, name).cpu().numpy() for name in ("offsets", "ids", "weights"))
    size = len(offsets) - 1
    matrix = csr_matrix((weights.astype(np.float64), ids, offsets), shape=(size, size))
    width = min(TABLE_WIDTH, size - 1)
    left, values, _ = svds(matrix, k=width, v0=np.ones(size), which="LM")
    vectors = left * values
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9 * values.max(), vectors / np.maximum(lengths, 1e-300), 0.0).astype(np.float32)
