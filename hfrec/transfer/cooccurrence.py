"""Where item embeddings start: the log's own statistics, so that training begins with what goes together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..tokenization import NUM_SPECIAL_TOKENS
from .rows import ItemRows

Floats = NDArray[np.float32]
BLOCK_HISTORIES = 8192  # whose pairs are counted at a time
EXACT_CELLS = 5_000_000  # of a matrix that is factorised until it converges; a larger one gets a fixed number of passes


@dataclass(frozen=True)
class CooccurrenceSettings:
    """How co-occurrence is counted and how long the rows are.

    Args:
        window: Most steps between two items of one history that count as together; a pair weighs 1 / steps.
        row_norm: Length of each embedding.
        max_pairs: Pairs counted at most; of a longer log, an even sample of its histories is counted. It bounds the
            memory.
    """

    window: int = 10
    row_norm: float = 0.5
    max_pairs: int = 16_000_000

    def __post_init__(self) -> None:
        for name in ("window", "row_norm", "max_pairs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}.")


DEFAULT = CooccurrenceSettings()


def cooccurrence_rows(
    histories: Iterable[Any],
    counts: NDArray[np.int64],
    *,
    size: int,
    seed: int = 0,
    settings: CooccurrenceSettings = DEFAULT,
) -> ItemRows:
    """Embeddings and biases of all items from what stands close together in the histories.

    The positive pointwise mutual information of the co-occurrence counts is factorised, `PPMI ≈ U S Vᵀ`. An item's
    embedding is its row of `U √S`, scaled to one length: items that go together start with a large dot product. The
    bias starts at the logarithm of the item's count, centred. Items without a neighbour, and columns beyond the rank of
    the matrix, start at random.

    Args:
        histories: Arrow list arrays of token ids, oldest first; read once, piece by piece.
        counts: Interactions of each token `(vocab_size,)`.
        size: Width of the embeddings.
        seed: Of the random rows, and of the sample of a log with more pairs than `settings.max_pairs`.
        settings: Window, length of the rows and the bound on memory.

    Returns:
        [`ItemRows`] of the items, `(num_items, size)` and `(num_items,)`.

    Example:
        >>> histories = pa.array([[3, 4, 5], [5, 3, 4], [6, 7, 8], [8, 6, 7]])
        >>> rows = cooccurrence_rows([histories], np.array([0, 0, 0, 2, 2, 2, 2, 2, 2]), size=2)
        >>> together = rows.embeddings @ rows.embeddings.T
        >>> bool(together[0, 1] > together[0, 3]), bool(together[3, 4] > together[3, 0])
        (True, True)

    Reference:
        Levy and Goldberg, Neural word embedding as implicit matrix factorization, NeurIPS 2014.
    """
    matrix = positive_pmi(count_pairs(histories, counts, seed=seed, settings=settings))
    vectors = _of_length(_factors(matrix, size, seed), settings.row_norm, seed)  # (num_items, size)
    return ItemRows(torch.from_numpy(vectors), log_counts(counts))


def neighbour_rows(
    histories: Iterable[Any], counts: NDArray[np.int64], *, model: Any, new: NDArray[np.bool_], seed: int = 0
) -> ItemRows:
    """Embeddings and biases of a model's new items, from those of the known items that they go together with.

    An item starts at the mean of its known neighbours' embeddings, weighted by positive pointwise mutual information
    and scaled to the known items' mean length. The biases follow the known ones by the logarithm of the counts. An item
    without a known neighbour starts at random, or where items are made of content, whose embeddings are residuals, at
    zero.

    Args:
        histories: Arrow list arrays of token ids of this model, oldest first.
        counts: Interactions of each token `(vocab_size,)` in them.
        model: Its item embeddings and biases.
        new: Which items are new `(num_items,)`.
        seed: Of the rows that start at random.

    Returns:
        [`ItemRows`] of the new items `(num_new, embedding_size)`.
    """
    matrix = positive_pmi(count_pairs(histories, counts, seed=seed))
    table = model.get_input_embeddings().weight.detach().float().cpu().numpy()[NUM_SPECIAL_TOKENS:]
    known, length = table[~new], float(np.linalg.norm(table[~new], axis=1).mean())
    vectors = np.asarray(matrix[new][:, ~new] @ known, dtype=np.float32)  # (num_new, embedding_size)
    rows = _of_length(vectors, length, seed)
    if model.config.item_representation != "id":
        rows[np.linalg.norm(vectors, axis=1) == 0] = 0.0
    biases, bias = log_counts(counts), model.item_bias
    if bias is not None:
        seen = torch.from_numpy(~new & (counts[NUM_SPECIAL_TOKENS:] > 0))
        offset = (bias.detach().float().cpu()[NUM_SPECIAL_TOKENS:] - biases)[seen]
        biases = biases + (offset.mean() if len(offset) else 0.0)
    return ItemRows(torch.from_numpy(rows), biases[torch.from_numpy(new)])


def count_pairs(
    histories: Iterable[Any], counts: NDArray[np.int64], *, seed: int = 0, settings: CooccurrenceSettings = DEFAULT
) -> Any:
    """Sums of 1 / steps over the pairs of items up to `settings.window` steps apart in a history.

    Args:
        histories: Arrow list arrays of token ids, oldest first; special tokens count for nothing.
        counts: Interactions of each token `(vocab_size,)`; they decide whether a sample of the histories must do.
        seed: Of that sample.
        settings: Window and the bound on memory.

    Returns:
        Symmetric sparse `(num_items, num_items)` float32, 0 on the diagonal.

    Example:
        >>> count_pairs([pa.array([[3, 4, 5]])], np.array([0, 0, 0, 1, 1, 1])).toarray().tolist()
        [[0.0, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.0]]
    """
    from scipy import sparse

    num_items = len(counts) - NUM_SPECIAL_TOKENS
    share = settings.max_pairs / max(int(counts.sum()) * settings.window, 1)
    draw = np.random.default_rng(seed)
    pairs = sparse.csr_array((num_items, num_items), dtype=np.float32)
    for piece in histories:
        for start in range(0, len(piece), BLOCK_HISTORIES):
            items, users = _flat(piece[start : start + BLOCK_HISTORIES])
            if share < 1:
                kept = draw.random(BLOCK_HISTORIES)[users] < share
                items, users = items[kept], users[kept]
            pairs = pairs + _near_pairs(items, users, num_items, settings.window)
    return (pairs + pairs.T).tocsr()


def most_cells(num_items: int, num_interactions: int | None, settings: CooccurrenceSettings = DEFAULT) -> int:
    """Cells that `count_pairs` fills at most; without a number of interactions, in the longest log.

    Example:
        >>> most_cells(1_000_000, 300_000), most_cells(1_000_000, None)
        (6000000, 32000000)
    """
    pairs = settings.max_pairs
    if num_interactions is not None:
        pairs = min(pairs, num_interactions * settings.window)
    return min(2 * pairs, num_items * (num_items - 1))


def positive_pmi(pairs: Any) -> Any:
    """Positive pointwise mutual information of co-occurrence counts, `max(0, log(n_ij n / (n_i n_j)))`.

    Args:
        pairs: Symmetric sparse `(num_items, num_items)`.

    Returns:
        Sparse float32 of the same shape.

    Example:
        >>> from scipy import sparse
        >>> positive_pmi(sparse.csr_array(np.array([[0.0, 2.0], [2.0, 0.0]]))).toarray().round(2)
        array([[0.  , 0.69],
               [0.69, 0.  ]], dtype=float32)
    """
    from scipy import sparse

    found = pairs.tocoo()
    sums = np.asarray(found.sum(axis=1)).ravel()
    expected = sums[found.row] * (sums[found.col] / max(sums.sum(), 1e-12))
    values = np.log(found.data / expected).astype(np.float32)
    positive = values > 0
    return sparse.csr_array((values[positive], (found.row[positive], found.col[positive])), shape=found.shape)


def log_counts(counts: NDArray[np.int64]) -> torch.Tensor:
    """Logarithm of one more than the count of each item, centred: `(vocab_size,)` to `(num_items,)`."""
    logs = np.log1p(counts[NUM_SPECIAL_TOKENS:])
    return torch.from_numpy((logs - logs.mean()).astype(np.float32))


def set_item_rows(model: Any, rows: ItemRows, which: NDArray[np.bool_] | None = None) -> None:
    """Write embeddings and biases over those of some of the model's items `(num_items,)`, all when None, in place."""
    tokens = slice(NUM_SPECIAL_TOKENS, None) if which is None else np.flatnonzero(which) + NUM_SPECIAL_TOKENS
    with torch.no_grad():
        model.get_input_embeddings().weight[tokens] = rows.embeddings.to(model.device)
        if model.item_bias is not None and rows.biases is not None:
            model.item_bias[tokens] = rows.biases.to(model.device)


