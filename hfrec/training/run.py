"""One training run: a split log, a model and the stock `Trainer`, from the arguments of the commands."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..data.collators import DataCollatorForMaskedItems, DataCollatorForNextItem
from ..data.interactions import Interactions, load_interactions
from ..data.sequences import to_evaluation_sequences, to_sequences
from ..data.splits import Split, leave_one_out
from ..evaluation.protocol import Objective, evaluate_checkpoint, objective_of, versions
from ..evaluation.ranking import make_compute_metrics, preprocess_ranks
from ..models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import ItemTokenizer
from .arguments import DataArguments, ModelArguments, RecommenderTrainingArguments

logger = logging.get_logger(__name__)
DEFAULT_MAX_LENGTH = 100


@dataclass
class TrainAndEvaluateCollator:
    """Sends rows with a `target` to the evaluation collator and all others to the training one."""

    train: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]
    evaluation: DataCollatorForNextItem

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.evaluation(features) if "target" in features[0] else self.train(features)


class StopOnNaN(TrainerCallback):
    """Ends a run whose loss is no longer a number before another checkpoint is written over the good ones."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for name in ("loss", "eval_loss", "grad_norm"):
            value = (logs or {}).get(name)
            if isinstance(value, float) and not math.isfinite(value):
                raise FloatingPointError(
                    f"`{name}` became {value} at step {state.global_step}: training stopped and the checkpoints in "
                    f"{args.output_dir} are kept. Lower `learning_rate` or set `max_grad_norm`."
                )


def load_split(arguments: DataArguments) -> tuple[Interactions, Split]:
    """Read the log that the arguments name and hold out the last two items of each user."""
    interactions = load_interactions(
        arguments.source,
        user_column=arguments.user_column,
        item_column=arguments.item_column,
        timestamp_column=arguments.timestamp_column,
        min_user_interactions=arguments.min_user_interactions,
        min_item_interactions=arguments.min_item_interactions,
        duplicates=arguments.duplicates,
        items=arguments.items_file,
    )
    split = leave_one_out(interactions)
    if len(split.validation) == 0:
        raise ValueError(
            f"`{arguments.source}` has no user with 3 interactions: nothing is left to validate on. "
            "Expected users with a history, found users with one or two interactions."
        )
    logger.info(str(split.report))
    return interactions, split


def build_tokenizer(train: Interactions) -> ItemTokenizer:
    """Vocabulary of the training items, the most frequent first."""
    import pyarrow.compute as pc

    counts = {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(train.table["item_id"])}
    items = sorted(counts, key=lambda item: (-counts[item], item))
    return ItemTokenizer.from_items(items, metadata=train.items, counts=counts)


def build_model(arguments: ModelArguments, vocab_size: int, max_length: int) -> PreTrainedModel:
    """A new model of the objective, with the shape that the arguments give."""
    shape = {name: value for name, value in vars(arguments).items() if name != "objective"}
    config = Bert4RecConfig(vocab_size=vocab_size, max_position_embeddings=max_length, **shape)
    return Bert4RecForMaskedLM(config) if arguments.objective == "masked" else Bert4RecForCausalLM(config)


def build_collator(
    tokenizer: ItemTokenizer, objective: Objective, arguments: DataArguments, max_length: int
) -> TrainAndEvaluateCollator:
    """Training and evaluation batches of an objective."""
    train: DataCollatorForMaskedItems | DataCollatorForNextItem
    if objective == "masked":
        train = DataCollatorForMaskedItems(
            tokenizer,
            mlm_probability=arguments.mlm_probability,
            mask_last_probability=arguments.mask_last_probability,
            max_length=max_length,
        )
    else:
        train = DataCollatorForNextItem(tokenizer, "causal", max_length=max_length, train=True)
    return TrainAndEvaluateCollator(train, DataCollatorForNextItem(tokenizer, objective, max_length=max_length))


