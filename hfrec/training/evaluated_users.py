"""Which users are ranked while a model trains: all, or as many as a tenth of the training time pays for."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow.compute as pc
from transformers import PreTrainedModel
from transformers.trainer_utils import IntervalStrategy

from ..data.collators import objective_of
from ..data.shards import StreamedBatches
from ..models.loss_names import SAMPLED_LOSSES
from .arguments import DataArguments
from .trainer_arguments import RecommenderTrainingArguments

SHARE = 0.1  # of the training time that evaluations may take
FEWEST = 1_000  # users that are ranked in any case: fewer cost quality (benchmarks/README.md) to save seconds
# A user ranked takes so many times what its products take of those of a training row: collating, sorting and comparing.
# Measured on MovieLens-100K at length 50: masked 1.4, causal 1.7.
BESIDE_PRODUCTS = 1.5


def rows_while_training(
    rows: Any, train_rows: Any, model: PreTrainedModel, *, data: DataArguments, training: RecommenderTrainingArguments
) -> Any:
    """The rows of validation that each evaluation of a run ranks, in their order.

    All, where `--eval_users` does not say less and they cost at most a tenth of the training time. Otherwise a sample
    that is drawn once, by the seed, so that checkpoints are compared on the same users; a line on the error stream
    says so. The cost is worked out from sizes, not measured: two runs with one seed are equal. A run with a time
    budget plans its evaluations itself and ranks all.

    Args:
        rows: Rows of `to_evaluation_sequences`.
        train_rows: Rows to train on.
        model: What is trained.
        data: Masking probability.
        training: `eval_users`, and how often is evaluated.
    """
    users = training.eval_users
    share = cost_of_all(rows, train_rows, model, data=data, training=training)
    if users is None:
        if training.time_budget is not None or share is None or share <= SHARE:
            return rows
        users = max(FEWEST, int(len(rows) * SHARE / share))
    if users >= len(rows):
        return rows
    if training.process_index == 0:
        cost = "" if share is None else f" (all would take about {share:.0%} of the training time)"
        print(
            f"Evaluations while training rank {users:,} of {len(rows):,} users, drawn at random{cost}; the last one "
            f"ranks all. --eval_users {len(rows)} always ranks all.",
            file=sys.stderr,
        )
    chosen = np.random.default_rng(training.seed).choice(len(rows), users, replace=False)
    return rows.select(np.sort(chosen))


def cost_of_all(
    rows: Any, train_rows: Any, model: PreTrainedModel, *, data: DataArguments, training: RecommenderTrainingArguments
) -> float | None:
    """What an evaluation of all rows takes of the time of the training before it; None where that is not known."""
    trained = _rows_between_evaluations(train_rows, training)
    if trained is None:
        return None
    config = model.config
    length = config.max_position_embeddings
    tokens = float(np.minimum(pc.list_value_length(rows.data["input_ids"]).to_numpy(), length).mean())
    labels = tokens * (data.mlm_probability if objective_of(model) == "masked" else 1.0)
    width = config.embedding_size or config.hidden_size
    body = tokens * config.num_hidden_layers * 12 * config.hidden_size**2  # products of the layers, once
    drawn = config.num_negatives + config.num_hard_negatives
    candidates = drawn if config.loss in SAMPLED_LOSSES else config.vocab_size
    user = body + 2 * config.vocab_size * width  # scores, and the comparisons with them
    row = 3 * (body + labels * candidates * width)  # backward is twice forward
    return float(BESIDE_PRODUCTS * user * len(rows) / (row * trained))


def _rows_between_evaluations(train_rows: Any, training: RecommenderTrainingArguments) -> float | None:
    if training.eval_strategy == IntervalStrategy.EPOCH:
        return float(train_rows.num_rows if isinstance(train_rows, StreamedBatches) else len(train_rows))
    if training.eval_strategy == IntervalStrategy.STEPS and training.eval_steps and training.eval_steps >= 1:
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
        return float(training.eval_steps * batch)
    return None
