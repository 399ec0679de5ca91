"""A model and the stock `Trainer` with what its objective needs: collators, ranking metrics, callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed

from ..data.collators import DataCollatorForMaskedItems, DataCollatorForNextItem, Objective, objective_of
from ..data.drawing import DrawnRows
from ..data.inputs import Input, inputs_of
from ..data.shards import StreamedBatches
from ..evaluation.ranking import make_compute_metrics, preprocess_ranks
from ..models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import ItemTokenizer
from ..transfer.features import set_item_features
from ..transfer.specification import ContentSpecification
from .arguments import DataArguments, ModelArguments
from .checkpoints import SaveOnExit, SealCheckpoint, StopOnNaN
from .estimate import eval_batch_size
from .printing import print_like_a_tool
from .pushes import PushWatchCallback, RecommenderTrainer, open_repository
from .resuming import EarlyStopping, check_best_metric
from .seen import choose_metric
from .streaming import DrawingTrainer, StreamingTrainer
from .trainer_arguments import RecommenderTrainingArguments

DEFAULT_MAX_LENGTH = 100


@dataclass
class TrainAndEvaluateCollator:
    """Sends rows with a `target` to the evaluation collator and all others to the training one."""

    train: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]
    evaluation: DataCollatorForNextItem

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.evaluation(features) if "target" in features[0] else self.train(features)


def build_model(
    arguments: ModelArguments,
    vocab_size: int,
    max_length: int,
    *,
    content: tuple[ContentSpecification, torch.Tensor] | None = None,
    inputs: Sequence[Input] | None = None,
) -> PreTrainedModel:
    """A new model of the objective, with the shape that the arguments give.

    Args:
        arguments: Objective and shape.
        vocab_size: Items and special tokens.
        max_length: Longest sequence.
        content: What the items are made of, and their features `(num_items, width)`, where they are made of content.
        inputs: What it reads beside the items, of `declare_inputs`.
    """
    shape = arguments.shape()
    if content is not None:
        shape["item_content"] = content[0].to_dict()
    shape["inputs"] = None if inputs is None else [dict(entry) for entry in inputs]
    config = Bert4RecConfig(vocab_size=vocab_size, max_position_embeddings=max_length, **shape)
    model = Bert4RecForMaskedLM(config) if arguments.objective == "masked" else Bert4RecForCausalLM(config)
    if content is not None:
        set_item_features(model, content[1])
    return model


def build_collator(
    tokenizer: ItemTokenizer,
    objective: Objective,
    arguments: DataArguments,
    max_length: int,
    *,
    seed: int | None,
    inputs: Sequence[Input] | None = None,
) -> TrainAndEvaluateCollator:
    """Training and evaluation batches of an objective; `seed` is that of the masks."""
    train: DataCollatorForMaskedItems | DataCollatorForNextItem
    if objective == "masked":
        train = DataCollatorForMaskedItems(
            tokenizer,
            mlm_probability=arguments.mlm_probability,
            mask_last_probability=arguments.mask_last_probability,
            max_length=max_length,
            seed=seed,
            inputs=inputs,
        )
    else:
        train = DataCollatorForNextItem(tokenizer, "causal", max_length=max_length, train=True, inputs=inputs)
    evaluation = DataCollatorForNextItem(tokenizer, objective, max_length=max_length, inputs=inputs)
    return TrainAndEvaluateCollator(train, evaluation)


def build_trainer(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    train_dataset: Any,
    eval_dataset: Any,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
    optimizer: torch.optim.Optimizer | None = None,
) -> Trainer:
    """The stock `Trainer` with the collators and ranking metrics of the model's objective.

    `metric_for_best_model` ndcg@10 is the unfiltered one where the model's config says that seen items are kept.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        train_dataset: Rows of `to_sequences`, or [`StreamedBatches`], which hold their collator themselves.
        eval_dataset: Rows of `to_evaluation_sequences`.
        data: Masking probabilities.
        training: Arguments of the `Trainer`.
        callbacks: Further callbacks; they stand before the reporters, so that what they log is reported.
        optimizer: In place of the Trainer's own.
    """
    prepare_model(model, training)
    if training.early_stopping_patience and training.load_best_model_at_end:
        callbacks = [*callbacks, EarlyStopping(early_stopping_patience=training.early_stopping_patience)]
    check_best_metric(training)
    open_repository(training)
    trainer = _trainer_class(train_dataset)(
        model=model,
        args=training,
        data_collator=train_and_evaluate_collator(model, tokenizer, data, training),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        compute_metrics=make_compute_metrics(),
        preprocess_logits_for_metrics=preprocess_ranks,
        optimizers=(optimizer, None),
        callbacks=[*([SaveOnExit()] if training.save_on_exit else []), StopOnNaN(), SealCheckpoint()],
    )
    trainer.label_smoother = None  # it needs scores of all items, and would smooth over the special tokens too
    trainer.callback_handler.callbacks[:0] = callbacks
    print_like_a_tool(trainer)
    if training.push_to_hub:
        trainer.add_callback(PushWatchCallback(trainer))
    return trainer


def _trainer_class(train_dataset: Any) -> type[RecommenderTrainer]:
    """The one of rows in any order, or of rows that come in an order of their own."""
    if isinstance(train_dataset, DrawnRows):
        return DrawingTrainer
    return StreamingTrainer if isinstance(train_dataset, StreamedBatches) else RecommenderTrainer


def train_and_evaluate_collator(
    model: PreTrainedModel, tokenizer: ItemTokenizer, data: DataArguments, training: RecommenderTrainingArguments
) -> TrainAndEvaluateCollator:
    """The collator of a run of a model."""
    # Unshuffled rows would have the same masks in every epoch.
    seed = None if training.train_sampling_strategy == "sequential" else training.seed
    length, inputs = model.config.max_position_embeddings, inputs_of(model)
    return build_collator(tokenizer, objective_of(model), data, length, seed=seed, inputs=inputs)


def prepare_model(model: PreTrainedModel, training: RecommenderTrainingArguments) -> None:
    """Settle what model and arguments must agree on: attention, users scored at a time, metric, label smoothing."""
    training.per_device_eval_batch_size = eval_batch_size(training.per_device_eval_batch_size, model.config.vocab_size)
    if training.attn_implementation is not None:
        model.set_attn_implementation(training.attn_implementation)
    choose_metric(training, model)
    if training.label_smoothing_factor:
        model.config.label_smoothing = training.label_smoothing_factor
        model.config.validate()


def seed_everything(training: RecommenderTrainingArguments) -> None:
    """Seed before the model is made, so that its initial weights depend on the seed too."""
    set_seed(training.seed)
