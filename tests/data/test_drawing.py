"""Sources are drawn as the temperature says, no row is lost, and an epoch that is begun again is the same."""

from __future__ import annotations

from collections import Counter

import pytest
from torch.utils.data import DataLoader

from hfrec.data.drawing import DrawnRows, draws_of_sources, rows_of_pass


def test_shares_follow_the_temperature() -> None:
    """By hand: square roots at 2, all alike at infinity, and the sum is the number of rows."""
    assert draws_of_sources([1600, 400, 100], 1.0) == [1600, 400, 100]
    assert draws_of_sources([1600, 400, 100], 2.0) == [1200, 600, 300]
    assert draws_of_sources([10, 1, 1], 1e9) == [4, 4, 4]
    assert sum(draws_of_sources([7, 5, 3], 1.7)) == 15
    with pytest.raises(ValueError, match="above 0, found 0"):
        draws_of_sources([1], 0.0)


@pytest.mark.parametrize("draws", [3, 10, 25])
def test_no_row_is_drawn_much_more_often_than_another(draws: int) -> None:
    """A small source drawn with replacement would show some histories ten times and others never."""
    counts: Counter[int] = Counter({row: 0 for row in range(10)})
    for epoch in range(7):
        rows = rows_of_pass(10, draws, source=1, seed=3, epoch=epoch)
        assert len(rows) == draws
        counts.update(rows.tolist())
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_sampler_hangs_on_seed_and_epoch_alone() -> None:
    """A resumed run calls `set_epoch` and skips: any other state would give it other batches."""
    rows = DrawnRows(list(range(30)), [20, 10], temperature=2.0, seed=5)
    sampler = rows.sampler()
    first = list(sampler)
    sampler.set_epoch(4)
    fifth = list(sampler)
    again = DrawnRows(list(range(30)), [20, 10], temperature=2.0, seed=5).sampler()
    again.set_epoch(4)
    assert list(again) == fifth != first
    assert len(sampler) == len(first) == 30
    assert sum(index >= 20 for index in first) == rows.draws[1] == 12
    other = DrawnRows(list(range(30)), [20, 10], temperature=2.0, seed=6).sampler()
    assert list(other) != first


def test_a_loader_takes_the_rows_of_the_sampler() -> None:
    """Indices of another order would pair rows with the wrong source."""
    rows = DrawnRows(DataRows(range(30)), [20, 10], temperature=2.0, seed=5)
    loader = DataLoader(rows, batch_size=4, sampler=rows.sampler(), collate_fn=list)
    assert [row for batch in loader for row in batch] == list(rows.sampler())


class DataRows(list[int]):
    """Rows that are fetched several at a time, as `datasets` does."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        return [self[index] for index in indices]
