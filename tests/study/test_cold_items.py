"""Held-out items: never in training, ranked by the right content, and measured as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks.study.cold_items import ColdItemsTest, hold_out_items
from hfrec import Bert4RecConfig, Bert4RecForCausalLM, load_interactions, synthetic_tables
from hfrec.training.rows import build_tokenizer
from hfrec_command import main


def log_of(**histories: str) -> Any:
    rows = [(user, item, time) for user, items in histories.items() for time, item in enumerate(items.split())]
    users, items, times = zip(*rows, strict=True)
    return load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))


def test_nothing_of_a_cold_item_and_nothing_after_the_target_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold item in training is warm, and later items of a user tell what he saw before them."""
    log = log_of(u1="a X b Y c", u2="X a", u3="a b c", u4="b Y")
    generator = type("Fixed", (), {"permutation": lambda self, n: np.array([0, 1, 2, 3, 4])})()  # X and Y come first
    monkeypatch.setattr(np.random, "default_rng", lambda seed: generator)
    split = hold_out_items(log, fraction=0.4, seed=0)
    assert split.items == ["X", "Y"]
    warm = split.warm.table.select(["user_id", "item_id"]).to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in warm] == [
        *[("u1", "a"), ("u1", "b")],
        *[("u2", "a")][:0],
        *[("u3", "a"), ("u3", "b"), ("u3", "c")],
        ("u4", "b"),
    ]
    targets = split.targets.table.select(["user_id", "item_id"]).to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in targets] == [("u1", "Y"), ("u4", "Y")]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_share_outside_its_range_is_refused(fraction: float) -> None:
    """All items held out leave nothing to learn, none nothing to measure."""
    with pytest.raises(ValueError, match="`cold_fraction` must lie between 0 and 1"):
        hold_out_items(log_of(u="a b"), fraction=fraction, seed=0)


def content_test() -> tuple[ColdItemsTest, list[str], torch.Tensor]:
    log, items = synthetic_tables(num_users=80, num_items=40, num_groups=4, noise=0.0, min_length=5, max_length=12)
    split = hold_out_items(load_interactions(log), fraction=0.2, seed=0)
    tokenizer = build_tokenizer(split.warm)
    torch.manual_seed(0)
    config = Bert4RecConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, max_position_embeddings=12)
    test = ColdItemsTest(Bert4RecForCausalLM(config), tokenizer, split, (split.warm, split.targets))
    groups = torch.tensor([int(name.split()[1]) for name in items["genres"].to_pylist()])
    return test, items["item_id"].to_pylist(), torch.nn.functional.one_hot(groups).float()


def test_baselines_rank_by_the_right_content() -> None:
    """In this log each user stays in one group: content neighbours leave the other groups' cold items behind."""
    test, items, features = content_test()
    found = test.content_neighbours(items, features)
    group = {item: int(row.argmax()) for item, row in zip(items, features, strict=True)}
    cold = [group[item] for item in test.split.items]
    for rank, target in zip(found["cold"], test.split.targets.table["item_id"].to_pylist(), strict=True):
        assert 1 <= rank <= cold.count(group[target])
    popular = test.popularity(seed=0)
    assert popular["cold"].max() <= len(cold)
    assert popular["all"].min() > 5


def test_starting_does_not_change_the_model() -> None:
    """Rows of one start left in the model would be warm items of the next."""
    test, items, features = content_test()
    size = test.model.config.vocab_size
    ranks = test.start(items, features, "neighbours", seed=0)
    assert test.model.config.vocab_size == size == len(test.tokenizer)
    assert len(ranks["cold"]) == len(ranks["all"]) == len(test.split.targets)
    assert (ranks["cold"] <= ranks["all"]).all()


def test_the_command_from_log_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table and the JSON are what the README's figures come from."""
    words = ["cold_items", "--dataset", "synthetic", "--category_column", "genres", "--output_dir", str(tmp_path / "o")]
    words += ["--num_train_epochs", "1", "--hidden_size", "8", "--num_hidden_layers", "1", "--max_length", "10"]
    assert main([*words, "--disable_tqdm", "true"]) == 0
    results = json.loads((tmp_path / "o" / "cold_items.json").read_text())
    assert results["num_cold_items"] == 24
    assert {"random", "popularity", "ridge: categories"} <= set(results["metrics"])
    low, high = results["differences in ndcg@10"]["ridge: categories - random"]["cold"]["difference_ci"]
    assert low <= high
    assert "ridge: categories - random, cold candidates" in capsys.readouterr().out
    assert main([*words[:3], "--output_dir", str(tmp_path / "p")]) == 1
    assert "Items need content to start from" in capsys.readouterr().err
