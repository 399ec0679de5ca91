"""The prior for short histories: its probabilities, the mix, and the file beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer, RecommendationPipeline
from hfrec.inference.prior import PopularityPrior, load_prior, segment_counts
from hfrec.inference.recommend import recommend

ITEMS = list("abcdef")
COUNTS = {"a": 1, "b": 50, "c": 3, "d": 0, "e": 20, "f": 5}
SEGMENTS = {"DE": {"c": 900}, "FR": {"f": 2, "a": 1}}


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(ITEMS, counts=COUNTS)


@pytest.fixture(scope="module")
def prior(tokenizer: ItemTokenizer) -> PopularityPrior:
    counts = segment_counts(tokenizer, SEGMENTS)
    return PopularityPrior(counts, (1.0, 0.5, 0.0), ("DE", "FR"), shrinkage=10.0, segment_column="country")


def build(model_class: Any) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, max_position_embeddings=4, initializer_range=0.5
    )
    return model_class(config).eval()


def test_probabilities_by_hand(prior: PopularityPrior) -> None:
    """An item without a count must stay possible, a special token not; a small segment keeps the rest."""
    everyone = np.array([2, 51, 4, 1, 21, 6]) / 85
    assert prior.probabilities[0] == pytest.approx([0, 0, 0, *everyone])
    assert prior.probabilities[2, 3:] == pytest.approx((np.array([1, 0, 0, 0, 0, 2]) + 10 * everyone) / 13)
    assert prior.probabilities.sum(axis=1) == pytest.approx([1, 1, 1])
    assert prior.rows_of(["FR", None, "unheard of", "DE"], 4).tolist() == [2, 0, 0, 1]


def test_mix_is_the_mean_of_two_distributions(prior: PopularityPrior) -> None:
    """Mixing scores instead of probabilities, or a softmax over a chunk, gives another order without a word."""
    torch.manual_seed(1)
    logits = torch.randn(4, 9)
    logits[:, :3] = -torch.inf
    seen = torch.tensor([[0, 0, 0], [0, 0, 4], [0, 4, 2], [3, 4, 5]])  # [UNK] is no known item
    found = prior.mix(
        lambda start, stop: logits[:, start:stop], seen, segments=[None, "DE", None, None], item_chunk_size=2
    )
    chunks = torch.cat([found(0, 4), found(4, 9)], dim=1)
    popular = torch.from_numpy(prior.probabilities).float()
    softmax = logits.softmax(dim=1)
    expected = torch.stack([popular[0], (softmax[1] + popular[1]) / 2, (softmax[2] + popular[0]) / 2])
    torch.testing.assert_close(chunks[:3].exp(), expected)
    assert chunks[3].equal(logits[3])


def test_long_histories_keep_the_scores_of_the_model(prior: PopularityPrior, tokenizer: ItemTokenizer) -> None:
    """A prior must change nothing for users who are known."""
    model = build(Bert4RecForMaskedLM)
    histories = [["a", "b"], ["a", "b", "c"]]
    assert recommend(model, tokenizer, histories, 3, prior=prior) == recommend(model, tokenizer, histories, 3)
    mixed = recommend(model, tokenizer, [["b"], *histories], 3, prior=prior)
    assert mixed[1:] == recommend(model, tokenizer, histories, 3)


@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_a_new_user_gets_what_is_popular_in_his_segment(
    model_class: Any, prior: PopularityPrior, tokenizer: ItemTokenizer
) -> None:
    """Segments that slip by one row, in the second batch, would show one country's items in another."""
    users: list[Any] = [[]] * 3
    found = recommend(build(model_class), tokenizer, users, 2, prior=prior, segments=[None, "FR", "DE"], batch_size=2)
    assert [[item["item_id"] for item in items] for items in found] == [["b", "e"], ["b", "f"], ["c", "b"]]
    assert np.exp(found[0][0]["score"]) == pytest.approx(51 / 85)


def test_saved_and_loaded(prior: PopularityPrior, tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """Counts that come back on other token ids recommend other items."""
    assert load_prior(tmp_path, tokenizer) is None
    prior.save(tmp_path, tokenizer)
    again = load_prior(tmp_path, tokenizer)
    assert again is not None
    assert (again.counts == prior.counts).all()
    assert [getattr(again, name) for name in ("weights", "segments", "shrinkage", "segment_column")] == [
        (1.0, 0.5, 0.0),
        ("DE", "FR"),
        10.0,
        "country",
    ]


def test_pipeline_uses_the_prior_beside_the_weights(
    prior: PopularityPrior, tokenizer: ItemTokenizer, tmp_path: Path
) -> None:
    """Two ways to recommend from one folder must not disagree on new users."""
    build(Bert4RecForCausalLM).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prior.save(tmp_path, tokenizer)
    model = Bert4RecForCausalLM.from_pretrained(tmp_path)
    items = ItemTokenizer.from_pretrained(tmp_path)
    found = RecommendationPipeline(model, items, task="recommendation", top_k=2, device=-1)
    assert [item["item_id"] for item in found([[]])[0]] == ["b", "e"]
    assert [item["item_id"] for item in found([[]], segments=["DE"])[0]] == ["c", "b"]
    without = RecommendationPipeline(model, items, task="recommendation", top_k=2, device=-1, prior=None)
    with pytest.raises(ValueError, match="--fit_prior true"):
        without([[]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": [1.5]}, "`weights` must be"),
        ({"weights": []}, "`weights` must be"),
        ({"shrinkage": 0}, "`shrinkage` must be above 0"),
        ({"segments": {"DE": {"z": 1}}}, "not in the vocabulary"),
        ({"items": "0" * 64}, "fitted for a checkpoint of other items or counts"),
        ({"segments": ["DE"]}, "AttributeError"),
        ({"segments": {"DE": {"a": -1}}}, "none below 0"),
    ],
)
def test_a_damaged_file_is_refused(
    change: dict[str, Any], reason: str, prior: PopularityPrior, tokenizer: ItemTokenizer, tmp_path: Path
) -> None:
    """A prior of another checkpoint must not be read as none: new users would get other lists silently."""
    path = prior.save(tmp_path, tokenizer)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="cannot be used") as error:
        load_prior(tmp_path, tokenizer)
    assert reason in str(error.value) and "Fit it again" in str(error.value)


def test_what_does_not_fit_is_refused(prior: PopularityPrior, tokenizer: ItemTokenizer) -> None:
    """Without counts every item is as popular as any other."""
    with pytest.raises(ValueError, match="no training counts"):
        segment_counts(ItemTokenizer.from_items(ITEMS), {})
    small = ItemTokenizer.from_items(ITEMS[:4], counts=COUNTS)
    other = PopularityPrior(segment_counts(small, {}), (1.0,))
    with pytest.raises(ValueError, match="`prior` must count the model's 9 tokens, found 7"):
        recommend(build(Bert4RecForMaskedLM), tokenizer, [[]], 1, prior=other)
    with pytest.raises(ValueError, match="`segments` must name one segment a user, found 1 for 2 users"):
        recommend(build(Bert4RecForMaskedLM), tokenizer, [[], []], 1, prior=prior, segments=["DE"])