def _flat(histories: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items, counted without the special tokens, and the row that each belongs to."""
    if isinstance(histories, pa.ChunkedArray):
        histories = histories.combine_chunks()
    lengths = histories.value_lengths().to_numpy(zero_copy_only=False)
    items = histories.flatten().to_numpy(zero_copy_only=False).astype(np.int64) - NUM_SPECIAL_TOKENS
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return items[items >= 0], rows[items >= 0]


def _near_pairs(items: NDArray[np.int64], users: NDArray[np.int64], num_items: int, window: int) -> Any:
    """Sparse sums of 1 / steps, older item by newer item; an item is no neighbour of itself."""
    from scipy import sparse

    older, newer, weights = [], [], []
    for steps in range(1, min(window, len(items) - 1) + 1):
        pair = (users[:-steps] == users[steps:]) & (items[:-steps] != items[steps:])
        older.append(items[:-steps][pair])
        newer.append(items[steps:][pair])
        weights.append(np.full(int(pair.sum()), 1 / steps, dtype=np.float32))
    if not older:
        return sparse.csr_array((num_items, num_items), dtype=np.float32)
    places = (np.concatenate(older), np.concatenate(newer))
    return sparse.csr_array((np.concatenate(weights), places), shape=(num_items, num_items))


def _factors(matrix: Any, size: int, seed: int) -> Floats:
    """`U √S` of the truncated singular value decomposition; columns beyond the rank are 0."""
    from scipy.sparse.linalg import svds

    vectors = np.zeros((matrix.shape[0], size), dtype=np.float32)
    if matrix.nnz == 0:
        return vectors
    if matrix.shape[0] <= 2 * size:  # ARPACK wants fewer values than rows
        left, values, _ = np.linalg.svd(matrix.toarray())
    elif matrix.nnz <= EXACT_CELLS:
        start = np.random.default_rng(seed).standard_normal(matrix.shape[0], dtype=np.float32)
        left, values, _ = svds(matrix, k=size, v0=start)
    else:
        left, values = _randomised(matrix, size, seed)
    order = np.argsort(-values)[:size]
    vectors[:, : len(order)] = left[:, order] * np.sqrt(values[order])
    return vectors


def _randomised(matrix: Any, size: int, seed: int) -> tuple[Floats, Floats]:
    """Left vectors and values in a fixed number of passes (Halko, Martinsson and Tropp, SIAM Review 2011)."""
    cells = matrix.tocoo()
    places = torch.from_numpy(np.stack([cells.row, cells.col]))
    tensor = torch.sparse_coo_tensor(places, torch.from_numpy(cells.data), cells.shape, check_invariants=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, values, _ = torch.svd_lowrank(tensor, q=size + 8, niter=3)
    return left.numpy(), values.numpy()


def _of_length(vectors: Floats, length: float, seed: int) -> Floats:
    """Each row scaled to `length`; rows of zeros become random ones of that length."""
    norms = np.linalg.norm(vectors, axis=1)
    empty = norms <= 1e-6 * max(float(norms.max(initial=0.0)), 1e-30)
    draws = np.random.default_rng(seed).standard_normal((int(empty.sum()), vectors.shape[1]), dtype=np.float32)
    vectors = vectors.copy()
    vectors[empty] = draws
    return np.asarray(vectors * (length / np.linalg.norm(vectors, axis=1))[:, None], dtype=np.float32)
