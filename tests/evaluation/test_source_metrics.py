"""The best checkpoint is chosen by the mean over sources, each ranked among its own items."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfrec import ItemTokenizer
from hfrec.evaluation.sources import make_source_metrics

BLOCKS = {"big": (3, 10), "small": (10, 14)}


def prediction(ranks: list[list[int]], targets: list[int], seen: list[list[int]]) -> Any:
    labels = np.array([[-100, target] for target in targets])
    return SimpleNamespace(predictions=np.array(ranks), label_ids=(labels, np.array(seen)))


def test_the_mean_is_over_sources_and_not_over_users() -> None:
    """Nine users of a large source would drown one of a small source."""
    ranks = [[1, 1]] * 9 + [[3, 3]]
    metrics = make_source_metrics(BLOCKS)(prediction(ranks, [4] * 9 + [12], [[5, 0]] * 9 + [[11, -100]]))
    assert metrics["big/ndcg@10"] == 1.0
    assert metrics["small/ndcg@10"] == metrics["small/unfiltered_ndcg@10"] == 0.5
    assert metrics["ndcg@10"] == 0.75


def test_an_unknown_target_counts_where_its_history_lies() -> None:
    """A miss that belongs to nobody makes its source look better than it is."""
    metrics = make_source_metrics(BLOCKS)(prediction([[1, 1], [1, 1], [0, 0]], [4, 12, 2], [[5], [11], [13]]))
    assert metrics["small/ndcg@10"] == 0.5


@pytest.fixture
def two_sources() -> tuple[Any, ItemTokenizer]:
    import torch

    from hfrec import Bert4RecConfig, Bert4RecForCausalLM

    ids = ["big:1", "big:2", "big:3", "small:1", "small:2"]
    names, raw = zip(*(item.split(":") for item in ids), strict=True)
    table = pa.table({"item_id": ids, "source": names, "source_item_id": raw})
    torch.manual_seed(0)
    model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1)).eval()
    model.compete_within([(3, 6), (6, 8)])
    return model, ItemTokenizer.from_items(ids, metadata=table)


def test_a_source_taken_out_scores_its_items_as_before(two_sources: Any) -> None:
    """Rows moved to another item, or ids that nobody's log has, would be measured as the source."""
    import torch

    from hfrec.transfer.sources import take_source

    model, tokenizer = two_sources
    own, smaller = take_source(model, tokenizer, "small")
    assert smaller.items["item_id"].to_pylist() == ["1", "2"]
    history = torch.tensor([[6, 7, 6]])
    expected = model.score_items(model.encode_history(history))[:, 6:]
    assert torch.equal(own.score_items(own.encode_history(history - 3))[:, 3:], expected)
    assert model.config.vocab_size == 8
    assert own.item_blocks is None
    for name, message in (("else", "no source 'else', expected one of big, small"),):
        with pytest.raises(ValueError, match=message):
            take_source(model, tokenizer, name)
    with pytest.raises(ValueError, match="trained on several sources"):
        take_source(own, ItemTokenizer.from_items(["1", "2"]), "small")
