"""Runs beside each other: the right users in pairs, seeds pooled, p-values corrected, and nothing else compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfrec import compare_ranks, paired_bootstrap
from hfrec.evaluation.compare import comparison_table, holm
from hfrec.evaluation.metrics import metric_values
from hfrec.evaluation.user_ranks import RANKS_FILE, UserRanks
from hfrec.evaluation.verdict import verdict

N = 120
ABOUT = {"protocol": {"split": "last item"}, "test_fingerprint": "abc", "history_fingerprint": "def", "num_items": 50}


def user_ranks(seed: int, *, better: int = 0, baselines: bool = False) -> UserRanks:
    rng = np.random.default_rng(seed)
    ranks = rng.integers(0, 30, N)
    names = {"model": np.maximum(ranks - better, 0)}
    names |= {"popularity": rng.integers(0, 60, N), "item_knn": rng.integers(0, 40, N)} if baselines else {}
    long = np.arange(N) % 3 == 0
    return UserRanks(
        user_ids=[f"user {number}" for number in range(N)],
        item_ids=[f"item {number % 7}" for number in range(N)],
        ranks={name: {"filter_seen": found, "unfiltered": found + (found > 0)} for name, found in names.items()},
        cohorts={"history long": long, "history short": ~long, "target repeat": long, "nobody": np.zeros(N, bool)},
        about=ABOUT,
    )


def kept(folder: Path, ranks: UserRanks) -> str:
    folder.mkdir()
    ranks.save(folder / RANKS_FILE)
    return str(folder)


def shuffled(ranks: UserRanks, order: np.ndarray) -> UserRanks:
    return replace(
        ranks,
        user_ids=[ranks.user_ids[place] for place in order],
        item_ids=[ranks.item_ids[place] for place in order],
        ranks={name: {key: row[order] for key, row in found.items()} for name, found in ranks.ranks.items()},
        cohorts={name: mask[order] for name, mask in ranks.cohorts.items()},
    )


def rows(compared: dict[str, Any], cohort: str = "all", setting: str = "filter_seen") -> list[dict[str, Any]]:
    return [row for row in compared["comparisons"][setting] if row["cohort"] == cohort]


def test_users_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    """Rows of two logs in two orders, paired by place, compare one user's rank with another's."""
    a, b = user_ranks(0, better=2), user_ranks(0)
    first = kept(tmp_path / "a", a)
    second = kept(tmp_path / "b", shuffled(b, np.random.default_rng(3).permutation(N)))
    compared = compare_ranks({"a": [first], "b": [second]}, n_bootstrap=500)
    found = rows(compared)
    assert [row["metric"] for row in found] == ["ndcg@10", "hit_rate@10", "mrr@10"]
    expected = metric_values(a.ranks["model"]["filter_seen"], "ndcg@10").mean()
    expected -= metric_values(b.ranks["model"]["filter_seen"], "ndcg@10").mean()
    assert found[0]["difference"] == pytest.approx(expected)
    order = np.argsort(a.user_ids)
    pair = [ranks.ranks["model"]["filter_seen"][order] for ranks in (a, b)]
    assert found[0]["difference_ci"] == paired_bootstrap(*pair, n_bootstrap=500)["difference_ci"]
    assert compared["n_users"] == N


def test_seeds_of_an_arm_are_pooled_and_three_arms_give_three_corrected_pairs(tmp_path: Path) -> None:
    """Seeds as if they were users give intervals that are too narrow; three looks at 5 % are no test at 5 %."""
    files = {name: kept(tmp_path / name, user_ranks(seed)) for seed, name in enumerate(["a1", "a2", "b1", "b2", "c1"])}
    arms = {"a": [files["a1"], files["a2"]], "b": [files["b1"], files["b2"]], "c": [files["c1"]]}
    compared = compare_ranks(arms, n_bootstrap=400)
    found = [row for row in rows(compared) if row["metric"] == "ndcg@10"]
    assert [(row["a"], row["b"]) for row in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    ranks = {name: UserRanks.load(path).ranks["model"]["filter_seen"] for name, path in files.items()}
    seeds = [np.stack([ranks["a1"], ranks["a2"]]), np.stack([ranks["b1"], ranks["b2"]])]
    expected = paired_bootstrap(*seeds, n_bootstrap=400, comparisons=3)
    assert {name: found[0][name] for name in expected} == expected
    assert [row["p_holm"] for row in found] == holm(row["p_value"] for row in found)
    assert {row["family"] for row in found} == {3}
    in_cohorts = rows(compared, "history long") + rows(compared, "history short")
    assert {row["n"] for row in in_cohorts} == {40, 80}
    assert {row["family"] for row in in_cohorts} == {6}
    assert {row["metric"] for row in in_cohorts} == {"ndcg@10"}
    assert not rows(compared, "nobody") and not rows(compared, "target repeat")
    assert rows(compared, "target repeat", "unfiltered")


def test_a_single_run_is_compared_with_its_own_baselines(tmp_path: Path) -> None:
    """A baseline that is left out is one that the model need not beat."""
    ranks = user_ranks(0, baselines=True)
    compared = compare_ranks({"run": [kept(tmp_path / "run", ranks)]}, n_bootstrap=200, cohorts=False)
    assert list(compared["arms"]) == ["model", "popularity", "item_knn"]
    mean = metric_values(ranks.ranks["item_knn"]["unfiltered"], "ndcg@10").mean()
    assert compared["arms"]["item_knn"]["unfiltered"]["ndcg@10"] == pytest.approx(mean)
    table = comparison_table(compared)
    assert "model − item_knn" in table and "Holm" in table and f"{N:,}" in table
    with pytest.raises(ValueError, match="no baseline to be compared with"):
        compare_ranks({"alone": [kept(tmp_path / "alone", user_ranks(0))]})


def test_holm_by_hand() -> None:
    """Holm 1979: .01 x 4, then .02 x 3, .03 x 2 (raised to .06), .9; Bonferroni would give .08 to the second."""
    assert holm([0.03, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"about": {**ABOUT, "protocol": {"split": "by time"}}}, "`protocol` is {'split': 'last item'} in the first"),
        ({"about": {**ABOUT, "test_fingerprint": "xyz"}}, "`test_fingerprint` is abc in the first, xyz in the second"),
        ({"about": {**ABOUT, "history_fingerprint": "xyz"}}, "`history_fingerprint`"),
        ({"user_ids": [f"user {number}" for number in range(1, N + 1)]}, "1 only in the first, 1 only in the second"),
        ({"item_ids": ["item 0"] * N}, "different targets"),
    ],
)
def test_runs_of_another_test_are_refused_by_name(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A difference between two tests reads as one between two models."""
    first = kept(tmp_path / "first", user_ranks(0))
    second = kept(tmp_path / "second", replace(user_ranks(1), **changed))
    with pytest.raises(ValueError) as caught:
        compare_ranks({"a": [first], "b": [second]})
    assert message in str(caught.value)
    assert first in str(caught.value) and second in str(caught.value)