def training_sequences(
    train: Interactions, tokenizer: ItemTokenizer, objective: Objective, arguments: DataArguments, max_length: int
) -> Any:
    """Rows to train on; a causal row holds one item more, its last label."""
    length = max_length if objective == "masked" else max_length + 1
    rows = to_sequences(train, tokenizer, max_length=length, windows=arguments.windows, unknown="drop")
    if objective == "causal":
        import pyarrow.compute as pc

        enough = pc.greater_equal(pc.list_value_length(rows.data["input_ids"]), 2)
        rows = rows.select([index for index, keep in enumerate(enough.to_pylist()) if keep])
        if len(rows) == 0:
            raise ValueError("No user has two training interactions: the causal objective has nothing to learn from.")
    return rows


def check_output_folder(arguments: RecommenderTrainingArguments) -> str | None:
    """The last checkpoint of an interrupted run in the output folder, or None for a new run.

    Raises:
        ValueError: The folder holds a finished run or other files.
    """
    folder = Path(arguments.output_dir)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    last: str | None = get_last_checkpoint(arguments.output_dir)  # type: ignore[no-untyped-call]
    if (folder / "all_results.json").exists() and arguments.resume_from_checkpoint is None:
        raise ValueError(f"`output_dir` {folder} holds a finished run: choose another folder or remove it.")
    if last is None and arguments.resume_from_checkpoint is None:
        found = sorted(path.name for path in folder.iterdir())[:5]
        raise ValueError(
            f"`output_dir` {folder} is in use without a checkpoint: expected an empty folder, found {found}."
        )
    return last


def train_and_evaluate(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    split: Split,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
    optimizer: torch.optim.Optimizer | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train with the stock `Trainer`, keep the best checkpoint, test it and write `all_results.json`.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: Leave-one-out split of the log.
        data: How sequences are made.
        training: Arguments of the `Trainer`.
        callbacks: Further callbacks, such as `L2SPCallback`.
        optimizer: In place of the Trainer's own.
        extra: Written into `all_results.json`.

    Returns:
        What `all_results.json` holds.
    """
    checkpoint = check_output_folder(training)
    max_length = model.config.max_position_embeddings
    trainer = build_trainer(
        model,
        tokenizer,
        training_sequences(split.train, tokenizer, objective_of(model), data, max_length),
        to_evaluation_sequences(split.train, split.validation, tokenizer),
        data=data,
        training=training,
        callbacks=callbacks,
        optimizer=optimizer,
    )
    resume = training.resume_from_checkpoint or checkpoint
    result = trainer.train(resume_from_checkpoint=resume)
    validation = trainer.evaluate()
    best = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        # Not `trainer.save_model`, which pickles the training arguments into the folder.
        best.save_pretrained(training.output_dir)
        tokenizer.save_pretrained(training.output_dir)
    results = {
        "train": result.metrics,
        "validation": validation,
        "best_checkpoint": trainer.state.best_model_checkpoint,
        "split": split.report.to_dict(),
        "data": {"source": data.source, "train_fingerprint": split.train.fingerprint},
        "seed": training.seed,
        "versions": versions(),
        **(extra or {}),
    }
    if trainer.is_world_process_zero():
        results["test"] = evaluate_checkpoint(best, tokenizer, split)
        write_json(Path(training.output_dir) / "all_results.json", results)
    return results


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

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        train_dataset: Rows of `to_sequences`.
        eval_dataset: Rows of `to_evaluation_sequences`.
        data: Masking probabilities.
        training: Arguments of the `Trainer`.
        callbacks: Further callbacks; they stand before the reporters, so that what they log is reported.
        optimizer: In place of the Trainer's own.
    """
    if training.early_stopping_patience and training.load_best_model_at_end:
        stopping = EarlyStoppingCallback(early_stopping_patience=training.early_stopping_patience)
        callbacks = [*callbacks, stopping]
    trainer = Trainer(
        model=model,
        args=training,
        data_collator=build_collator(tokenizer, objective_of(model), data, model.config.max_position_embeddings),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        compute_metrics=make_compute_metrics(),
        preprocess_logits_for_metrics=preprocess_ranks,  # type: ignore[arg-type]  # two label names give a tuple
        optimizers=(optimizer, None),
    )
    trainer.callback_handler.callbacks[:0] = [StopOnNaN(), *callbacks]
    return trainer


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(draft, path)


def seed_everything(training: RecommenderTrainingArguments) -> None:
    """Seed before the model is made, so that its initial weights hang on the seed too."""
    set_seed(training.seed)
