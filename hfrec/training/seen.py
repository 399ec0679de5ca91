"""Whether a run leaves out the items that a user had: decided on validation, kept in the config of the model."""

from __future__ import annotations

import sys
from typing import Any

from transformers import PreTrainedModel

from ..data.arguments import ProtocolArguments
from ..data.repeats import REPEAT_THRESHOLD, filters_seen, repeat_share, settle_filter_seen
from ..evaluation.metrics.functions import METRIC
from ..evaluation.ranked_test import decided_by
from .trainer_arguments import RecommenderTrainingArguments


def settle_seen_items(model: PreTrainedModel, validation: Any, protocol: ProtocolArguments) -> dict[str, Any]:
    """Decide whether seen items are filtered, write it into the model's config and say it on stderr.

    Args:
        model: Masked or causal model; the config is what training, `recommend`, export and evaluation read.
        validation: Rows of `to_evaluation_sequences`.
        protocol: The flags.

    Returns:
        What `all_results.json` says of it.
    """
    decided = decide_seen_items(validation, protocol)
    model.config.filter_seen = decided["seen_items"]["filter_seen"]
    return decided


def decide_seen_items(validation: Any, protocol: ProtocolArguments) -> dict[str, Any]:
    """The same for a model that is yet to be made: decide and say it on stderr; what `all_results.json` says of it."""
    share = repeat_share(validation)
    filter_seen, line = settle_filter_seen(protocol.filter_seen, share)
    if share or not filter_seen:
        print(line, file=sys.stderr)
    seen = {"filter_seen": filter_seen, "validation_repeat_share": share, "threshold": REPEAT_THRESHOLD}
    return {"protocol": vars(protocol), "seen_items": seen}


def choose_metric(training: RecommenderTrainingArguments, model: PreTrainedModel) -> None:
    """Make `metric_for_best_model` ndcg@10 the unfiltered one where the model's config filters no seen items."""
    if training.metric_for_best_model == METRIC and not filters_seen(model.config):
        training.metric_for_best_model = f"{decided_by(False)}_{METRIC}"
