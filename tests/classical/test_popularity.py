"""Popularity of late by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hfrec.classical.popularity import RecentPopularityBaseline


def test_recent_popularity_by_hand() -> None:
    """The age is the share of later interactions; two at one time are equally old, whatever their order."""
    sequences, times = [[3, 4], [4, 5, 3]], [10, 30, 20, 30, 40]
    counts = RecentPopularityBaseline(half_life=0.2).fit(sequences, 6, times=times).counts
    ages = np.array([4, 1, 3, 1, 0]) / 5
    weights = 0.5 ** (ages / 0.2)
    np.testing.assert_allclose(counts[3:], [weights[0] + weights[4], weights[1] + weights[2], weights[3]], rtol=1e-6)
    with pytest.raises(ValueError, match="one time for each of the 5 interactions, found shape \\(4,\\)"):
        RecentPopularityBaseline().fit(sequences, 6, times=times[:4])
