"""The guard of the speed names what became slower, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def guard(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("guard")


def test_only_what_is_above_the_margin_is_slower(guard: ModuleType) -> None:
    """A guard that never fails guards nothing; one that fails by noise is switched off."""
    committed = {"step": 1.0, "request": 2.0}
    assert guard.slower_than(committed, {"step": 1.14, "request": 0.5}) == []
    assert guard.slower_than(committed, {"step": 1.16, "request": 2.2}) == ["step"]
    with pytest.raises(ValueError, match="write it anew"):
        guard.slower_than(committed, {"step": 1.0})


def test_the_fastest_of_all_rounds_count(guard: ModuleType) -> None:
    """An average, or a part beside the product of another round, would say how busy the machine was."""
    times = {"product": [2.0, 3.0], "torch": [5.0], "step": [8.0, 3.0], "help of pretrain": [2.0, 1.0]}
    assert guard.ratios_of(times) == {"step": 1.5, "help of pretrain": 0.2}


def test_every_measure_runs_and_has_its_committed_ratio(guard: ModuleType) -> None:
    """A measure that breaks, or is not committed, would be found out long after the change that made it slow."""
    calls = guard.model_calls()
    for call in calls.values():
        call()
    assert set(json.loads(guard.COMMITTED.read_text())) == {*calls, *guard.PROCESSES}
