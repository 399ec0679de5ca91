"""How weights are updated: what the flags of fine-tuning add to the Trainer's own AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, TrainerCallback

from ..tokenization import ItemTokenizer
from .arguments import FinetuneArguments
from .freezing import GradualUnfreezingCallback, layerwise_learning_rates
from .l2sp import L2SPCallback
from .trainer_arguments import RecommenderTrainingArguments


@dataclass(frozen=True)
class Updates:
    """How weights are updated where it is not by the Trainer's own AdamW alone.

    Args:
        callbacks: Such as `L2SPCallback`, which pulls weights, and `GradualUnfreezingCallback`.
        optimizer: In place of the Trainer's own.
    """

    callbacks: Sequence[TrainerCallback] = ()
    optimizer: torch.optim.Optimizer | None = None


STOCK_UPDATES = Updates()


def build_updates(
    model: PreTrainedModel,
    anchored: ItemTokenizer | Mapping[str, int],
    start: FinetuneArguments,
    training: RecommenderTrainingArguments,
) -> Updates:
    """How fine-tuning updates the weights; L2-SP pulls the rows `anchored` to those of the same names."""
    return Updates(build_callbacks(start, anchored), build_optimizer(model, start, training))


def build_callbacks(start: FinetuneArguments, anchored: ItemTokenizer | Mapping[str, int]) -> list[TrainerCallback]:
    """L2-SP and gradual unfreezing, where asked for."""
    callbacks: list[TrainerCallback] = []
    if start.l2sp_alpha or start.l2sp_beta or start.l2sp_residual:
        callbacks.append(
            L2SPCallback(
                start.model_name_or_path,
                alpha=start.l2sp_alpha,
                beta=start.l2sp_beta,
                residual=start.l2sp_residual,
                mode=start.l2sp_mode,
                tokenizer=anchored,
                revision=start.model_revision,
            )
        )
    if start.unfreeze_every_steps is not None:
        callbacks.append(GradualUnfreezingCallback(every=start.unfreeze_every_steps, unit="step"))
    return callbacks


def build_optimizer(
    model: PreTrainedModel, start: FinetuneArguments, training: RecommenderTrainingArguments
) -> torch.optim.Optimizer | None:
    """AdamW with a learning rate for each layer, or None for the Trainer's own optimiser."""
    if start.layerwise_lr_decay is None:
        return None
    groups = layerwise_learning_rates(
        model,
        learning_rate=training.learning_rate,
        decay=start.layerwise_lr_decay,
        weight_decay=training.weight_decay,
    )
    return torch.optim.AdamW(groups, betas=(training.adam_beta1, training.adam_beta2), eps=training.adam_epsilon)
