"""One training run, from its rows to a tested checkpoint: train, keep the best, test it, save it with its results."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer

from ..data.files import VALIDATION_FOLDER, check_folder, check_new_folder, seal, sealed_files, whole_files, write_json
from ..evaluation.protocol import versions
from ..evaluation.user_ranks import RANKS_FILE
from ..tokenization import ItemTokenizer
from .arguments import DataArguments
from .budget import plan_steps, what_more_would_bring
from .checkpoints import last_whole_checkpoint, only_unfinished
from .durations import parse_duration
from .evaluated_users import rows_while_training
from .facts import run_facts, schedule_facts
from .l2sp import L2SPCallback
from .resuming import train
from .rows import RunRows
from .rowwise import rowwise_optimizer
from .trainer import build_trainer
from .trainer_arguments import RecommenderTrainingArguments
from .updates import STOCK_UPDATES, Updates


def check_output_folder(arguments: RecommenderTrainingArguments, *, final: bool = False) -> str | None:
    """The last checkpoint of an interrupted run in the output folder, or None for a new run.

    Args:
        arguments: Of the run.
        final: Whether a validation run in a folder of its own comes before it.

    Raises:
        ValueError: The folder holds a finished run, one of the other kind or other files.
    """
    folder = Path(arguments.output_dir)
    check_folder(folder)
    if (folder / "all_results.json").exists() and arguments.resume_from_checkpoint is None:
        raise ValueError(f"`output_dir` {folder} holds a finished run: choose another folder or remove it.")
    last = last_whole_checkpoint(folder)
    validation = folder / VALIDATION_FOLDER
    if not final and validation.exists():
        raise ValueError(
            f"`output_dir` {folder} holds a run of `--final true`: give that flag, or choose another folder."
        )
    if final and last is not None and not (validation / "all_results.json").exists():
        raise ValueError(
            f"`output_dir` {folder} holds a run without `--final true`: leave that out, or choose another."
        )
    if last is None and arguments.resume_from_checkpoint is None and not only_unfinished(folder):
        check_new_folder(folder)
    return None if last is None else str(last)


def train_and_evaluate(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    rows: RunRows,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    updates: Updates = STOCK_UPDATES,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train with the stock `Trainer`, keep the best checkpoint, test it and write `all_results.json` and
    `test_ranks.parquet`.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        rows: What it is trained and tested on, of `split_rows` or `streamed_rows`.
        data: How sequences are made.
        training: Arguments of the `Trainer`.
        updates: Callbacks and optimiser.
        extra: Written into `all_results.json`.

    Returns:
        What `all_results.json` holds.
    """
    ranked_rows = rows_while_training(rows.validation, rows.train, model, data=data, training=training)
    fitted = FitRows(rows.train, ranked_rows, rows.compute_metrics)
    trainer, metrics = fit(model, tokenizer, fitted, data=data, training=training, updates=updates)
    more = what_more_would_bring(trainer.state.log_history, "eval_ndcg@10")
    validation = trainer.evaluate(rows.validation)
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        save_checkpoint(best, tokenizer, Path(training.output_dir))
    results = {
        "train": metrics,
        "validation": validation,
        "best_checkpoint": trainer.state.best_model_checkpoint,
        "what_more_would_bring": more,
        "evaluated_users": {"while_training": len(ranked_rows), "at_the_end": len(rows.validation)},
        "split": rows.split,
        "data": {"source": data.source, "train_fingerprint": rows.fingerprint},
        "seed": training.seed,
        "versions": versions(),
        "schedule": schedule_facts(trainer),
        **run_facts(data, training, rows.sizes, trainer.state.log_history),
        **(extra or {}),
    }
    is_first = trainer.is_world_process_zero()
    del trainer  # the moments of a million items take as much as the baselines of the test
    gc.collect()
    if is_first:
        tested = rows.test(best)
        results["test"] = tested.results()
        with sealed_files(Path(training.output_dir)) as draft:
            tested.user_ranks().save(draft / RANKS_FILE)
            write_json(draft / "all_results.json", results)
    return results


@dataclass(frozen=True)
class FitRows:
    """What the Trainer gets.

    Args:
        train: Rows of `to_sequences`, or [`StreamedBatches`].
        validation: Rows of `to_evaluation_sequences`; None where nothing is held out.
        compute_metrics: In place of the ranking metrics of one log.
    """

    train: Any
    validation: Any = None
    compute_metrics: Callable[[Any], dict[str, float]] | None = None


def fit(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    rows: FitRows,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    updates: Updates = STOCK_UPDATES,
    final: bool = False,
) -> tuple[Trainer, dict[str, float]]:
    """Train, from the last checkpoint in the output folder where there is one; the trainer and its metrics.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        rows: What the Trainer gets.
        data: How sequences are made.
        training: Arguments of the `Trainer`.
        updates: Callbacks and optimiser.
        final: As that of `check_output_folder`.
    """
    checkpoint = check_output_folder(training, final=final)
    optimizer = updates.optimizer
    if training.rowwise_embeddings:
        if optimizer is not None or any(isinstance(callback, L2SPCallback) for callback in updates.callbacks):
            raise ValueError(
                "`--rowwise_embeddings` goes with neither L2-SP, which pulls every row, nor `--layerwise_lr_decay`."
            )
        optimizer = rowwise_optimizer(model, training)
    trainer = build_trainer(
        model,
        tokenizer,
        rows.train,
        rows.validation,
        data=data,
        training=training,
        callbacks=updates.callbacks,
        optimizer=optimizer,
    )
    trainer.compute_metrics = rows.compute_metrics or trainer.compute_metrics
    resume = training.resume_from_checkpoint or checkpoint
    # User ids of an earlier test: the Trainer's own pushes take everything that lies in the folder.
    (Path(training.output_dir) / RANKS_FILE).unlink(missing_ok=True)
    if training.time_budget is not None:
        plan_steps(trainer, parse_duration(training.time_budget), resume)
    return trainer, train(trainer, resume)


def whole_model(trainer: Trainer) -> PreTrainedModel:
    """The trained model; of weights that are sharded over processes (FSDP, ZeRO-3) the first gets a copy of all.

    Every process must call it: gathering is a matter of all of them.
    """
    model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return model
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return model
    whole = type(model)(model.config)
    whole.load_state_dict(weights)
    torch.nn.Module.to(whole, trainer.args.device)
    return whole


def save_checkpoint(model: PreTrainedModel, tokenizer: ItemTokenizer, folder: Path) -> None:
    """Save model and tokenizer into `folder`, whole or not at all.

    Raises:
        OSError: They could not be written.
    """
    try:
        with whole_files(folder) as draft:
            # Not `trainer.save_model`, which pickles the training arguments into the folder.
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            seal(draft)
    except Exception as error:  # safetensors and tokenizers each have an error of their own for a full disk
        remedy = "Free disk space and run the same command again."
        raise OSError(f"The checkpoint could not be written into {folder}: {error}. {remedy}") from error
