"""Cohorts and the rule of the verdict, by hand; the benchmark of refreshes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from hfrec import ItemTokenizer, load_interactions, synthetic_tables
from hfrec.data.periods import split_periods
from hfrec.training.refresh import OVERALL, cohort_masks, compare, objections, report_markdown
from hfrec.training.refresh_arguments import RefreshArguments


def test_cohorts() -> None:
    """A target in the wrong cohort hides who pays for the refresh."""
    events = [("old", "a", 1), ("new", "b", 13), ("cold", "z", 20), ("old", "b", 21), ("new", "n", 25)]
    users, items, times = zip(*events, strict=True)
    log = load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))
    periods = split_periods(log, test_start=20, refresh_start=10, test_end=None)
    masks = cohort_masks(periods, ItemTokenizer.from_items(["a", "b", "c"]), ItemTokenizer.from_items(list("abcn")))
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        OVERALL: [True, True, True],
        "old items": [False, False, True],
        "new items": [False, True, False],
        "later items": [True, False, False],
        "old users": [False, False, True],
        "new users": [True, True, False],
        "users without history": [True, False, False],
    }


def judged(before: list[int], after: list[int], cohort: list[bool], **settings: Any) -> list[str]:
    ranks = [{name: np.array(values) for name in ("filter_seen", "unfiltered")} for values in (before, after)]
    masks = {OVERALL: np.ones(len(before), dtype=bool), "part": np.array(cohort), "none": np.zeros(len(before), bool)}
    found = compare(*ranks, masks, n_bootstrap=200)
    report = {"verdict": "?", "exit_code": 0, "rule": "", "objections": [], "notes": [], **found}
    assert "| none | 0 | – | – | – |" in report_markdown(report)
    return objections(found["filter_seen"], RefreshArguments(test_start="0", **settings))


def test_rule_of_the_verdict() -> None:
    """A rule other than the stated one promotes a model that somebody has to take back."""
    part = [True] * 20 + [False] * 80
    assert judged([1] * 100, [1] * 100, part) == []
    assert judged([1] * 100, [2] * 100, part)[0].startswith("all: ndcg@10 -0.3691 [-0.3691, -0.3691], 36.9%")
    loser = [2] * 20 + [1] * 80  # the part loses, the others win
    assert judged([1] * 20 + [2] * 80, loser, part, min_cohort=20)[0].startswith("part: ndcg@10 -0.3691")
    assert judged([1] * 20 + [2] * 80, loser, part, min_cohort=21) == []
    assert judged([1] * 20 + [2] * 80, loser, part, min_cohort=20, max_loss=0.4) == []
    assert judged([1] * 10 + [2] * 90, [2] * 10 + [1] * 90, part, min_cohort=20) == []  # the interval holds 0


@pytest.mark.slow
def test_benchmark_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    """A study that its one command no longer reruns is a claim without evidence."""
    log, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=10, max_length=20)
    times = log["timestamp"].to_numpy()
    spread = (times - times.min()) / (times.max() - times.min()) * 5 * 7 * 86400  # five weeks
    index = log.column_names.index("timestamp")
    pyarrow.csv.write_csv(log.set_column(index, "timestamp", pa.array(spread.astype(np.int64))), tmp_path / "log.csv")
    words = [
        "--train_file",
        "log.csv",
        "--period",
        "week",
        "--start_periods",
        "3",
        "--epochs",
        "3",
        "--output_dir",
        "out",
    ]
    command = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "refresh.py"), *words, "--alphas", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        table = pyarrow.csv.read_csv(tmp_path / "out" / "refresh.csv").to_pylist()
        assert {row["arm"] for row in table} == {"static", "scratch", "finetune", "l2sp 1"}
        assert (tmp_path / "out" / "refresh.png").stat().st_size > 5000
        scratch = next((tmp_path / "out" / "results").glob("*-scratch.json"))
        stamp = scratch.stat().st_mtime_ns
        next((tmp_path / "out" / "results").glob("*-finetune.json")).unlink()
    assert scratch.stat().st_mtime_ns == stamp
