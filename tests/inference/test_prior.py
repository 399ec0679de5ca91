"""The prior for empty histories: its probabilities, the mix, and the file beside the model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer, RecommendationPipeline
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.inference.prior import PopularityPrior, item_counts, load_prior
from hfrec.inference.recommend import recommend

ITEMS = list("abcdef")
COUNTS = {"a": 1, "b": 50, "c": 3, "d": 0, "e": 20, "f": 5}


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(ITEMS, counts=COUNTS)


@pytest.fixture(scope="module")
def prior(tokenizer: ItemTokenizer) -> PopularityPrior:
    return PopularityPrior(item_counts(tokenizer), weight=0.75)


def build(model_class: Any) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, max_position_embeddings=4, initializer_range=0.5
    )
    return model_class(config).eval()


def test_probabilities_by_hand(prior: PopularityPrior) -> None:
    """An item without a count must stay possible, a special token not."""
    assert prior.probabilities == pytest.approx([0, 0, 0, *(np.array([2, 51, 4, 1, 21, 6]) / 85)])


@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("weight", [1.0, 0.75, 0.0])
def test_an_empty_history_gets_the_mean_of_two_distributions(
    model_class: Any, weight: float, tokenizer: ItemTokenizer
) -> None:
    """Mixing scores instead of probabilities, or a softmax over a chunk, gives another order without a word."""
    model, prior = build(model_class), PopularityPrior(item_counts(tokenizer), weight)
    collate = DataCollatorForNextItem(tokenizer, "masked" if model_class is Bert4RecForMaskedLM else "causal")
    batch = collate([{"input_ids": row} for row in ([], [2], [3, 4])])  # [UNK] is no known item
    asked = prior.over(model)
    with torch.no_grad():
        own = model.score_items(model.encode_history(batch["input_ids"], batch["attention_mask"]))
        encoded = asked.encode_history(batch["input_ids"], batch["attention_mask"])
        found = torch.cat([asked.score_items(encoded, 0, 4), asked.score_items(encoded, 4, 9)], dim=1)
    torch.testing.assert_close(found[2], own[2])
    expected = (1 - weight) * own[:2].softmax(dim=1) + weight * torch.from_numpy(prior.probabilities).float()
    torch.testing.assert_close(found[:2].exp() if weight else found[:2], expected if weight else own[:2])


def test_known_users_keep_the_scores_of_the_model(prior: PopularityPrior, tokenizer: ItemTokenizer) -> None:
    """A prior must change nothing for users who are known, nor the model that it is laid over."""
    model = build(Bert4RecForMaskedLM).train()
    alone = recommend(model, tokenizer, [["b"], ["a", "b"]], 3)
    asked = prior.over(model)
    found = recommend(asked, tokenizer, [[], ["b"], ["a", "b"]], 3)[1:]
    assert [[item["item_id"] for item in items] for items in found] == [
        [i["item_id"] for i in items] for items in alone
    ]
    scores = [[[item["score"] for item in items] for items in lists] for lists in (found, alone)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    assert model.training and asked.training and recommend(model, tokenizer, [["b"], ["a", "b"]], 3) == alone


@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_a_new_user_gets_what_is_popular(model_class: Any, tokenizer: ItemTokenizer) -> None:
    """A causal model alone reads no empty history, a masked one ranks by what it has never been asked."""
    prior = PopularityPrior(item_counts(tokenizer))
    found = recommend(prior.over(build(model_class)), tokenizer, [[], ["b"], []], 2, batch_size=2)
    assert [[item["item_id"] for item in items] for items in found[::2]] == [["b", "e"], ["b", "e"]]
    assert np.exp(found[0][0]["score"]) == pytest.approx(51 / 85)


def test_saved_and_loaded(prior: PopularityPrior, tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """Counts that come back on other token ids recommend other items."""
    assert load_prior(tmp_path, tokenizer) is None
    prior.save(tmp_path, tokenizer)
    again = load_prior(tmp_path, tokenizer)
    assert again is not None
    assert (again.counts == prior.counts).all() and again.weight == 0.75


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
    without = RecommendationPipeline(model, items, task="recommendation", top_k=2, device=-1, prior=None)
    with pytest.raises(ValueError, match="--fit_prior true"):
        without([[]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": 1.5}, "`weight` must be"),
        ({"weight": None}, "TypeError"),
        ({"items": "0" * 64}, "fitted for a checkpoint of other items or counts"),
    ],
)
def test_a_damaged_file_is_refused(
    change: dict[str, Any], reason: str, prior: PopularityPrior, tokenizer: ItemTokenizer, tmp_path: Path
) -> None:
    """A prior of another checkpoint must not be read as none: new users would get other lists silently."""
    path = prior.save(tmp_path, tokenizer)
    content = json.loads(path.read_text()) | change
    for said in ("it is not as it was written", reason):  # with its hash, and as earlier versions wrote it
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="cannot be used") as error:
            load_prior(tmp_path, tokenizer)
        assert said in str(error.value) and "Fit it again" in str(error.value)
        content.pop("sha256", None)


def test_what_is_no_file_is_refused(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """A link to nothing, or a folder, passed for a checkpoint without a prior: empty histories got other lists."""
    assert load_prior(tmp_path, tokenizer) is None
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to("gone"), os.mkfifo):
        make(tmp_path / "prior.json")
        with pytest.raises(ValueError, match=r"prior\.json of .* is no file"):
            load_prior(tmp_path, tokenizer)
        (tmp_path / "prior.json").rmdir() if (tmp_path / "prior.json").is_dir() else (tmp_path / "prior.json").unlink()


def test_a_file_of_an_earlier_version_is_refused(tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    """Shares of longer histories and segments, which it held, must not be dropped in silence."""
    (tmp_path / "prior.json").write_text('{"weights": [1.0, 0.3], "shrinkage": 10.0, "segments": {}}')
    with pytest.raises(ValueError, match="Fit it again"):
        load_prior(tmp_path, tokenizer)


def test_what_does_not_fit_is_refused(tokenizer: ItemTokenizer) -> None:
    """Without counts every item is as popular as any other."""
    with pytest.raises(ValueError, match="no training counts"):
        item_counts(ItemTokenizer.from_items(ITEMS))
    small = ItemTokenizer.from_items(ITEMS[:4], counts=COUNTS)
    with pytest.raises(ValueError, match="`prior` must count the model's 9 tokens, found 7"):
        PopularityPrior(item_counts(small)).over(build(Bert4RecForMaskedLM))
