"""Metrics against hand-worked values, intervals against theory and an explicit bootstrap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfrec.evaluation import metrics
from hfrec.evaluation.metrics import (
    bootstrap,
    coverage,
    mean_popularity,
    metric_values,
    paired_bootstrap,
    ranking_metrics,
)

RANKS = [1, 2, 3, 6, 0, 21]


def test_hand_worked_values() -> None:
    """A wrong log base or an off-by-one in the rank gives 0.469 or 0.63 to a hit at rank 1."""
    found = ranking_metrics(RANKS, ks=(1, 5, 20), n_bootstrap=0)
    assert found["hit_rate@1"] == found["ndcg@1"] == found["mrr@1"] == found["recall@1"] == pytest.approx(1 / 6)
    assert found["hit_rate@5"] == found["recall@5"] == pytest.approx(3 / 6)
    assert found["ndcg@5"] == pytest.approx((1 + 0.6309297535714575 + 0.5) / 6)
    assert found["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 6)
    assert found["hit_rate@20"] == pytest.approx(4 / 6)
    assert found["ndcg@20"] == pytest.approx((1 + 0.6309297535714575 + 0.5 + 0.3562071871080222) / 6)
    assert found["mrr@20"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 6) / 6)
    assert found["precision@5"] == pytest.approx(3 / 6 / 5)
    assert found["map@5"] == found["mrr@5"]
    assert len(found) == 18


def test_misses_count_as_zero() -> None:
    """Rank 0 must neither divide by zero nor count as better than rank 1."""
    for name in ("hit_rate@10", "ndcg@10", "mrr@10", "recall@10"):
        assert metric_values([0, 10, 11], name).tolist() == [0.0, metric_values([10], name)[0], 0.0]


def test_interval_of_a_share_is_the_binomial_one() -> None:
    """1000 rows with 200 hits: standard error sqrt(.2 * .8 / 1000) = .01265, so [.175, .225]."""
    low, high = ranking_metrics([1] * 200 + [0] * 800, ks=[10], n_bootstrap=4000)["hit_rate@10_ci"]
    assert (low, high) == pytest.approx((0.2 - 1.96 * 0.01265, 0.2 + 1.96 * 0.01265), abs=0.003)


def test_interval_equals_an_explicit_bootstrap() -> None:
    """Drawing counts of distinct values must be drawing rows."""
    rng = np.random.default_rng(3)
    ranks = rng.integers(0, 15, size=300)
    values = metric_values(ranks, "ndcg@10")
    explicit = values[rng.integers(0, 300, size=(4000, 300))].mean(axis=1)
    interval = ranking_metrics(ranks, ks=[10], n_bootstrap=4000, confidence=0.9)["ndcg@10_ci"]
    assert interval == pytest.approx(np.quantile(explicit, [0.05, 0.95]).tolist(), abs=0.002)


def test_seed_decides_the_interval() -> None:
    """Two runs with one seed must print one table."""
    first, again = ranking_metrics(RANKS, seed=5), ranking_metrics(RANKS, seed=5)
    assert first == again
    assert first["mrr@20_ci"] != ranking_metrics(RANKS, seed=6)["mrr@20_ci"]


def test_paired_bootstrap_keeps_the_pairs() -> None:
    """Unpaired resampling would hide that `a` is better on every single row."""
    ranks_b = np.arange(2, 202)
    found = paired_bootstrap(ranks_b - 1, ranks_b, metric="mrr@1000")
    difference = (1 / (ranks_b - 1) - 1 / ranks_b).mean()
    assert found["difference"] == pytest.approx(difference)
    assert found["difference_ci"][0] > 0
    assert found["p_value"] == pytest.approx(2 / 1001)
    swapped = paired_bootstrap(ranks_b, ranks_b - 1, metric="mrr@1000")
    assert swapped["difference"] == pytest.approx(-difference)
    assert paired_bootstrap(RANKS, RANKS)["p_value"] == 1.0


def test_seeds_are_pooled_for_each_user() -> None:
    """Seeds taken for users would make an interval narrower the more often one model is trained."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 12, (3, 200)), rng.integers(0, 12, 200)
    found = paired_bootstrap(a, b, metric="mrr@10", n_bootstrap=4000)
    values = np.mean([metric_values(row, "mrr@10") for row in a], axis=0) - metric_values(b, "mrr@10")
    explicit = values[np.random.default_rng(1).integers(0, 200, size=(4000, 200))].mean(axis=1)
    assert found["difference"] == pytest.approx(values.mean())
    assert found["difference_ci"] == pytest.approx(np.quantile(explicit, [0.025, 0.975]).tolist(), abs=0.004)
    assert paired_bootstrap(np.stack([b] * 5), b)["difference_ci"] == [0.0, 0.0]


