"""The approximate index: exact when it looks everywhere, and honest about what it misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemIndex,
    ItemTokenizer,
    recommend,
    synthetic_tables,
)
from hfrec_command import main

NUM_ITEMS = 400


@pytest.fixture(scope="module", params=[Bert4RecForMaskedLM, Bert4RecForCausalLM])
def pair(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    tokenizer = ItemTokenizer.from_items([f"i{number}" for number in range(NUM_ITEMS)])
    config = Bert4RecConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, max_position_embeddings=20)
    model = request.param(config).eval()
    model.get_input_embeddings().weight.data.normal_()
    model.decoder.bias.data.normal_()
    return model, tokenizer


def histories(number: int = 60) -> list[list[str]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(NUM_ITEMS, (number, 30), generator=generator).tolist()
    return [[f"i{item}" for item in row[: 1 + place % 30]] for place, row in enumerate(ids)]


@pytest.mark.parametrize("filter_seen", [True, False])
def test_all_cells_give_the_exact_lists(pair: Any, filter_seen: bool) -> None:
    """A bias left out, a seen item kept or a row of another token would show against the exact lists."""
    index = ItemIndex(*pair, num_cells=8, num_probes=8)
    exact = recommend(*pair, histories(), 10, filter_seen=filter_seen)
    found = index.recommend(histories(), 10, filter_seen=filter_seen, batch_size=7)
    for one, other in zip(exact, found, strict=True):
        # In order but for two scores that differ by a rounding.
        assert {item["item_id"] for item in one} == {item["item_id"] for item in other}
        assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=1e-4)
        assert [item["rank"] for item in other] == list(range(1, 11))


def test_fewer_cells_find_less_and_recall_says_how_much(pair: Any) -> None:
    """A recall that is always 1 hides what a request misses."""
    recalls = [ItemIndex(*pair, num_cells=40, num_probes=n).recall(histories())["recall"] for n in (1, 8, 40)]
    assert recalls[0] < recalls[1] <= recalls[2] == 1.0
    assert recalls[0] < 0.9


def test_a_user_who_saw_nearly_everything_gets_a_shorter_list(pair: Any) -> None:
    """Places that are left over must not be filled with seen items or with special tokens."""
    seen = [f"i{number}" for number in range(NUM_ITEMS - 3)]
    (found,) = ItemIndex(*pair, num_cells=4, num_probes=4).recommend([seen], 10)
    assert {item["item_id"] for item in found} == {f"i{number}" for number in range(NUM_ITEMS - 3, NUM_ITEMS)}


def test_bad_sizes_are_refused(pair: Any) -> None:
    """faiss itself stops with an assertion of its C++ code."""
    for options, text in (({"num_cells": 401}, "400 items, found 401"), ({"num_probes": 0}, "at least 1, found 0")):
        with pytest.raises(ValueError, match=text):
            ItemIndex(*pair, **options)
    with pytest.raises(ValueError, match="found 401"):
        ItemIndex(*pair).recommend(histories(1), 401)


def test_the_command_prints_the_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Approximate lists without their recall cannot be judged."""
    log, _ = synthetic_tables(num_users=40, num_items=200, num_groups=4, min_length=5, max_length=12)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    words = ["pretrain", "--train_file", str(tmp_path / "log.csv"), "--max_length", "10", "--hidden_size", "16"]
    words += ["--num_hidden_layers", "1", "--num_train_epochs", "1", "--disable_tqdm", "true"]
    assert main([*words, "--output_dir", str(tmp_path / "model")]) == 0
    words = ["recommend", "--model_name_or_path", str(tmp_path / "model"), "--history_file", str(tmp_path / "log.csv")]
    words += ["--unknown_items", "drop", "--approximate", "true", "--num_probes", "999"]
    assert main([*words, "--output_file", str(tmp_path / "found.csv")]) == 0
    assert "recall@10 of the index: 1.0000 on 40 users" in capsys.readouterr().out
    assert pyarrow.csv.read_csv(tmp_path / "found.csv").num_rows == 400
