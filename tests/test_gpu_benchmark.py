"""The table of a GPU: every row must run where there is a GPU, so that its code is run here with small sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

SMALL = (
    "--device cpu --items 40 --large_items 60 --batch_size 3 --length 6 --hidden_size 8 --heads 2 --layers 2 --users 3"
)
QUICK = "--seconds 0.001 --product_size 16 --copy_megabytes 1"


@pytest.fixture(scope="module")
def gpu(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("gpu")


def test_every_row_has_figures_or_a_reason(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that fails when a card is at hand for ten minutes costs the whole table."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)  # minutes on a busy core
    rows = gpu.main([*SMALL.split(), *QUICK.split(), "--output_dir", str(tmp_path)])
    ran = {name for name, row in rows.items() if "not_run" not in row}
    assert {name for name in rows if "flash" not in name and "Liger" not in name} == ran
    assert all(rows[name].get("tokens_per_s", 1) > 0 for name in ran) and len(ran) == 10
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in rows)
    assert "not run: Liger's kernel needs a GPU" in text or "not run: liger-kernel is not installed" in text


def test_an_error_of_the_program_is_no_reason(gpu: ModuleType) -> None:
    """A row that fails by a mistake must not pass for one that the machine cannot run."""
    with pytest.raises(ZeroDivisionError):
        gpu.attempt(lambda: {"tokens_per_s": 1 / 0})
