"""One order of items for measured and served lists: score, then token id, exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, ItemTokenizer, recommend
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.evaluation.baseline_ranking import rank_baseline
from hfrec.evaluation.ranking import rank_dataset
from hfrec.scoring import TopItems, chunk_bounds, decode_keys, encode_keys, rankable_mask

INF = float("inf")


def test_sort_keys_order_as_scores_do_and_give_them_back() -> None:
    """Negative scores are stored as sign and magnitude: compared as plain integers they would be upside down."""
    values = torch.tensor([[-3.5, 2.0, 0.0, -0.0, -1e-40, 1e-40, float("inf"), -float("inf"), 2.0, -3.0]])
    scores, ids = decode_keys(encode_keys(values, torch.arange(10, 20)).sort(dim=1, descending=True).values)
    assert ids.tolist() == [[16, 11, 18, 15, 12, 13, 14, 19, 10, 17]]
    assert torch.equal(scores, values[0][ids - 10])


def by_definition(scores: torch.Tensor, rankable: torch.Tensor, seen: torch.Tensor, top_k: int) -> list[list[int]]:
    """Sort whole rows by (score, token id) in Python."""
    lists = []
    for row, history in zip(scores.tolist(), seen.tolist(), strict=True):
        ids = [item for item in range(len(row)) if rankable[item] and item not in history]
        ids = sorted(ids, key=lambda item: (-row[item], item))[:top_k]
        lists.append(ids + [0] * (top_k - len(ids)))
    return lists


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 100])
@pytest.mark.parametrize("top_k", [1, 4, 25])
@pytest.mark.parametrize("levels", [1, 2, 4, 40])
def test_lists_by_definition(levels: int, top_k: int, chunk: int) -> None:
    """`topk` keeps any of the equal scores at the border; -inf stands for blocked places and for scores of -inf."""
    generator = torch.Generator().manual_seed(levels)
    choices = torch.tensor([-INF, -0.0, 0.0, INF, *torch.randn(max(levels, 1), generator=generator).tolist()])
    for rankable in (rankable_mask(25), rankable_mask(25, allowed_items=[4, 5, 9, 11, 24])):
        scores = choices[torch.randint(0, levels + 3, (40, 25), generator=generator)]
        seen = torch.randint(0, 25, (40, 6), generator=generator)
        before = scores.clone()
        for bounds in (chunk_bounds(25, chunk), chunk_bounds(25, chunk)[::-1]):
            best = TopItems(top_k)
            for start, stop in bounds:
                best.update(scores[:, start:stop], start, rankable, seen)
            values, ids = best.items()
            assert ids.tolist() == by_definition(scores, rankable, seen, top_k)
            kept = ids > 0
            assert torch.equal(values[kept], scores.gather(1, ids)[kept])
        assert torch.equal(scores, before)  # the caller ranks with them


@pytest.mark.parametrize("levels", [3, 2**40])
def test_lists_of_many_scores(levels: int) -> None:
    """Where the largest are looked for in blocks, those of the last, shorter block and equal ones must not be lost."""
    generator, width = torch.Generator().manual_seed(0), 64 * 90 + 17
    scores = torch.randint(0, levels, (12, width), generator=generator).float()
    scores[3, -5:], scores[4, 70:75] = 2.0 * levels, 3.0 * levels
    seen = torch.tensor([width - 1, 72]).expand(12, -1)
    best = TopItems(7)
    best.update(scores, 0, rankable_mask(width), seen)
    assert best.items()[1].tolist() == by_definition(scores, rankable_mask(width), seen, 7)


@pytest.mark.parametrize("width", [30, 10_000])
def test_a_nan_is_said_with_its_user(width: int) -> None:
    """`topk` takes a NaN for the largest number: a model that has diverged would recommend its broken items."""
    scores = torch.rand(9, width, generator=torch.Generator().manual_seed(0))
    scores[5, 21] = torch.nan
    best, seen = TopItems(4, first_row=100), torch.zeros((9, 1), dtype=torch.long)
    with pytest.raises(ValueError, match="found 1 NaN, first for history 105 at token id 21"):
        best.update(scores, 0, rankable_mask(width), seen)


def test_lists_of_half_precision_keep_their_order() -> None:
    """Scores of half a width compared bit by bit as floats would be other numbers."""
    scores = torch.randint(-4, 4, (9, 30), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    best, seen = TopItems(6), torch.zeros((9, 1), dtype=torch.long)
    best.update(scores, 0, rankable_mask(30), seen)
    assert best.items()[1].tolist() == by_definition(scores, rankable_mask(30), seen, 6)


class Counts:
    """A baseline whose scores are few whole numbers."""

    def score(self, histories: Any) -> Any:
        return (torch.arange(203) % 3).float().repeat(len(histories), 1).numpy()


def test_measured_lists_are_served_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage and novelty of lists that nobody is served: with ties, two orders give two lists."""
    items = [f"item {number}" for number in range(200)]
    tokenizer = ItemTokenizer.from_items(items)
    torch.manual_seed(0)
    model: Any = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=203, hidden_size=8, num_hidden_layers=1))
    score_items = model.score_items
    monkeypatch.setattr(model, "score_items", lambda *args, **options: score_items(*args, **options).mul(3).round())
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 203, (30, 8), generator=generator)
    rows = [{"input_ids": row, "target": 3} for row in tokens.tolist()]
    collator = DataCollatorForNextItem(tokenizer, "causal", max_length=20)
    histories = [tokenizer.decode_items(row) for row in tokens.tolist()]
    served = recommend(model, tokenizer, histories, top_k=10)
    expected = [tokenizer.encode_column([item["item_id"] for item in found]).to_pylist() for found in served]
    scores = [[item["score"] for item in found] for found in served]
    assert sum(len(set(row)) < 10 for row in scores) > 20  # there are ties to be ordered
    for chunk in (16384, 50):
        measured = rank_dataset(model, rows, collator, top_k=10, item_chunk_size=chunk)["recommended"]
        assert measured.tolist() == expected
    counted = rank_baseline(Counts(), tokens.tolist(), [3] * 30, top_k=10)["recommended"]
    scored = torch.as_tensor(Counts().score(tokens))
    assert counted.tolist() == by_definition(scored, rankable_mask(203), tokens, 10)
