"""The benchmark of a large catalogue: its log holds every item, its table every stage beside the estimate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest


def test_the_log_holds_every_item_and_equal_histories(
    benchmark_script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    """A catalogue that is smaller than it says would make the memory look small."""
    benchmark = benchmark_script("large_catalogue")
    benchmark.write_log(tmp_path / "log.csv", users=4, items=10, length=3)
    log = pl.read_csv(tmp_path / "log.csv")
    assert log["item_id"].n_unique() == 10
    assert log["user_id"].value_counts()["count"].to_list() == [3] * 4
    with pytest.raises(ValueError, match="at least `items`, found 9 and 10"):
        benchmark.write_log(tmp_path / "log.csv", users=3, items=10, length=3)


def test_the_estimate_is_compared_with_the_highest_peak(benchmark_script: Callable[[str], ModuleType]) -> None:
    """The ratio to another stage than the whole command would hide what the baselines take."""
    rows = {
        "before training": {"resident": 0.5, "peak": 0.6, "cpu_s": 3.0},
        "whole command": {"resident": 1.0, "peak": 2.0, "cpu_s": 40.0},
    }
    lines = benchmark_script("large_catalogue").table(rows, estimate=1.5).splitlines()
    assert lines[2:] == [
        "| before training | 0.50 | 0.60 | 3 |",
        "| whole command | 1.00 | 2.00 | 40 |",
        "| `hfrec estimate` | | 1.50, 0.75 of the peak | |",
    ]