def test_catalogues_of_another_size_are_noted(tmp_path: Path) -> None:
    """With fewer rivals every rank is better: the reader must know."""
    first = kept(tmp_path / "first", user_ranks(0))
    second = kept(tmp_path / "second", replace(user_ranks(1), about={**ABOUT, "num_items": 20}))
    compared = compare_ranks({"a": [first], "b": [second]}, n_bootstrap=50)
    assert compared["notes"] == ["The catalogues differ in size: a 50; b 20."]
    assert compared["notes"][0] in comparison_table(compared)


def test_files_that_are_no_ranks_are_refused(tmp_path: Path) -> None:
    """An old run, a foreign table or two targets of a user: each would be compared as something that it is not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError, match="hfrec evaluate"):
        UserRanks.load(tmp_path / "old")
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match="no file of ranks"):
        UserRanks.load(tmp_path / "foreign.parquet")
    twice = kept(tmp_path / "twice", replace(user_ranks(0), user_ids=["user 0"] * N))
    with pytest.raises(ValueError, match="several targets of a user"):
        UserRanks.load(twice)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file of ranks would be half the users."""
    import pyarrow.parquet as pq

    path = tmp_path / RANKS_FILE
    user_ranks(0).save(path)
    before = path.read_bytes()

    def full(table: Any, draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        user_ranks(1).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_verdict_is_against_the_best_baseline() -> None:
    """Beating the weaker of two baselines is no success."""
    strong, weak, middle = ({"filter_seen": np.full(60, rank)} for rank in (1, 12, 3))
    above = verdict({"model": strong, "popularity": weak, "item_knn": middle})
    assert above is not None and (above["baseline"], above["outcome"]) == ("item_knn", "above")
    assert above["text"] == (
        "The model is above the best baseline (item_knn): NDCG@10 1.0000 against .5000, +.5000 [+.5000, +.5000] "
        "on 60 users."
    )
    below = verdict({"model": middle, "popularity": weak, "item_knn": strong})
    assert below is not None and below["outcome"] == "below"
    assert below["text"].startswith(
        "item_knn is better here than the model by .5000 [.5000, .5000] in NDCG@10 (1.0000 against .5000 on 60 users): "
        "use it "
    )
    assert "`hfrec baseline --method item_knn`" in below["text"] and "`hfrec blend`" in below["text"]
    mixed = {"filter_seen": np.where(np.arange(60) % 2, 2, 4)}
    other = {"filter_seen": np.where(np.arange(60) % 2, 4, 2)}
    undecided = verdict({"model": mixed, "item_knn": other})
    assert undecided is not None and undecided["outcome"] == "undecided"
    assert undecided["text"].startswith("No difference can be shown between the model and the best baseline (item_knn)")


def test_the_model_without_its_prior_is_no_baseline() -> None:
    """A verdict of the model against itself."""
    one, other = ({"filter_seen": np.full(60, rank)} for rank in (2, 1))
    found = verdict({"model": one, "model_without_prior": other, "popularity": one})
    assert found is not None and found["baseline"] == "popularity"
    assert verdict({"model": one, "model_without_prior": other}) is None


def test_the_verdict_follows_the_setting_that_decides() -> None:
    """Where repeats are wanted, the figures without seen items say the opposite."""
    one, other = np.full(60, 1), np.full(60, 5)
    ranks = {"model": {"filter_seen": one, "unfiltered": other}, "knn": {"filter_seen": other, "unfiltered": one}}
    outcomes = [(found or {})["outcome"] for found in (verdict(ranks), verdict(ranks, setting="unfiltered"))]
    assert outcomes == ["above", "below"]
