"""Checkpoints that an earlier commit wrote load and give the logits that it gave.

`expected.json` of each folder was written by that commit. When a change makes these fail, it breaks the checkpoints of
users: give the old names and shapes a conversion, and leave the folders as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hfrec import load_checkpoint, recommend

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(path.parent for path in FIXTURES.glob("*/expected.json"))


def test_there_are_golden_checkpoints() -> None:
    """Collecting none would pass too."""
    assert {folder.name for folder in FOLDERS} >= {"masked", "causal", "masked-post-rotary-factorised"}
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_checkpoint_gives_its_old_logits(folder: Path) -> None:
    """A renamed weight is left out with a warning, and a changed default gives other scores without one."""
    expected = json.loads((folder / "expected.json").read_text())
    model, tokenizer = load_checkpoint(folder)
    ids = torch.tensor(expected["input_ids"])
    with torch.no_grad():
        logits = model(ids, attention_mask=(ids != 0).long()).logits[:, -1, 3:]
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-5)
    assert tokenizer.items["item_id"].to_pylist() == ["b 1", "a", "ü", "42", "x", "y"]
    assert tokenizer.items["count"].to_pylist() == [0, 3, 0, 0, 0, 0]
    assert len(recommend(model, tokenizer, [["a", "ü"]], top_k=4)[0]) == 4
