"""Tables of neighbours: what is kept, in which order, and what a cut costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hfrec.classical import neighbours
from hfrec.classical.ease import EASEBaseline
from hfrec.classical.item_knn import ItemKNNBaseline
from hfrec.classical.markov import MarkovBaseline
from hfrec.classical.neighbours import TableWriter, strength_keys, strongest, strongest_keys
from hfrec.scoring import encode_keys

ITEM_TO_ITEM = [ItemKNNBaseline, EASEBaseline, MarkovBaseline]
VOCAB_SIZE = 43


def random_histories(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB_SIZE, size=rng.integers(1, 12)).tolist() for _ in range(60)]


def test_the_strongest_are_kept_by_absolute_weight() -> None:
    """EASE says "not this" with negative weights, which a cut by value would drop first."""
    ids, weights = strongest(np.arange(5), np.array([0.1, -3.0, 0.0, 2.0, -0.2]), k=3)
    assert ids.tolist() == [1, 3, 4]
    assert weights.tolist() == pytest.approx([-3.0, 2.0, -0.2])


def test_ties_go_to_the_lower_id_and_zeros_are_no_neighbours() -> None:
    """An arbitrary choice among equal neighbours would make two fits of one log differ."""
    ids, _ = strongest(np.arange(6), np.array([1.0, 2.0, 1.0, 1.0, 0.0, 2.0]), k=3)
    assert ids.tolist() == [1, 5, 0]
    assert strongest(np.arange(4), np.array([0.0, 1.0, 0.0, 0.0]), k=3)[0].tolist() == [1]


def test_neighbours_have_the_order_of_recommendations() -> None:
    """A table that breaks ties another way than a list would drop neighbours that the list asks for."""
    ids, weights = np.arange(3, 13), np.array([0.5, 0.0, 2.0, 0.5, 1e-30, 3.0, 0.0, 2.0, 7.0, 0.1])
    keys = encode_keys(torch.from_numpy(weights), torch.from_numpy(ids)).numpy()
    np.testing.assert_array_equal(strength_keys(ids, weights), 2**32 - 1 - keys)


@pytest.mark.parametrize("k", [1, 3, 100])
def test_rows_of_a_block_are_cut_as_one_row_is(k: int) -> None:
    """A block sorts whole keys, where ties, zeros, empty rows and rows of other lengths could go another way."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 30, size=200)
    rows = [rng.choice(40, size=length, replace=False) for length in lengths]  # ids in any order
    weights = [rng.integers(0, 5, size=length) / 7 for length in lengths]
    writer, plain = TableWriter(lengths), TableWriter(lengths)
    for start, stop in [(0, 1), (1, 120), (120, 200)]:
        keys = strength_keys(np.concatenate(rows[start:stop]), np.concatenate(weights[start:stop]))
        writer.add_block(start, strongest_keys(keys, lengths[start:stop], k), k)
    for token, (ids, values) in enumerate(zip(rows, weights, strict=True)):
        order = np.argsort(ids)
        plain.add(token, *strongest(ids[order], values[order], k))
    for name in ("offsets", "ids", "weights"):
        np.testing.assert_array_equal(getattr(writer.table(), name), getattr(plain.table(), name))


@pytest.mark.parametrize("baseline", ITEM_TO_ITEM)
def test_a_cut_table_is_the_table_of_a_smaller_k(baseline: Any) -> None:
    """Trials of k cut one table; where that differs from a fit, the chosen k would stand for another model."""
    histories = random_histories()
    whole = baseline(k=VOCAB_SIZE).fit(histories, VOCAB_SIZE)
    for k in (1, 3, 10):
        cut, direct = baseline(k=k).with_table(whole._table), baseline(k=k).fit(histories, VOCAB_SIZE)
        assert direct.table()[0].shape[1] <= k
        for one, other in zip(cut.table(), direct.table(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("baseline", ITEM_TO_ITEM)
@pytest.mark.parametrize("k", [4, VOCAB_SIZE])
def test_scores_follow_from_the_table(baseline: Any, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others score with `table()` and `decay` alone: the sum over the history must be all there is."""
    histories = random_histories()
    fitted = baseline(k=k, decay=0.7).fit(histories, VOCAB_SIZE)
    ids, weights = fitted.table()
    assert ids.dtype == np.int64 and weights.dtype == np.float32
    expected = np.zeros((len(histories), VOCAB_SIZE))
    for row, history in enumerate(histories):
        for age, item in enumerate(reversed(history)):
            np.add.at(expected[row], ids[item], 0.7**age * weights[item])
    np.testing.assert_allclose(fitted.score(histories)[:, 3:], expected[:, 3:], atol=1e-5)
    monkeypatch.setattr(neighbours, "MAX_DENSE_ENTRIES", 0)
    sparse = fitted.with_table(fitted._table)
    np.testing.assert_allclose(sparse.score(histories)[:, 3:], expected[:, 3:], atol=1e-5)


@pytest.mark.parametrize("baseline", ITEM_TO_ITEM)
def test_a_decay_of_0_reads_the_newest_item_alone(baseline: Any) -> None:
    """0 ** 0 is 1: the newest item must not vanish with the rest."""
    fitted = baseline(decay=0.0).fit(random_histories(), VOCAB_SIZE)
    np.testing.assert_array_equal(fitted.score([[5, 9, 7]]), fitted.score([[7]]))
    assert fitted.score([[7]])[0, 3:].any()


def test_a_long_history_scores_as_its_newest_items() -> None:
    """Items below float32's resolution are left out for speed; were they cut sooner, scores would change."""
    knn = ItemKNNBaseline(decay=0.5).fit(random_histories(), VOCAB_SIZE)
    history = np.random.default_rng(1).integers(3, VOCAB_SIZE, size=200).tolist()
    ids, weights = knn.table()
    expected = np.zeros(VOCAB_SIZE)
    for age, item in enumerate(reversed(history)):
        np.add.at(expected, ids[item], 0.5**age * weights[item])
    np.testing.assert_allclose(knn.score([history])[0, 3:], expected[3:], rtol=1e-5, atol=1e-6)


def test_padding_is_id_0_with_weight_0() -> None:
    """A padded place with a weight would recommend [PAD]."""
    writer = TableWriter(np.array([2, 5, 1]))
    writer.add(0, *strongest(np.array([1, 2]), np.array([1.0, 2.0]), 5))
    writer.add(2, *strongest(np.array([0]), np.array([3.0]), 5))
    ids, weights = writer.table().padded()
    assert ids.tolist() == [[2, 1], [0, 0], [0, 0]]
    assert weights.tolist() == [[2.0, 1.0], [0.0, 0.0], [3.0, 0.0]]


def test_k_must_be_positive() -> None:
    """A table without columns scores 0 everywhere, silently."""
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        ItemKNNBaseline(k=0)
