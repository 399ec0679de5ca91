"""A first-order Markov chain: what followed the newest item."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tokenization import NUM_SPECIAL_TOKENS
from .cooccurrence import BLOCK_ENTRIES, blocks, bounded_k
from .histories import flatten
from .neighbours import ItemToItemBaseline, NeighbourTable, TableWriter, strength_keys, strongest_keys


class MarkovBaseline(ItemToItemBaseline):
    """Transitions from item to next item, counted in the histories.

    `W[i, j] = (c_ij + smoothing * p_j) / (c_i + smoothing)`, where `c_ij` sums `1 / distance` over the times that j
    follows i at a distance of at most `skips`, `c_i` its sum over j, and `p_j` the share of interactions with j:
    what is rarely followed is backed by what is popular.

    Args:
        k: neighbours kept of each item.
        skips: longest distance of a transition, at least 1.
        smoothing: transitions that popularity counts for, at least 0; 0 is the plain chain.
        decay: weight of an item against the one after it, in [0, 1]; 0 is first-order, the newest item alone.

    Example:
        >>> markov = MarkovBaseline(smoothing=0.0).fit([[3, 4], [3, 4], [3, 5]], vocab_size=6)
        >>> [round(score, 3) for score in markov.score([[4, 3]])[0, 3:].tolist()]
        [0.0, 0.667, 0.333]

    Reference:
        Rendle et al., Factorizing personalized Markov chains for next-basket recommendation, WWW 2010, section 3 (the
        chain that is not factorised). Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI
        2018 (transitions over a distance).
    """

    def __init__(self, *, k: int = 200, skips: int = 1, smoothing: float = 1.0, decay: float = 0.0) -> None:
        super().__init__(k=k, decay=decay)
        if not skips >= 1:
            raise ValueError(f"`skips` must be at least 1, found {skips}. 1 counts direct successors.")
        if not smoothing >= 0:
            raise ValueError(f"`smoothing` must be at least 0, found {smoothing}. Use 0 for the plain chain.")
        self.skips = skips
        self.smoothing = smoothing

    def fit(self, sequences: Any, vocab_size: int) -> MarkovBaseline:
        """Count the transitions.

        Args:
            sequences: lists of token ids, oldest first, or an Arrow list array.
            vocab_size: size of the vocabulary, special tokens included.

        Returns:
            The baseline itself.

        Raises:
            ValueError: if a token id lies outside the vocabulary.
        """
        counts = transitions(sequences, vocab_size, skips=self.skips)
        self._table = smoothed_table(counts, self.smoothing, item_shares(sequences, vocab_size), k=self.k)
        return self


def item_shares(sequences: Any, vocab_size: int) -> NDArray[np.float64]:
    """(vocab_size,) share of the interactions that each item has, 0 at special tokens."""
    ids, _ = flatten(sequences, vocab_size)
    items = ids[ids >= NUM_SPECIAL_TOKENS]
    return np.bincount(items, minlength=vocab_size) / max(len(items), 1)


def transitions(sequences: Any, vocab_size: int, *, skips: int) -> Any:
    """Sparse (vocab_size, vocab_size) sums of `1 / distance` over the times that j follows i, ids in rising order."""
    from scipy import sparse

    ids, lengths = flatten(sequences, vocab_size)
    users = np.repeat(np.arange(len(lengths)), lengths)
    total = sparse.csr_array((vocab_size, vocab_size), dtype=np.float64)
    for distance in range(1, skips + 1):
        before, after = ids[:-distance], ids[distance:]
        same = (users[:-distance] == users[distance:]) & (before >= NUM_SPECIAL_TOKENS) & (after >= NUM_SPECIAL_TOKENS)
        values = np.full(int(same.sum()), 1.0 / distance)
        total = total + sparse.csr_array((values, (before[same], after[same])), shape=total.shape)
    total.sort_indices()
    return total


def smoothed_table(counts: Any, smoothing: float, shares: NDArray[np.float64], *, k: int) -> NeighbourTable:
    """The k most probable followers of each item.

    Args:
        counts: what `transitions` returns.
        smoothing: as in `MarkovBaseline`.
        shares: (vocab_size,) popularity, sums to 1.
        k: followers kept of each item.
    """
    lengths = np.diff(counts.indptr)
    sizes = np.full(len(shares), len(shares)) if smoothing else lengths
    k = bounded_k(k, sizes)
    # Of the items that never followed, only these can stay.
    popular = np.sort(np.argsort(-shares, kind="stable")[: k if smoothing else 0])
    writer = TableWriter(np.minimum(sizes, k))
    for start, stop in blocks(lengths + len(popular), BLOCK_ENTRIES):
        followers = slice(counts.indptr[start], counts.indptr[stop])
        ids, times = counts.indices[followers], counts.data[followers]
        rows = np.repeat(np.arange(stop - start), lengths[start:stop])
        totals = np.bincount(rows, weights=times, minlength=stop - start) + smoothing
        totals[totals == 0] = 1.0  # no followers, no weight to divide
        keys = strength_keys(popular, smoothing * shares[popular] / totals[:, None])  # (stop - start, len(popular))
        known = np.isin(ids, popular)
        keys[rows[known], np.searchsorted(popular, ids[known])] = 0  # they stand among the followers
        of_followers = strength_keys(ids, (smoothing * shares[ids] + times) / totals[rows])
        writer.add_block(start, np.hstack([keys, strongest_keys(of_followers, lengths[start:stop], k)]), k)
    return writer.table()
