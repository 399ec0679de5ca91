"""Baselines against hand-worked scores and dense reference formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfrec.classical.ease import EASEBaseline
from hfrec.classical.item_knn import ItemKNNBaseline
from hfrec.classical.markov import MarkovBaseline
from hfrec.classical.popularity import PopularityBaseline
from hfrec.evaluation import rank_baseline

SEQUENCES = [[3, 4, 5], [3, 4], [6, 2], [3, 6]]
BASELINES = [PopularityBaseline, ItemKNNBaseline, EASEBaseline, MarkovBaseline]


def dense(sequences: list[list[int]], vocab_size: int) -> np.ndarray:
    matrix = np.zeros((len(sequences), vocab_size))
    for user, items in enumerate(sequences):
        matrix[user, items] = 1.0
    return matrix[:, 3:]


def test_popularity_by_hand() -> None:
    """Counts belong to token ids, not to ids shifted by the special tokens."""
    scores = PopularityBaseline().fit(SEQUENCES, vocab_size=8).score([[3], []])
    assert scores.tolist() == [[-np.inf] * 3 + [3.0, 2.0, 1.0, 2.0, 0.0]] * 2


def test_item_knn_by_hand() -> None:
    """Users: 3 in {0,1,3}, 4 in {0,1}, 5 in {0}, 6 in {2,3}. The newest item has weight 1, the one before decay."""
    scores = ItemKNNBaseline(decay=0.25).fit(SEQUENCES, vocab_size=8).score([[6, 4]])[0]
    cosine_34, cosine_45, cosine_36 = 2 / np.sqrt(6), 1 / np.sqrt(2), 1 / np.sqrt(6)
    assert scores[3:].tolist() == pytest.approx([cosine_34 + 0.25 * cosine_36, 0.0, cosine_45, 0.0, 0.0])


def test_item_knn_decay_counts_from_the_newest() -> None:
    """Ages counted from the oldest would favour what the user liked first."""
    knn = ItemKNNBaseline(decay=0.1).fit(SEQUENCES, vocab_size=8)
    alone, newest, oldest = knn.score([[6], [5, 6], [6, 5]])[:, 3]
    assert newest == pytest.approx(alone + 0.1 / np.sqrt(3))
    assert oldest == pytest.approx(0.1 * alone + 1 / np.sqrt(3))


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_ease_solves_its_problem(decay: float) -> None:
    """B must minimise |X - XB|² + l2 |B|² under a zero diagonal: solved here column by column."""
    rng = np.random.default_rng(0)
    sequences = [rng.choice(np.arange(3, 11), size=4, replace=False).tolist() for _ in range(30)]
    matrix, l2 = dense(sequences, 11), 3.0
    weights = np.zeros((8, 8))
    for column in range(8):
        others = [i for i in range(8) if i != column]
        gram = matrix[:, others].T @ matrix[:, others] + l2 * np.eye(7)
        weights[others, column] = np.linalg.solve(gram, matrix[:, others].T @ matrix[:, column])
    history = np.zeros(8)
    history[[5 - 3, 9 - 3, 3 - 3]] = [decay**2, decay, 1.0]
    scores = EASEBaseline(l2=l2, decay=decay).fit(sequences, vocab_size=11).score([[5, 9, 3]])
    np.testing.assert_allclose(scores[0, 3:], history @ weights, atol=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_scores_have_one_form(baseline: Any) -> None:
    """Specials are never recommended, an empty history scores, Arrow input changes nothing."""
    scores = baseline().fit(SEQUENCES, vocab_size=8).score([[3, 4], [], [2]])
    assert scores.shape == (3, 8) and scores.dtype == np.float32
    assert np.isneginf(scores[:, :3]).all() and np.isfinite(scores[:, 3:]).all()
    lists = pa.list_(pa.int32())
    # Sliced and chunked: offsets that do not start at 0 are easily forgotten.
    arrow = pa.chunked_array([pa.array([[9], *SEQUENCES[:2]], type=lists)[1:], pa.array(SEQUENCES[2:], type=lists)])
    same = baseline().fit(arrow, vocab_size=8).score(pa.array([[7], [3, 4], [], [2]], type=lists)[1:])
    np.testing.assert_array_equal(scores, same)


@pytest.mark.parametrize("baseline", BASELINES)
def test_unknown_ids_and_missing_fit_are_refused(baseline: Any) -> None:
    """Ids of another vocabulary would give plausible scores."""
    with pytest.raises(ValueError, match=r"token ids must lie in 0\.\.4, found 2\.\.6"):
        baseline().fit(SEQUENCES, vocab_size=5)
    with pytest.raises(RuntimeError, match="Call `fit`"):
        baseline().score([[3]])


def test_out_of_range_settings_are_refused() -> None:
    """A decay above 1 would weigh the oldest item most."""
    with pytest.raises(ValueError, match="`decay`"):
        ItemKNNBaseline(decay=1.5)
    with pytest.raises(ValueError, match="`decay`"):
        EASEBaseline(decay=-0.1)
    with pytest.raises(ValueError, match="`l2`"):
        EASEBaseline(l2=0.0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rank_baseline_by_hand(batch_size: int) -> None:
    """Counts of 3..7 are 3 2 1 2 0: ties do not help, seen items leave, an unknown target misses, in any batch."""
    baseline = PopularityBaseline().fit(SEQUENCES, vocab_size=8)
    histories, targets = [[3], [3, 4], [], [6], [3]], [4, 6, 3, 2, 3]
    found = rank_baseline(baseline, histories, targets, batch_size=batch_size, top_k=2)
    assert found["unfiltered"].tolist() == [3, 3, 1, 0, 1]
    assert found["filter_seen"].tolist() == [2, 1, 1, 0, 0]
    assert found["recommended"][1].tolist() == [6, 5]
    allowed = rank_baseline(baseline, histories, targets, allowed_items=iter([4, 7]), batch_size=batch_size)
    assert allowed["unfiltered"].tolist() == [1, 0, 0, 0, 0]


def test_empty_history_is_no_free_hit() -> None:
    """Item-kNN scores 0 everywhere for a new user: the target must come last."""
    knn = ItemKNNBaseline().fit(SEQUENCES, vocab_size=8)
    assert rank_baseline(knn, [[]], [3])["unfiltered"].tolist() == [5]


def test_lengths_must_agree() -> None:
    """A shifted target column would give plausible ranks."""
    baseline = PopularityBaseline().fit(SEQUENCES, vocab_size=8)
    with pytest.raises(ValueError, match="found 2 and 1"):
        rank_baseline(baseline, [[3], [4]], [4])
