"""Budgets of time: durations are read, the steps fit, an overrun ends with a checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hfrec.training.budget import what_more_would_bring
from hfrec.training.durations import parse_duration
from hfrec_command import main

SHAPE = ["--max_length", "12", "--hidden_size", "16", "--disable_tqdm", "true", "--dataset", "synthetic"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations_are_read(text: str, seconds: float) -> None:
    """Minutes taken for seconds would train for a sixtieth of the time, in silence."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["15", "m", "", "-3m", "3 days", "0s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number without a unit could be anything."""
    with pytest.raises(ValueError, match="time_budget"):
        parse_duration(text)


def test_a_budget_chooses_the_steps_and_is_kept(tmp_path: Path) -> None:
    """A budget that is only looked at when it is over cuts the schedule off at a high learning rate."""
    started = time.perf_counter()
    assert main(["pretrain", "--time_budget", "8s", "--output_dir", str(tmp_path / "run"), *SHAPE]) == 0
    taken = time.perf_counter() - started
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert results["hyperparameters"]["max_steps"] > 0 and taken < 60
    assert results["train"]["train_runtime"] < 12
    assert "validation" in results["what_more_would_bring"]


def test_a_rising_curve_and_a_level_one_are_told_apart() -> None:
    """Whoever is told that more time helps, and finds that it does not, has lost the time."""
    level = [{"step": step, "eval_ndcg@10": value} for step, value in enumerate([0.1, 0.2, 0.2, 0.19, 0.2, 0.19, 0.2])]
    assert "level" in what_more_would_bring(level, "eval_ndcg@10")
    assert "step 1 of 6" in what_more_would_bring(level, "eval_ndcg@10")
    assert "Too few" in what_more_would_bring(level[:2], "eval_ndcg@10")


def test_a_budget_of_time_and_one_of_steps_are_refused_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the two would be ignored."""
    words = ["--time_budget", "1m", "--num_train_epochs", "2", "--output_dir", str(tmp_path / "run"), *SHAPE]
    assert main(["pretrain", *words]) == 1
    assert "`--time_budget` and `--num_train_epochs`" in capsys.readouterr().err
