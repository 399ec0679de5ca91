"""Users ranked while a model trains: all where that is cheap, else the same ones at each evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
from hfrec.training.arguments import DataArguments
from hfrec.training.evaluated_users import FEWEST, SHARE, cost_of_all, rows_while_training
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec_command import main

MODEL = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=1003, max_position_embeddings=50))
DATA = DataArguments(train_file="log.csv")


def arguments(folder: Path, **flags: Any) -> RecommenderTrainingArguments:
    return RecommenderTrainingArguments(output_dir=str(folder), use_cpu=True, **flags)


def rows(number: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [[3 + row % 1000] * 40 for row in range(number)], "user": range(number)})


def test_all_users_where_they_are_cheap(tmp_path: Path) -> None:
    """A sample where none is needed would make the choice of the checkpoint worse for nothing."""
    trained, ranked = rows(8000), rows(1000)
    training = arguments(tmp_path)
    share = cost_of_all(ranked, trained, MODEL, data=DATA, training=training)
    assert share is not None and share < SHARE
    assert rows_while_training(ranked, trained, MODEL, data=DATA, training=training) is ranked


def test_a_fixed_sample_where_they_are_dear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other users at each evaluation would compare checkpoints on different users; and nobody may be left unaware."""
    trained = ranked = rows(4000)
    first, again, other = (
        rows_while_training(ranked, trained, MODEL, data=DATA, training=arguments(tmp_path, seed=seed))["user"]
        for seed in (1, 1, 2)
    )
    assert list(first) == list(again) == sorted(set(first)) and list(first) != list(other)
    share = cost_of_all(ranked, trained, MODEL, data=DATA, training=arguments(tmp_path))
    assert share is not None and len(first) == max(int(4000 * SHARE / share), FEWEST) < 2000
    assert f"rank {len(first):,} of 4,000 users" in capsys.readouterr().err


def test_a_small_log_ranks_all_whatever_it_costs(tmp_path: Path) -> None:
    """A checkpoint chosen by some hundred users is a worse one, to save seconds."""
    few = rows(FEWEST)
    assert cost_of_all(few, rows(100), MODEL, data=DATA, training=arguments(tmp_path)) > SHARE  # type: ignore[operator]
    assert rows_while_training(few, rows(100), MODEL, data=DATA, training=arguments(tmp_path)) is few


def test_steps_between_evaluations_count(tmp_path: Path) -> None:
    """By epochs an evaluation every ten steps would be ten times too dear."""
    ranked = rows(1000)
    by_steps = arguments(tmp_path, eval_strategy="steps", save_strategy="steps", eval_steps=10)
    share = cost_of_all(ranked, rows(1280), MODEL, data=DATA, training=arguments(tmp_path))
    assert cost_of_all(ranked, rows(9999), MODEL, data=DATA, training=by_steps) == pytest.approx(share)


def test_a_run_ends_with_all_users(tmp_path: Path) -> None:
    """The figure of the checkpoint that is kept must be one of all users, and the results say who chose it."""
    log = tmp_path / "log.csv"
    lines = [f"{user},{(user * 7 + place * 3) % 30},{place}" for user in range(60) for place in range(8)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n", encoding="utf-8")
    words = ["--train_file", str(log), "--max_length", "8", "--hidden_size", "8", "--num_train_epochs", "2"]
    words += ["--recipe", "none", "--item_start", "random", "--eval_users", "20", "--output_dir", str(tmp_path / "out")]
    main(["pretrain", *words])
    results = json.loads((tmp_path / "out" / "all_results.json").read_text(encoding="utf-8"))
    assert results["evaluated_users"] == {"while_training": 20, "at_the_end": 60}
    twentieths = results["validation"]["eval_hit_rate@10"] * 20
    everyone = results["validation"]["eval_hit_rate@10"] * 60
    assert everyone == pytest.approx(round(everyone)), twentieths
    assert results["schedule"]["best_value"] != results["validation"]["eval_ndcg@10"]
