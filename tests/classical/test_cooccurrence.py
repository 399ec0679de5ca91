"""Counts of common users: the same for any block, at a bounded cost, and said aloud where the bound bites."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest

from hfrec.classical import cooccurrence
from hfrec.classical.cooccurrence import CostError, bounded_k, common_users, num_pairs, training_matrix
from hfrec.classical.histories import user_item_matrix
from hfrec.classical.item_knn import ItemKNNBaseline, cosine_tables


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("hfrec"), "propagate", True)
    monkeypatch.setattr(cooccurrence.logger, "propagate", True)
    return caplog


@pytest.mark.parametrize("limit", [1, 7, 10**9])
def test_counts_are_those_of_the_whole_product(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that ends early or late would lose or shift the neighbours of its last items."""
    rng = np.random.default_rng(0)
    histories = [rng.integers(3, 20, size=6).tolist() for _ in range(25)]
    dense = user_item_matrix(histories, 20).toarray()
    monkeypatch.setattr(cooccurrence, "BLOCK_ENTRIES", limit)
    found = np.zeros((20, 20))
    for start, counts in common_users(user_item_matrix(histories, 20)):
        found[start : start + counts.shape[0]] += counts.toarray()
    np.testing.assert_array_equal(found, dense.T @ dense)


def test_long_histories_are_cut_to_their_newest_items_aloud(warnings_of: pytest.LogCaptureFixture) -> None:
    """2,000 items of one user are four million pairs; leaving out the newest of them would be the wrong cut."""
    histories = [list(range(3, 103)), [3, 4]]
    matrix = training_matrix(histories, 103, max_pairs=2504)
    kept = matrix[[0]].nonzero()[1]
    assert 40 <= len(kept) <= 50 and kept.max() == 102 and (np.diff(kept) == 1).all()
    assert num_pairs(np.diff(matrix.indptr), 1000) <= 2504
    assert f"the newest {len(kept)} of each history" in warnings_of.text


def test_a_log_within_the_limit_is_not_cut(warnings_of: pytest.LogCaptureFixture) -> None:
    """Cutting without need would weaken the opponent."""
    assert training_matrix([list(range(3, 103))], 103, max_pairs=10_000).sum() == 100
    assert warnings_of.text == ""


def test_too_many_pairs_in_the_newest_items_are_refused() -> None:
    """The alternative is an hour of one core, or the end of memory."""
    with pytest.raises(CostError, match=r"4,000 pairs of items in the newest 20"):
        training_matrix([list(range(3, 103))] * 10, 103, max_pairs=3999)


def test_a_table_too_large_keeps_fewer_neighbours_aloud(
    warnings_of: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million items of a thousand neighbours each take 8 GB."""
    monkeypatch.setattr(cooccurrence, "MAX_TABLE_ENTRIES", 30)
    assert bounded_k(10, np.array([0, 100, 100, 2]), num_tables=1) == 10
    assert bounded_k(10, np.array([0, 100, 100, 2]), num_tables=2) == 6
    assert "6 neighbours of each are kept and not 10" in warnings_of.text
    histories = [list(range(3, 13))] * 2
    assert ItemKNNBaseline(k=9).fit(histories, 13).table()[0].shape == (13, 3)


def test_tables_are_made_without_a_second_copy_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of rows beside the table that they are joined to took 400 MB of a million items."""
    rng = np.random.default_rng(0)
    matrix = user_item_matrix([rng.permutation(400)[:300] + 3 for _ in range(40)], 403)
    monkeypatch.setattr(cooccurrence, "BLOCK_ENTRIES", 1000)
    tracemalloc.start()
    tables = cosine_tables(matrix, [0.0, 5.0], k=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(table.ids.nbytes + table.weights.nbytes for table in tables)
    assert size > 2_000_000
    assert peak < 1.3 * size
