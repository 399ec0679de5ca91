"""The tables of cards of content say what the ranks say, and their pictures are drawn from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.content_tables import read, tables
from benchmarks.study.plots import by_arm
from benchmarks.study.plots import tables as tables_of

SCRATCH = "content+id from scratch"


def test_seeds_are_averaged_user_by_user(tmp_path: Path) -> None:
    """Seeds that count as further users make intervals too narrow; a pair of other arms has another sign."""
    runs = {0: {SCRATCH: [1, 20], "fine-tuned": [1, 1]}, 1: {SCRATCH: [20, 20], "fine-tuned": [3, 1]}}
    for seed, arms in runs.items():
        found = {"target 5%": {name: [ranks] for name, ranks in arms.items()}, "home": {"ids": [[1, 1]]}}
        (tmp_path / f"ranks-{seed}.json").write_text(json.dumps(found))
    text = tables(read(tmp_path))
    found = {row["NDCG@10"]: row["5%"] for row in tables_of(text)["NDCG@10"]}
    assert set(found) == {SCRATCH, "fine-tuned"}
    assert found[SCRATCH].startswith(".2500 [") and found["fine-tuned"].startswith(".8750 [")
    (difference,) = tables_of(text)["paired difference"]
    assert difference["paired difference"] == f"fine-tuned − {SCRATCH}"
    ours = [(1 + 1 / math.log2(4)) / 2 - 0.5, 1.0]  # of the two users
    assert difference["5%"] == f"+.6250 [+{ours[0]:.4f}, +1.0000]".replace("0.", ".")
    assert "'target 5%': 2" in text


def test_learning_curves_read_the_heads_of_cards() -> None:
    """A share that stands with its number of users would be left out of the picture, an empty cell would end it."""
    rows = [{"NDCG@10": "**fine-tuned**", "no user": "", "1 % (174 users)": "**.0532 [.0455, .0613]**", "10%": ""}]
    assert by_arm(rows) == {"fine-tuned": {1.0: pytest.approx((0.0532, 0.0455, 0.0613))}}
