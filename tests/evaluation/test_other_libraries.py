"""Every metric against an implementation that is not ours: trec_eval, scikit-learn, SciPy, RecTools and PySAL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfrec.evaluation import (
    calibration,
    coverage,
    gini_index,
    intra_list_diversity,
    list_popularity,
    mean_popularity,
    metric_values,
    novelty,
    popularity_lift,
)
from hfrec.evaluation.ranking import target_ranks

REFERENCE = Path(__file__).with_name("lists_reference.json")
CASES = json.loads(REFERENCE.read_text(encoding="utf-8"))
ROWS, ITEMS = 200, 40
REQUIREMENTS = ("rectools==0.19.0", "inequality==1.1.2")


def scored_case(seed: int, levels: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores `(n, num_items)`, of few levels where they shall tie, targets, and the ranks that we give these."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        scores = torch.randn((ROWS, ITEMS), generator=generator)
    else:
        scores = torch.randint(0, levels, (ROWS, ITEMS), generator=generator).float()
    targets = torch.randint(0, ITEMS, (ROWS,), generator=generator)
    logits = torch.cat([torch.full((ROWS, 3), -torch.inf), scores], dim=1)
    return scores.numpy(), targets.numpy(), target_ranks(logits, targets + 3).numpy()


@pytest.mark.parametrize("levels", [None, 2, 5, 30])
@pytest.mark.parametrize("k", [5, 10, 20])
def test_accuracy_is_that_of_trec_eval(k: int, levels: int | None) -> None:
    """A wrong cut-off, discount or tie rule. trec_eval puts the larger name first among equal scores: a target of the
    smallest name loses every tie, as ours do."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    scores, targets, ranks = scored_case(k, levels)
    names = [[f"{item + 1:03d}" for item in range(ITEMS)] for _ in range(ROWS)]
    for row, target in enumerate(targets):
        names[row][target] = "000"
    run = {str(row): dict(zip(names[row], map(float, scores[row]), strict=True)) for row in range(ROWS)}
    truth = {str(row): {"000": 1} for row in range(ROWS)}
    measures = {
        "ndcg": f"ndcg_cut_{k}",
        "hit_rate": f"success_{k}",
        "recall": f"recall_{k}",
        "precision": f"P_{k}",
        "map": f"map_cut_{k}",
    }
    asked = {measure.rpartition("_")[0] + f".{k}" for measure in measures.values()} | {"recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(truth, asked).evaluate(run)
    for name, measure in measures.items():
        theirs = [found[str(row)][measure] for row in range(ROWS)]
        np.testing.assert_allclose(metric_values(ranks, f"{name}@{k}"), theirs, atol=1e-9)
    reciprocal = np.array([found[str(row)]["recip_rank"] for row in range(ROWS)])
    np.testing.assert_allclose(metric_values(ranks, f"mrr@{k}"), np.where(ranks <= k, reciprocal, 0.0), atol=1e-9)


@pytest.mark.parametrize("levels", [None, 3])
def test_ndcg_is_that_of_scikit_learn(levels: int | None) -> None:
    """scikit-learn gives a tie the mean over its orders: ours, the worst of them, must lie at or below."""
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets, ranks = scored_case(1, levels)
    truth = np.eye(ITEMS)[targets]
    theirs = np.array([metrics.ndcg_score(truth[[row]], scores[[row]], k=10) for row in range(ROWS)])
    ours = metric_values(ranks, "ndcg@10")
    if levels is None:
        np.testing.assert_allclose(ours, theirs)
    else:
        assert (ours <= theirs + 1e-12).all()
        assert (ours < theirs - 1e-3).any()


@pytest.mark.parametrize("distance", ["jaccard", "cosine"])
def test_diversity_is_that_of_scikit_learn(distance: Any) -> None:
    """An item counted with itself, or a pair twice, moves every number by the same share."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    table = (rng.random((43, 6)) < 0.4).astype(float) if distance == "jaccard" else rng.normal(size=(43, 6))
    table[:3], table[[7, 8]] = 0.0, 0.0
    lists = np.stack([rng.choice(np.arange(3, 43), 10, replace=False) for _ in range(50)])
    lists[0, 1:], lists[1, 5:] = 0, 0
    ours = intra_list_diversity(lists, features=table, distance=distance)
    for row, items in enumerate(lists):
        known = table[[item for item in items if table[item].any()]]
        pairs = np.triu_indices(len(known), k=1)
        if len(pairs[0]) == 0:
            assert np.isnan(ours[row])
            continue
        given = known.astype(bool) if distance == "jaccard" else known
        theirs = metrics.pairwise_distances(given, metric=distance)
        assert ours[row] == pytest.approx(theirs[pairs].mean())
    assert np.isnan(ours[0])


def test_calibration_is_the_relative_entropy_of_scipy() -> None:
    """p and q changed over, or categories of an item that weigh more the more it has."""
    from scipy.stats import entropy

    rng = np.random.default_rng(0)
    table = (rng.random((43, 5)) < 0.4).astype(float)
    table[:3] = 0.0
    histories = [rng.integers(3, 43, size).tolist() for size in rng.integers(0, 20, 60)]
    lists = rng.integers(3, 43, (60, 10))
    ours = calibration(lists, histories, features=table, alpha=0.05)

    def shares(items: Any) -> np.ndarray:
        known = [table[item] / table[item].sum() for item in items if table[item].any()]
        return np.mean(known, axis=0) if known else np.full(5, np.nan)

    for row in range(60):
        p, q = shares(histories[row]), shares(lists[row])
        theirs = float(entropy(p, 0.95 * q + 0.05 * p))
        assert ours[row] == pytest.approx(theirs, nan_ok=True)
    assert np.isnan(ours).any() and not np.isnan(ours).all()


@pytest.mark.parametrize("case", CASES)
def test_lists_are_measured_as_rectools_and_pysal_do(case: dict[str, Any]) -> None:
    """Popularity by places instead of users, a Gini index over the recommended items alone, another logarithm."""
    lists, histories, targets = np.array(case["lists"]), case["histories"], case["targets"]
    counts = np.bincount(np.concatenate(histories), minlength=33)
    assert coverage(lists, num_items=30) == pytest.approx(case["coverage"])
    assert gini_index(lists, num_items=30) == pytest.approx(case["gini"])
    np.testing.assert_allclose(novelty(lists, item_counts=counts, total=len(histories)), case["novelty"])
    np.testing.assert_allclose(list_popularity(lists, item_counts=counts), case["popularity"])
    consumed = list_popularity(histories, item_counts=counts)
    np.testing.assert_allclose(consumed, case["consumed_popularity"])
    assert mean_popularity(lists, item_counts=counts) == pytest.approx(np.mean(case["popularity"]))
    lift = np.mean(case["popularity"]) / np.mean(case["consumed_popularity"]) - 1
    assert popularity_lift(list_popularity(lists, item_counts=counts), consumed) == pytest.approx(lift)
    ranks = [row.index(target) + 1 if target in row else 0 for row, target in zip(case["lists"], targets, strict=True)]
    for name, theirs in case["accuracy"].items():
        np.testing.assert_allclose(metric_values(ranks, name), theirs, atol=1e-12)


@pytest.mark.slow
def test_the_reference_is_what_the_libraries_say(tmp_path: Path) -> None:
    """A table of numbers that nobody can make again proves nothing."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    script, found = REFERENCE.with_suffix(".py"), tmp_path / "found.json"
    subprocess.run([str(python), "-I", str(script), str(found)], check=True)
    for case, again in zip(CASES, json.loads(found.read_text()), strict=True):
        assert case.keys() == again.keys()
        for name in case:
            assert again[name] == pytest.approx(case[name], abs=1e-9) if name in ("coverage", "gini") else True
        for name in ("novelty", "popularity", "consumed_popularity"):
            np.testing.assert_allclose(again[name], case[name])
        assert again["lists"] == case["lists"]
        assert again["accuracy"] == case["accuracy"]


TABLE = [[0, 0]] * 3 + [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gini_index([[0]], num_items=3), "holds no item"),
        (lambda: gini_index([[3, 4]], num_items=1), "`num_items`"),
        (lambda: novelty([[5]], item_counts=[0] * 4 + [1]), "found 5 rows and id 5"),
        (lambda: novelty([[3]], item_counts=[0] * 4), "`total` must be at least 1"),
        (lambda: intra_list_diversity([[3, 5]], features=TABLE), "`features` must hold one row"),
        (lambda: intra_list_diversity([[3, 4]], features=np.array(TABLE) * 0.5), "must be 0 or 1"),
        (lambda: intra_list_diversity([[3]], features=TABLE, distance="euclid"), "found 'euclid'"),  # type: ignore
        (lambda: calibration([[3]], [[3], [4]], features=TABLE), "found 1 and 2"),
        (lambda: calibration([[3]], [[3]], features=TABLE, alpha=0.0), "`alpha`"),
        (lambda: calibration([[3]], [[3]], features=-np.array(TABLE)), "below 0"),
    ],
)
def test_wrong_input_is_refused(call: Callable[[], Any], message: str) -> None:
    """Each of these would give a number of something."""
    with pytest.raises(ValueError, match=message):
        call()


def test_users_without_anything_are_not_counted() -> None:
    """A user with an empty list or history has no value; as a 0 he would pull the mean."""
    counts = np.array([0, 0, 0, 8, 2])
    assert np.isnan(novelty([[0, 0], [3, 4]], item_counts=counts)).tolist() == [True, False]
    popularity = list_popularity([[3], [], [4]], item_counts=counts)
    assert popularity_lift(popularity, list_popularity([[4], [3], []], item_counts=counts)) == pytest.approx(3.0)
    assert np.isnan(popularity_lift(np.array([np.nan]), np.array([1.0])))
    assert intra_list_diversity(np.zeros((0, 5), dtype=int), features=TABLE).shape == (0,)
