"""Users of whom little is known: fit the mix of model and popularity on validation, measure it on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..data.interactions import Interactions
from ..data.sequences import to_evaluation_sequences
from ..data.splits import Split
from ..inference.prior import PopularityPrior, Segments, log_normaliser, segment_counts, user_segments
from ..scoring import ITEM_CHUNK_SIZE
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from .metrics.functions import paired_bootstrap, ranking_metrics
from .protocol import evaluation_collator
from .ranking import PROTOCOLS, rank_dataset

LENGTHS = (0, 1, 2, 3)
SHRINKAGES = (10.0, 100.0, 1000.0, 10000.0, 100000.0)
Row = dict[str, Any]


def fit_prior(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    split: Split,
    *,
    segment_column: str | None = None,
    batch_size: int = 256,
) -> PopularityPrior:
    """Choose how much of the prior a history of 0, 1, 2 and 3 items gets, on the validation targets.

    Each user's history is cut to its newest n items, and w_n maximises the mean log-likelihood of the validation
    targets. The likelihood is concave in w_n and moves with every target, so that the optimum is unique and found
    exactly; NDCG@10 is a step function of w_n that few targets decide. With segments, the shrinkage is chosen by the
    likelihood of the prior alone.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer, with training counts.
        split: Leave-one-out or temporal split; the test part is not looked at.
        segment_column: Column of the log that names a user's segment; popularity among all users when None.
        batch_size: Users scored at a time.

    Returns:
        The prior with its weights.

    Raises:
        ValueError: No counts, no such column, or no validation target that the vocabulary has.
    """
    rows = _rows(split.train, split.validation_targets, tokenizer)
    rows = [row for row in rows if row["target"] >= NUM_SPECIAL_TOKENS]
    if not rows:
        raise ValueError("The prior is fitted on the validation targets, and the vocabulary has none of them.")
    prior = _unfitted(tokenizer, split.train, segment_column)
    targets = np.array([row["target"] for row in rows])
    places = prior.rows_of(_segments(prior, split.train, rows), len(rows))
    tried = [replace(prior, shrinkage=shrinkage) for shrinkage in SHRINKAGES] if segment_column else [prior]
    prior = max(tried, key=lambda one: float(np.log(one.probabilities[places, targets]).mean()))
    weights: list[float] = []
    for length in LENGTHS:
        enough = np.array([len(row["input_ids"]) >= length for row in rows])
        if not enough.any():
            weights.append(weights[-1])
            continue
        chosen = [row for row, keep in zip(cut(rows, length), enough, strict=True) if keep]
        likelihood = target_probabilities(model, tokenizer, chosen, batch_size=batch_size)
        weights.append(best_weight(likelihood, prior.probabilities[places, targets][enough]))
    return replace(prior, weights=tuple(weights))


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
    was_training = model.training
    model.train(False)
    try:
        for start in range(0, len(rows), batch_size):
            batch = collator(rows[start : start + batch_size])
            states = scorer.encode_history(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            total = log_normaliser(partial(scorer.score_items, states), len(tokenizer), ITEM_CHUNK_SIZE)
            for place, row in enumerate(rows[start : start + batch_size]):
                target = int(row["target"])
                own = scorer.score_items(states[place : place + 1], target, target + 1)[0, 0]
                found.append(float((own - total[place]).double().exp()))
    finally:
        model.train(was_training)
    return np.array(found)


def measure_cold_users(
    model: PreTrainedModel, tokenizer: ItemTokenizer, split: Split, prior: PopularityPrior, *, batch_size: int = 256
) -> dict[str, Any]:
    """Test the mix, the model alone and the prior alone on histories cut to their newest 0, 1, 2 and 3 items.

    The items that were cut off are unknown to the seen filter too.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: Leave-one-out or temporal split; all test users with at least that many items are ranked.
        prior: A fitted prior.
        batch_size: Users scored at a time.

    Returns:
        History length -> `n`, `weight`, and for each protocol `model`, `prior`, `mix` with metrics and intervals, and
        `mix_minus_model`, `mix_minus_prior` with paired intervals of ndcg@10.
    """
    rows = _rows(split.history, split.test_targets, tokenizer)
    collator = evaluation_collator(model, tokenizer)
    alone = replace(prior, weights=(1.0,) * len(LENGTHS))
    found: dict[str, Any] = {}
    for length, weight in zip(LENGTHS, prior.weights, strict=False):
        chosen = cut([row for row in rows if len(row["input_ids"]) >= length], length)
        if not chosen:
            continue
        segments = _segments(prior, split.history, chosen)
        ranks = {
            name: rank_dataset(model, chosen, collator, batch_size=batch_size, prior=one, segments=segments)
            for name, one in (("model", None), ("prior", alone), ("mix", prior))
        }
        found[str(length)] = {"n": len(chosen), "weight": weight, **{name: _compare(ranks, name) for name in PROTOCOLS}}
    return found


def cut(rows: Sequence[Row], length: int) -> list[Row]:
    """The rows with the newest `length` items of their histories."""
    return [{**row, "input_ids": row["input_ids"][max(len(row["input_ids"]) - length, 0) :]} for row in rows]


def _compare(ranks: dict[str, dict[str, NDArray[np.int64]]], setting: str) -> dict[str, Any]:
    measured: dict[str, Any] = {name: ranking_metrics(found[setting], ks=(10,)) for name, found in ranks.items()}
    for name in ("model", "prior"):
        measured[f"mix_minus_{name}"] = paired_bootstrap(ranks["mix"][setting], ranks[name][setting])
    return measured


def _rows(history: Interactions, targets: Interactions, tokenizer: ItemTokenizer) -> list[Row]:
    found: list[Row] = to_evaluation_sequences(history, targets, tokenizer).to_list()
    return found


def _segments(prior: PopularityPrior, history: Interactions, rows: Sequence[Row]) -> Segments | None:
    if prior.segment_column is None:
        return None
    return user_segments(history.table, [row["user_id"] for row in rows], prior.segment_column)


def _unfitted(tokenizer: ItemTokenizer, train: Interactions, segment_column: str | None) -> PopularityPrior:
    segments: dict[str, dict[str, int]] = {}
    if segment_column is not None:
        users = train.table["user_id"].to_pylist()
        items = pc.is_in(train.table["item_id"], value_set=tokenizer.items["item_id"]).to_pylist()
        names = user_segments(train.table, users, segment_column)
        for name, item, known in zip(names, train.table["item_id"].to_pylist(), items, strict=True):
            if name is not None and known:
                own = segments.setdefault(name, {})
                own[item] = own.get(item, 0) + 1
    segments = dict(sorted(segments.items()))
    counts = segment_counts(tokenizer, segments)
    return PopularityPrior(counts, weights=(1.0,), segments=tuple(segments), segment_column=segment_column)
