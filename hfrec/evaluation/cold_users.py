"""Users of whom nothing is known: fit the mix of model and popularity on validation, measure it on test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..data.inputs import inputs_of
from ..data.sequences import to_evaluation_sequences
from ..data.splits import Split
from ..inference.prior import PopularityPrior, item_counts, log_normaliser
from ..scoring import encode_batch, evaluating
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from .metrics.functions import paired_bootstrap, ranking_metrics
from .protocol import evaluation_collator
from .ranking import PROTOCOLS, rank_dataset

Row = dict[str, Any]


def fit_prior(
    model: PreTrainedModel, tokenizer: ItemTokenizer, split: Split, *, batch_size: int = 256
) -> PopularityPrior:
    """Choose how much of the prior an empty history gets, on the validation targets.

    Each user's history is left out, and the weight maximises the mean log-likelihood of the validation targets. The
    likelihood is concave in it and moves with every target, so that the optimum is unique and found exactly; NDCG@10 is
    a step function that few targets decide.

    Args:
        model: Masked or causal model, or a blend.
        tokenizer: Its item tokenizer, with training counts.
        split: Leave-one-out or temporal split; the test part is not looked at.
        batch_size: Users scored at a time.

    Raises:
        ValueError: No counts, or no validation target that the vocabulary has.
    """
    prior = PopularityPrior(item_counts(tokenizer))
    inputs = inputs_of(model)
    rows = without_history(to_evaluation_sequences(split.train, split.validation_targets, tokenizer, inputs=inputs))
    rows = [row for row in rows if row["target"] >= NUM_SPECIAL_TOKENS]
    if not rows:
        raise ValueError("The prior is fitted on the validation targets, and the vocabulary has none of them.")
    likelihood = target_probabilities(model, tokenizer, rows, batch_size=batch_size)
    popular = prior.probabilities[[row["target"] for row in rows]]
    return PopularityPrior(prior.counts, best_weight(likelihood, popular))


def best_weight(model: NDArray[np.float64], prior: NDArray[np.float64]) -> float:
    """The w in [0, 1] that maximises `mean(log((1 - w) model + w prior))`, by bisection of its falling derivative.

    Args:
        model: (n,) probabilities that the model gives to the targets.
        prior: (n,) probabilities that the prior gives to them, above 0.

    Example:
        >>> best_weight(np.array([0.5, 0.1]), np.array([0.1, 0.5]))
        0.5
        >>> best_weight(np.array([0.5, 0.4]), np.array([0.1, 0.2]))
        0.0
    """

    def slope(weight: float) -> float:
        return float(((prior - model) / np.maximum((1.0 - weight) * model + weight * prior, 1e-300)).mean())

    low, high = 0.0, 1.0
    if slope(low) <= 0.0:
        return low
    if slope(high) >= 0.0:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0.0 else (low, middle)
    return round((low + high) / 2, 6)


@torch.no_grad()
def target_probabilities(
    model: PreTrainedModel, tokenizer: ItemTokenizer, rows: Sequence[Row], *, batch_size: int = 256
) -> NDArray[np.float64]:
    """Probability `(n,)` that the model's softmax over the catalogue gives to each row's target."""
    collator = evaluation_collator(model, tokenizer)
    device = next(model.parameters()).device
    scorer: Any = model
    found = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            batch = collator(rows[start : start + batch_size])
            states = encode_batch(scorer, batch, device)
            total = log_normaliser(partial(scorer.score_items, states), len(tokenizer))
            for place, row in enumerate(rows[start : start + batch_size]):
                target = int(row["target"])
                own = scorer.score_items(states[place : place + 1], target, target + 1)[0, 0]
                found.append(float((own - total[place]).double().exp()))
    return np.array(found)


def measure_cold_users(
    model: PreTrainedModel, tokenizer: ItemTokenizer, split: Split, prior: PopularityPrior, *, batch_size: int = 256
) -> dict[str, Any]:
    """Test the mix, the model alone and the prior alone on the test targets, their histories left out.

    The items that are left out are unknown to the seen filter too.

    Args:
        model: Masked or causal model, or a blend.
        tokenizer: Its item tokenizer.
        split: Leave-one-out or temporal split.
        prior: A fitted prior.
        batch_size: Users scored at a time.

    Returns:
        `n`, `weight`, and for each protocol `model`, `prior`, `mix` with metrics and intervals, and `mix_minus_model`,
        `mix_minus_prior` with paired intervals of ndcg@10.
    """
    inputs = inputs_of(model)
    rows = without_history(to_evaluation_sequences(split.history, split.test_targets, tokenizer, inputs=inputs))
    collator = evaluation_collator(model, tokenizer)
    scorers: dict[str, Any] = {
        "model": model,
        "prior": PopularityPrior(prior.counts).over(model),
        "mix": prior.over(model),
    }
    ranks = {name: rank_dataset(one, rows, collator, batch_size=batch_size) for name, one in scorers.items()}
    return {"n": len(rows), "weight": prior.weight, **{name: _compare(ranks, name) for name in PROTOCOLS}}


def without_history(rows: Any) -> list[Row]:
    """Rows of `to_evaluation_sequences` as those of users who have just come."""
    found = [{**row, "input_ids": []} for row in rows.to_list()]
    for row in found:
        if "inputs" in row:
            row["inputs"] = {name: codes[-1:] for name, codes in row["inputs"].items()}
    return found


def _compare(ranks: dict[str, dict[str, NDArray[np.int64]]], setting: str) -> dict[str, Any]:
    measured: dict[str, Any] = {name: ranking_metrics(found[setting], ks=(10,)) for name, found in ranks.items()}
    for name in ("model", "prior"):
        measured[f"mix_minus_{name}"] = paired_bootstrap(ranks["mix"][setting], ranks[name][setting])
    return measured
