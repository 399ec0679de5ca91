"""Tuning finds what is better, fits what it says, and leaves out aloud what costs too much."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfrec import tune
from hfrec.classical import cooccurrence
from hfrec.classical import ease as ease_module
from hfrec.classical.cooccurrence import CostError
from hfrec.evaluation import rank_baseline, tuning
from hfrec.evaluation.metrics import ranking_metrics
from hfrec.evaluation.tuning import CLASSES, GRIDS, TrainingLog, tuned_baselines

VOCAB_SIZE = 33


@pytest.fixture(scope="module")
def chain() -> dict[str, Any]:
    """Histories in which the newest item alone says what follows: i is followed by i + 1."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        row = []
        while len(row) < 8:
            start = int(rng.integers(3, VOCAB_SIZE - 1))
            row += [start, start + 1]
        rows.append([*row[:7], row[7]])
    histories = pa.array([row[:-1] for row in rows], pa.list_(pa.int32()))
    times = np.arange(7 * len(rows))
    return {"sequences": histories, "histories": histories, "targets": [row[-1] for row in rows], "times": times}


@pytest.mark.parametrize("method", list(GRIDS))
def test_the_result_is_what_its_settings_fit(method: Any, chain: dict[str, Any]) -> None:
    """Trials share counts and tables; a slip there would report the settings of another model."""
    found = tune(method, **chain, vocab_size=VOCAB_SIZE)
    baseline = CLASSES[method](**found.settings)
    extra = {"times": chain["times"]} if method == "recent_popularity" else {}
    baseline.fit(chain["sequences"], VOCAB_SIZE, **extra)
    histories = chain["histories"]
    np.testing.assert_array_equal(found.baseline.score(histories), baseline.score(histories))
    ranks = rank_baseline(baseline, histories, chain["targets"])["filter_seen"]
    assert found.validation == ranking_metrics(ranks, ks=(10,), n_bootstrap=0)["ndcg@10"]
    assert found.num_users == len(histories)


