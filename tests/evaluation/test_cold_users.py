"""The share of the prior is the best one, fitted on validation alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemTokenizer,
    Split,
    leave_one_out,
    load_interactions,
)
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.evaluation.cold_users import best_weight, fit_prior, measure_cold_users, target_probabilities
from hfrec.evaluation.protocol import evaluate_checkpoint


@pytest.fixture(scope="module")
def split() -> Split:
    """Users of two kinds; each buys at random out of the items of its own."""
    rng = np.random.default_rng(0)
    log = [
        {
            "user_id": f"u{user:02}",
            "item_id": f"{'DF'[user % 2]}{rng.integers(5)}",
            "timestamp": time,
        }
        for user in range(40)
        for time in range(6 if user else 3)
    ]
    return leave_one_out(load_interactions(pa.Table.from_pylist(log)))


@pytest.fixture(scope="module")
def tokenizer(split: Split) -> ItemTokenizer:
    items = split.train.table["item_id"].to_pylist()
    return ItemTokenizer.from_items(sorted(set(items)), counts={item: items.count(item) for item in items})


def build(tokenizer: ItemTokenizer, model_class: Any = Bert4RecForMaskedLM) -> Any:
    torch.manual_seed(0)
    config = Bert4RecConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, max_position_embeddings=4, initializer_range=0.5
    )
    return model_class(config)


def test_the_weight_is_the_best_on_a_grid() -> None:
    """A bisection with the wrong sign ends at the worst weight."""
    rng = np.random.default_rng(0)
    model, prior = rng.random(50) ** 3, rng.random(50)
    grid = np.linspace(0, 1, 1001)
    values = [np.log((1 - weight) * model + weight * prior).mean() for weight in grid]
    assert 0.05 < best_weight(model, prior) < 0.95
    assert best_weight(model, prior) == pytest.approx(grid[int(np.argmax(values))], abs=1e-3)
    assert best_weight(np.zeros(3), np.full(3, 0.1)) == 1.0


@pytest.mark.parametrize("model_class", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
def test_target_probabilities_are_those_of_the_softmax(model_class: Any, tokenizer: ItemTokenizer) -> None:
    """A probability at another position, or normalised over a part, would fit another mix."""
    model = build(tokenizer, model_class).eval()
    rows = [{"input_ids": [3, 4], "target": 5}, {"input_ids": [], "target": 3}, {"input_ids": [7], "target": 4}]
    collate = DataCollatorForNextItem(tokenizer, "causal" if model_class is Bert4RecForCausalLM else "masked")
    for row, found in zip(rows, target_probabilities(model, tokenizer, rows, batch_size=2), strict=True):
        batch = collate([row])
        with torch.no_grad():
            logits = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).logits[0]
        assert found == pytest.approx(float(logits.softmax(dim=-1)[row["target"]]), rel=1e-5)


def test_fitted_on_validation_alone(split: Split, tokenizer: ItemTokenizer) -> None:
    """A weight or a count that saw the test items makes the test worthless."""
    model = build(tokenizer)
    prior = fit_prior(model, tokenizer, split)
    blind = Split(split.train, split.validation, split.test.select(np.zeros(len(split.test), dtype=bool)), split.report)
    assert fit_prior(model, tokenizer, blind).weight == prior.weight > 0.5
    assert prior.counts.sum() == len(split.train)


def test_measured_without_histories(split: Split, tokenizer: ItemTokenizer) -> None:
    """The untrained model must lose to what is popular, and the mix must not lose to the model."""
    model = build(tokenizer)
    prior = fit_prior(model, tokenizer, split)
    found = measure_cold_users(model, tokenizer, split, prior)
    assert found["n"] == 40 and found["weight"] == prior.weight
    none = found["unfiltered"]
    assert none["mix"]["ndcg@10"] > none["model"]["ndcg@10"]
    low, high = none["mix_minus_model"]["difference_ci"]
    assert low <= none["mix"]["ndcg@10"] - none["model"]["ndcg@10"] <= high
    assert found["filter_seen"]["model"] == none["model"]  # nothing is known, so nothing is seen


def test_evaluation_with_a_prior_names_both(split: Split, tokenizer: ItemTokenizer) -> None:
    """A mix under the model's name alone would hide what the prior added."""
    model = build(tokenizer)
    alone = evaluate_checkpoint(model, tokenizer, split)
    both = evaluate_checkpoint(model, tokenizer, split, prior=fit_prior(model, tokenizer, split))
    assert both["baselines"]["model_without_prior"]["filter_seen"] == alone["filter_seen"]
    assert "where the history is empty" in both["protocol"]["prior"] and "prior" not in alone["protocol"]
    assert "model_without_prior" not in alone["baselines"]
