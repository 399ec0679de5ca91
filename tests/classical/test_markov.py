"""Transitions by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfrec.classical.markov import MarkovBaseline

HISTORIES = [[3, 4, 5], [3, 4, 3], [5, 5, 2, 4], [4]]


def test_transitions_by_hand() -> None:
    """A pair across two users, or over [UNK], is no transition; a repeat is one from the item to itself."""
    scores = MarkovBaseline(smoothing=0.0).fit(HISTORIES, 7).score([[3], [4], [5], [6]])[:, 3:]
    assert scores.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]


def test_skips_weigh_by_distance() -> None:
    """3 is followed by 4 (1) and 5 (1/2), and by 4 (1) and 3 (1/2); the distance over [UNK] counts its place."""
    scores = MarkovBaseline(smoothing=0.0, skips=2).fit(HISTORIES, 7).score([[3], [5]])[:, 3:]
    np.testing.assert_allclose(scores, [[0.5 / 3, 2 / 3, 0.5 / 3, 0.0], [0.0, 0.5 / 1.5, 1 / 1.5, 0.0]], atol=1e-6)


def test_skips_beyond_the_longest_history_add_nothing() -> None:
    """A slice of negative length would pair the ends of the log."""
    longest, beyond = (MarkovBaseline(skips=skips).fit(HISTORIES, 7).score([[3], [4]]) for skips in (3, 99))
    np.testing.assert_array_equal(longest, beyond)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_smoothing_keeps_the_k_most_probable(k: int) -> None:
    """Kept from the transitions alone, the table would miss popular items that rank above rare followers."""
    counts = np.zeros((7, 7))
    for before, after in [(3, 4), (4, 5), (3, 4), (4, 3), (5, 5)]:
        counts[before, after] += 1
    popularity = np.bincount([3, 4, 5, 3, 4, 3, 5, 5, 4, 4], minlength=7) / 10
    dense = (counts + 2.0 * popularity) / (counts.sum(axis=1, keepdims=True) + 2.0)
    table, weights = MarkovBaseline(k=k, smoothing=2.0).fit(HISTORIES, 7).table()
    for item in range(3, 7):
        order = np.argsort(-dense[item], kind="stable")[:k]
        order = order[dense[item][order] > 0]
        assert table[item][: len(order)].tolist() == order.tolist()
        np.testing.assert_allclose(weights[item][: len(order)], dense[item][order], rtol=1e-6)


def test_out_of_range_settings_are_refused() -> None:
    """No transition at all scores 0 everywhere."""
    with pytest.raises(ValueError, match="`skips`"):
        MarkovBaseline(skips=0)
    with pytest.raises(ValueError, match="`smoothing`"):
        MarkovBaseline(smoothing=-1.0)