@pytest.mark.parametrize("method", ["markov", "item_knn", "ease"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_trial_is_what_its_settings_fit(method: Any, place: int, chain: dict[str, Any]) -> None:
    """Trials share counts, tables and inverses; one taken from another trial would measure that trial again."""
    grid = GRIDS[method]
    settings = {name: values[place] for name, values in grid.items()}
    trial = tuning._builder(method, TrainingLog(chain["sequences"], VOCAB_SIZE), grid)(settings)
    direct = CLASSES[method](**settings).fit(chain["sequences"], VOCAB_SIZE)
    np.testing.assert_array_equal(trial.score(chain["histories"]), direct.score(chain["histories"]))


@pytest.mark.parametrize("method", ["markov", "item_knn", "ease"])
def test_tuning_is_never_below_the_defaults(method: Any, chain: dict[str, Any]) -> None:
    """A search that keeps its last trial in place of its best would still look like one."""
    tuned, _ = tuned_baselines(TrainingLog(chain["sequences"], VOCAB_SIZE), chain["histories"], chain["targets"])
    plain, _ = tuned_baselines(TrainingLog(chain["sequences"], VOCAB_SIZE))
    ranks = rank_baseline(plain[method].baseline, chain["histories"], chain["targets"])["filter_seen"]
    before = ranking_metrics(ranks, ks=(10,), n_bootstrap=0)["ndcg@10"]
    assert tuned[method].validation is not None and tuned[method].validation >= before
    assert plain[method].validation is None
    if method == "item_knn":
        assert tuned[method].validation > before, "only the newest item says anything: a smaller decay is better"
        assert tuned[method].settings["decay"] < plain[method].settings["decay"]


def test_search_walks_to_the_best_of_each_setting() -> None:
    """Both directions, several rounds, each trial measured once by its caller's memo."""
    grid = {"a": (1, 2, 3, 4), "b": (1, 2, 3, 4)}
    found = tuning._search(grid, {"a": 3, "b": 3}, lambda chosen: -((chosen["a"] - 1) ** 2) - (chosen["b"] - 4) ** 2)
    assert found == {"a": 1, "b": 4}
    ridge = tuning._search(grid, {"a": 1, "b": 1}, lambda chosen: chosen["a"] * 2 - 3 * abs(chosen["a"] - chosen["b"]))
    assert ridge == {"a": 1, "b": 1}, "a lone move helps nowhere"


def test_defaults_lie_on_the_grid() -> None:
    """The search starts at the defaults and moves along the grid."""
    for method, grid in GRIDS.items():
        assert list(grid) == list(tuning._defaults(method))
        for name, value in tuning._defaults(method).items():
            assert value in grid[name], (method, name)


def test_validation_users_are_a_fixed_sample(chain: dict[str, Any]) -> None:
    """Targets that part from their histories would tune on noise; a new draw each time would change results."""
    histories, targets = tuning._sample(chain["histories"], chain["targets"], 10, seed=0)
    again, _ = tuning._sample(chain["histories"], chain["targets"], 10, seed=0)
    assert histories.equals(again) and len(histories) == len(targets) == 10
    pairs = list(zip(chain["histories"].to_pylist(), chain["targets"], strict=True))
    assert all(pair in pairs for pair in zip(histories.to_pylist(), targets.tolist(), strict=True))
    assert tune("popularity", **chain, vocab_size=VOCAB_SIZE, max_users=10).num_users == 10


def test_what_costs_too_much_is_left_out_aloud(chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory at the end of a training run would lose its test results."""
    monkeypatch.setattr(ease_module.gram_matrix, "__kwdefaults__", {"max_items": 5})
    log = TrainingLog(chain["sequences"], VOCAB_SIZE, chain["times"])
    found, skipped = tuned_baselines(log, chain["histories"], chain["targets"])
    assert set(found) == set(GRIDS) - {"ease"}
    assert set(skipped) == {"ease"} and "are more than 5" in skipped["ease"]
    with pytest.raises(CostError):
        tune("ease", **chain, vocab_size=VOCAB_SIZE)
    monkeypatch.setattr(cooccurrence.training_matrix, "__kwdefaults__", {"max_pairs": 5})
    found, skipped = tuned_baselines(TrainingLog(chain["sequences"], VOCAB_SIZE))
    assert set(found) == {"popularity", "markov"} and set(skipped) == {"item_knn", "ease"}


def test_one_markov_table_is_held_at_a_time(chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take 400 MB of a million items: the last one must be gone before the next is made."""
    made: list[weakref.ref[Any]] = []
    make = tuning.smoothed_table

    def watched(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        assert not any(table() for table in made)
        table = make(*args, **kwargs)
        made.append(weakref.ref(table))
        return table

    monkeypatch.setattr(tuning, "smoothed_table", watched)
    tune("markov", vocab_size=VOCAB_SIZE, **chain)
    assert len(made) > 3


def test_bad_arguments_are_refused(chain: dict[str, Any]) -> None:
    """A misspelt method or a shifted column must not tune something else."""
    with pytest.raises(ValueError, match="`method` must be one of popularity"):
        tune("knn", **chain, vocab_size=VOCAB_SIZE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same length, found 120 and 119"):
        tune("item_knn", **{**chain, "targets": chain["targets"][1:]}, vocab_size=VOCAB_SIZE)


def test_a_large_catalogue_is_tuned_on_fewer_users(chain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty trials of 2,000 users with a million items each take half an hour of the test."""
    monkeypatch.setattr(tuning, "MAX_SCORES", 12 * VOCAB_SIZE)
    monkeypatch.setattr(tuning, "MIN_USERS", 5)
    log = TrainingLog(chain["sequences"], VOCAB_SIZE)
    found, _ = tuned_baselines(log, chain["histories"], chain["targets"], methods=["popularity", "markov"])
    assert {tuned.num_users for tuned in found.values()} == {12}
    assert tuning.trial_users(100 * VOCAB_SIZE) == 5
