"""Metrics by cohort, and who belongs to which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hfrec.evaluation import cohorts
from hfrec.evaluation.metrics import ranking_metrics

RANKS = np.array([1, 2, 3, 6, 0, 21])


def test_a_cohort_has_the_metrics_of_its_rows_alone() -> None:
    """A mean or an interval over all rows would hide the cohort that the table is read for."""
    mask = np.array([True, False, True, False, True, False])
    found = cohorts.summarise_cohorts(RANKS, {"some": mask, "all": np.ones(6, dtype=bool)}, ks=(5, 10), seed=3)
    assert found["some"] == {"n": 3, **ranking_metrics([1, 3, 0], ks=(5, 10), seed=3)}
    assert found["all"] == {"n": 6, **ranking_metrics(RANKS, ks=(5, 10), seed=3)}
    assert found["some"]["ndcg@10"] == pytest.approx(0.5) != found["all"]["ndcg@10"]
    assert len(found["some"]["ndcg@10_ci"]) == 2


def test_an_empty_cohort_claims_nothing() -> None:
    """A metric of 0 for nobody would read as a model that fails for them."""
    assert cohorts.summarise_cohorts(RANKS, {"nobody": np.zeros(6, dtype=bool)}) == {"nobody": {"n": 0}}
    assert cohorts.summarise_cohorts(RANKS, {}) == {}


@pytest.mark.parametrize(
    "mask",
    [np.array([0, 2]), np.array([1, 0, 1, 0, 1, 0]), np.array([True]), np.ones((6, 1), dtype=bool), [True] * 6],
)
def test_places_or_a_wrong_length_are_no_mask(mask: Any) -> None:
    """NumPy takes indices and broadcast masks without a word, and gives metrics of other rows."""
    with pytest.raises(ValueError, match=r"`masks\['late'\]` must be a bool array of the shape \(6,\)"):
        cohorts.summarise_cohorts(RANKS, {"late": mask})


def test_the_bootstrap_can_be_left_out() -> None:
    """Thousands of cohorts in a loop need no intervals."""
    found = cohorts.summarise_cohorts(RANKS, {"all": np.ones(6, dtype=bool)}, n_bootstrap=0)["all"]
    assert not [name for name in found if name.endswith("_ci")]


def test_every_length_is_in_one_cohort() -> None:
    """A gap between two cohorts loses users from the table; an overlap counts them twice."""
    masks = cohorts.history_masks(np.arange(60))
    assert np.stack(list(masks.values())).sum(axis=0).tolist() == [1] * 60
    first = {name: int(mask.argmax()) for name, mask in masks.items()}
    expected = {"0": 0, "1": 1, "2-3": 2, "4-10": 4, "11-50": 11, ">50": 51}
    assert first == {f"history {name}": place for name, place in expected.items()}


def test_kinds_of_targets_by_hand() -> None:
    """Of 20 interactions 10 are on item 3: it alone is the head. An unknown target is cold, even beside an [UNK]."""
    counts = [7, 7, 7, 10, 5, 4, 1, 0]
    targets = [3, 4, 5, 7, 2]
    histories = [[4, 3], [3], [5], [], [2]]
    found = {name: mask.tolist() for name, mask in cohorts.target_masks(histories, targets, counts).items()}
    assert found["target cold"] == [False, False, True, True, True]
    assert found["target head"] == [True, False, False, False, False]
    assert found["target repeat"] == [True, False, True, False, False]
    for one, other in (("cold", "warm"), ("head", "tail"), ("repeat", "explore")):
        assert [not value for value in found[f"target {one}"]] == found[f"target {other}"]


def test_targets_of_another_tokenizer_are_refused() -> None:
    """NumPy would read -1 as the last item and give it that item's popularity."""
    for targets in ([3], [3, 9], [3, -1]):
        with pytest.raises(ValueError, match="`targets` must be one token id below 5 for each of the 2 histories"):
            cohorts.target_masks([[3], [4]], targets, [0, 0, 0, 1, 1])