def test_many_comparisons_widen_the_simultaneous_interval() -> None:
    """Ten comparisons at 95 % each are not 95 % for all of them."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 12, 100), rng.integers(0, 12, 100)
    found = paired_bootstrap(a, b, n_bootstrap=4000, comparisons=10)
    wide = paired_bootstrap(a, b, n_bootstrap=4000, confidence=0.995)["difference_ci"]
    assert found["difference_ci_simultaneous"] == pytest.approx(wide)
    assert wide[0] < found["difference_ci"][0] < found["difference_ci"][1] < wide[1]
    assert found["difference_ci"] == paired_bootstrap(a, b, n_bootstrap=4000)["difference_ci"]


def test_resamples_drawn_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that depends on how much memory a machine has."""
    ranks = np.random.default_rng(0).integers(0, 30, 200)
    whole = ranking_metrics(ranks, n_bootstrap=100)
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 7)
    parts = ranking_metrics(ranks, n_bootstrap=100)
    assert all(parts[name] == pytest.approx(value, abs=1e-12) for name, value in whole.items())


def test_coverage_and_popularity_by_hand() -> None:
    """Special ids that fill empty places must not count as items."""
    recommended = [[3, 5], [5, 0]]
    assert coverage(recommended, num_items=4) == 0.5
    assert mean_popularity(recommended, item_counts=[9, 9, 9, 1, 7, 4]) == 3.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranking_metrics([]), "`ranks` must be a non-empty"),
        (lambda: ranking_metrics([[1, 2]]), "`ranks` must be a non-empty"),
        (lambda: ranking_metrics([1.0]), "`ranks` must be a non-empty"),
        (lambda: ranking_metrics([-100, 1]), "at least 0"),
        (lambda: ranking_metrics([1], ks=[0]), "found 'hit_rate@0'"),
        (lambda: ranking_metrics([1], n_bootstrap=-1), "`n_bootstrap`"),
        (lambda: ranking_metrics([1], confidence=95), "`confidence`"),
        (lambda: metric_values([1], "auc@10"), "`metric` must be one of"),
        (lambda: paired_bootstrap([1], [1, 2]), "must rank the same rows, found 1 and 2"),
        (lambda: coverage([[3, 4]], num_items=1), "`num_items`"),
        (lambda: mean_popularity([[0]], item_counts=[0]), "holds no item"),
        (lambda: mean_popularity([[3]], item_counts=[0]), "`item_counts`"),
    ],
)
def test_wrong_input_is_refused(call: Any, message: str) -> None:
    """Padding, an empty split or percent in the place of a share would give plausible numbers."""
    with pytest.raises(ValueError, match=message):
        call()


def test_evaluate_load_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module works offline from its folder and computes what the functions compute."""
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = evaluate.load(str(Path(metrics.__file__).parent), cache_dir=str(tmp_path))
    assert module.compute(predictions=RANKS, ks=[10], seed=3) == ranking_metrics(RANKS, ks=[10], seed=3)
    module.add_batch(predictions=RANKS[:3])
    module.add_batch(predictions=RANKS[3:])
    found = module.compute(n_bootstrap=0, recommended=[[3, 4], [3, 5]], num_items=6, item_counts=[0, 0, 0, 4, 2, 2])
    assert found == ranking_metrics(RANKS, n_bootstrap=0) | {
        "coverage": 0.5,
        "gini_index": pytest.approx(7 / 12),
        "mean_popularity": 3.0,
        "novelty": pytest.approx((2 * 1.0 + 2.0 + 2.0) / 4),
    }
    with pytest.raises(ValueError, match="need `recommended`"):
        module.compute(predictions=RANKS, num_items=6)
