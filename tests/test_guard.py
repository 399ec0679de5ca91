"""The guard of the speed names what became slower, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "guard.py"


@pytest.fixture(scope="module")
def guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guard"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_only_what_is_above_the_margin_is_slower(guard: ModuleType) -> None:
    """A guard that never fails guards nothing; one that fails by noise is switched off."""
    committed = {"step": 1.0, "request": 2.0}
    assert guard.slower_than(committed, {"step": 1.14, "request": 0.5}) == []
    assert guard.slower_than(committed, {"step": 1.16, "request": 2.2}) == ["step"]
    with pytest.raises(ValueError, match="write it anew"):
        guard.slower_than(committed, {"step": 1.0})


def test_every_measure_runs_and_has_its_committed_ratio(guard: ModuleType) -> None:
    """A measure that breaks, or is not committed, would be found out long after the change that made it slow."""
    calls = guard.model_calls()
    for call in calls.values():
        call()
    assert set(json.loads(guard.COMMITTED.read_text())) == {*calls, *guard.PROCESSES}
