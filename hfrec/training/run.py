"""One training run: a split log, a model and the stock `Trainer`, from the arguments of the commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.utils import logging

from ..data.collators import DataCollatorForMaskedItems, DataCollatorForNextItem, Objective, objective_of
from ..data.files import check_folder, check_new_folder, whole_files
from ..data.files import write_json as write_json
from ..data.interactions import Interactions, load_interactions
from ..data.sequences import to_sequences
from ..data.shards import SequenceShards, StreamedBatches
from ..data.splits import Split, split_facts
from ..data.temporal import ProtocolArguments, split_log
from ..evaluation.protocol import RankedTest, rank_checkpoint, rank_rows, rows_to_rank, versions
from ..evaluation.ranking import make_compute_metrics, preprocess_ranks
from ..evaluation.user_ranks import RANKS_FILE
from ..models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import ItemTokenizer
from ..transfer.features import set_item_features
from ..transfer.specification import ContentSpecification
from .arguments import DataArguments, ModelArguments, RecommenderTrainingArguments
from .budget import parse_duration, plan_steps, what_more_would_bring
from .checkpoints import SaveOnExit, SealCheckpoint, StopOnNaN, last_whole_checkpoint, only_unfinished
from .facts import run_facts, split_sizes
from .l2sp import L2SPCallback
from .pushes import PushWatchCallback, open_repository
from .resuming import EarlyStopping, check_best_metric, train
from .rowwise import rowwise_optimizer
from .seen import choose_metric
from .streaming import StreamingTrainer

logger = logging.get_logger(__name__)
DEFAULT_MAX_LENGTH = 100


@dataclass
class TrainAndEvaluateCollator:
    """Sends rows with a `target` to the evaluation collator and all others to the training one."""

    train: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]
    evaluation: DataCollatorForNextItem

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self.evaluation(features) if "target" in features[0] else self.train(features)


def load_log(arguments: DataArguments) -> Interactions:
    """Read the log that the arguments name."""
    if arguments.streaming:
        raise ValueError(
            "`streaming` is for `hfrec pretrain` alone: leave it out and give a log that fits into memory."
        )
    return load_interactions(
        arguments.source,
        user_column=arguments.user_column,
        item_column=arguments.item_column,
        timestamp_column=arguments.timestamp_column,
        min_user_interactions=arguments.min_user_interactions,
        min_item_interactions=arguments.min_item_interactions,
        duplicates=arguments.duplicates,
        items=arguments.items_file,
    )


def load_split(arguments: DataArguments, protocol: ProtocolArguments) -> tuple[Interactions, Split]:
    """Read the log that the arguments name and divide it by the protocol."""
    interactions = load_log(arguments)
    split = split_log(interactions, protocol)
    if len(split.validation) == 0:
        raise ValueError(
            f"`{arguments.source}` has no user with 3 interactions: nothing is left to validate on. "
            "Give a log with three or more of a user, or take `hfrec evaluate` to test on it."
        )
    logger.info(str(split.report))
    return interactions, split


def build_tokenizer(train: Interactions) -> ItemTokenizer:
    """Vocabulary of the training items, the most frequent first."""
    import pyarrow.compute as pc

    counts = {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(train.table["item_id"])}
    items = sorted(counts, key=lambda item: (-counts[item], item))
    return ItemTokenizer.from_items(items, metadata=train.items, counts=counts)


def build_model(
    arguments: ModelArguments,
    vocab_size: int,
    max_length: int,
    *,
    content: tuple[ContentSpecification, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """A new model of the objective, with the shape that the arguments give.

    Args:
        arguments: Objective and shape.
        vocab_size: Items and special tokens.
        max_length: Longest sequence.
        content: What the items are made of, and their features `(num_items, width)`, where they are made of content.
    """
    shape = arguments.shape()
    if content is not None:
        shape["item_content"] = content[0].to_dict()
    config = Bert4RecConfig(vocab_size=vocab_size, max_position_embeddings=max_length, **shape)
    model = Bert4RecForMaskedLM(config) if arguments.objective == "masked" else Bert4RecForCausalLM(config)
    if content is not None:
        set_item_features(model, content[1])
    return model


def build_collator(
    tokenizer: ItemTokenizer, objective: Objective, arguments: DataArguments, max_length: int, *, seed: int | None
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
    check_folder(folder)
    if (folder / "all_results.json").exists() and arguments.resume_from_checkpoint is None:
        raise ValueError(f"`output_dir` {folder} holds a finished run: choose another folder or remove it.")
    last = last_whole_checkpoint(folder)
    if last is None and arguments.resume_from_checkpoint is None and not only_unfinished(folder):
        check_new_folder(folder)
    return None if last is None else str(last)


@dataclass(frozen=True)
class RunRows:
    """What a run is trained and tested on, whether it lies in memory or is streamed.

    Args:
        train: Rows of `to_sequences`, or [`StreamedBatches`].
        validation: Rows of `to_evaluation_sequences`.
        split, fingerprint, sizes: What `all_results.json` says about the data.
        test: Ranks the test targets with the best checkpoint.
    """

    train: Any
    validation: Any
    split: dict[str, Any]
    fingerprint: str | None
    sizes: dict[str, Any]
    test: Callable[[PreTrainedModel], RankedTest]


def train_and_evaluate(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    rows: RunRows,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
    optimizer: torch.optim.Optimizer | None = None,
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
        callbacks: Further callbacks, such as `L2SPCallback`.
        optimizer: In place of the Trainer's own.
        extra: Written into `all_results.json`.

    Returns:
        What `all_results.json` holds.
    """
    checkpoint = check_output_folder(training)
    if training.rowwise_embeddings:
        if optimizer is not None or any(isinstance(callback, L2SPCallback) for callback in callbacks):
            raise ValueError(
                "`rowwise_embeddings` goes with neither L2-SP, which pulls every row, nor `layerwise_lr_decay`."
            )
        optimizer = rowwise_optimizer(model, training)
    trainer = build_trainer(
        model,
        tokenizer,
        rows.train,
        rows.validation,
        data=data,
        training=training,
        callbacks=callbacks,
        optimizer=optimizer,
    )
    resume = training.resume_from_checkpoint or checkpoint
    # User ids of an earlier test: the Trainer's own pushes take everything that lies in the folder.
    (Path(training.output_dir) / RANKS_FILE).unlink(missing_ok=True)
    if training.time_budget is not None:
        plan_steps(trainer, parse_duration(training.time_budget), resume)
    metrics = train(trainer, resume)
    validation = trainer.evaluate()
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        save_checkpoint(best, tokenizer, Path(training.output_dir))
    results = {
        "train": metrics,
        "validation": validation,
        "best_checkpoint": trainer.state.best_model_checkpoint,
        "what_more_would_bring": what_more_would_bring(trainer.state.log_history, "eval_ndcg@10"),
        "split": rows.split,
        "data": {"source": data.source, "train_fingerprint": rows.fingerprint},
        "seed": training.seed,
        "versions": versions(),
        **run_facts(data, training, rows.sizes, trainer.state.log_history),
        **(extra or {}),
    }
    if trainer.is_world_process_zero():
        ranked = rows.test(best)
        results["test"] = ranked.results()
        with whole_files(Path(training.output_dir)) as draft:
            ranked.user_ranks().save(draft / RANKS_FILE)
            write_json(draft / "all_results.json", results)
    return results


def split_rows(model: PreTrainedModel, tokenizer: ItemTokenizer, split: Split, data: DataArguments) -> RunRows:
    """Rows of a split in memory.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: Leave-one-out or temporal split of the log.
        data: How sequences are made.
    """
    max_length = model.config.max_position_embeddings
    return RunRows(
        train=training_sequences(split.train, tokenizer, objective_of(model), data, max_length),
        validation=rows_to_rank(model, tokenizer, split, "validation"),
        split=split_facts(split),
        fingerprint=split.train.fingerprint,
        sizes=split_sizes(split),
        test=lambda best: rank_checkpoint(best, tokenizer, split),
    )


def streamed_rows(
    shards: SequenceShards, model: PreTrainedModel, *, data: DataArguments, training: RecommenderTrainingArguments
) -> RunRows:
    """Rows of prepared shards: the training part streamed, validation and test mapped from disk.

    Args:
        shards: The prepared folder.
        model: Masked or causal model.
        data: Windows, masking probabilities and the size of the shuffled buffer.
        training: Batch size, seed and processes.
    """
    tokenizer, objective, max_length = shards.tokenizer, objective_of(model), model.config.max_position_embeddings
    train = StreamedBatches(
        shards.files("train"),
        build_collator(tokenizer, objective, data, max_length, seed=training.seed).train,
        batch_size=training.train_batch_size,
        vocab_size=len(tokenizer),
        max_length=max_length if objective == "masked" else max_length + 1,
        windows=data.windows,
        min_length=1 if objective == "masked" else 2,
        buffer_size=data.shuffle_buffer_size,
        seed=training.seed if training.data_seed is None else training.data_seed,
        process=training.process_index,
        num_processes=training.world_size,
    )
    counts = train.item_counts()
    names = ("num_users", "num_items", "num_train")
    known = dict(zip(("users", "items", "interactions"), map(shards.info.get, names), strict=True))
    return RunRows(
        train=train,
        validation=shards.targets("validation"),
        split={name: value for name, value in shards.info.items() if name.endswith("_tie_share")},
        fingerprint=shards.info.get("fingerprint"),
        sizes=known if None not in known.values() else {},
        test=lambda best: rank_rows(
            best, tokenizer, shards.targets("test"), counts, fingerprint=shards.info.get("fingerprint")
        ),
    )


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
    trainer = (StreamingTrainer if isinstance(train_dataset, StreamedBatches) else Trainer)(
        model=model,
        args=training,
        data_collator=train_and_evaluate_collator(model, tokenizer, data, training),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        compute_metrics=make_compute_metrics(),
        preprocess_logits_for_metrics=preprocess_ranks,  # type: ignore[arg-type]  # two label names give a tuple
        optimizers=(optimizer, None),
        callbacks=[*([SaveOnExit()] if training.save_on_exit else []), StopOnNaN(), SealCheckpoint()],
    )
    trainer.label_smoother = None  # it needs scores of all items, and would smooth over the special tokens too
    trainer.callback_handler.callbacks[:0] = callbacks
    if training.push_to_hub:
        trainer.add_callback(PushWatchCallback(trainer))
    return trainer


def train_and_evaluate_collator(
    model: PreTrainedModel, tokenizer: ItemTokenizer, data: DataArguments, training: RecommenderTrainingArguments
) -> TrainAndEvaluateCollator:
    """The collator of a run of a model."""
    # Unshuffled rows would have the same masks in every epoch.
    seed = None if training.train_sampling_strategy == "sequential" else training.seed
    return build_collator(tokenizer, objective_of(model), data, model.config.max_position_embeddings, seed=seed)


def prepare_model(model: PreTrainedModel, training: RecommenderTrainingArguments) -> None:
    """Settle what model and arguments must agree on: attention, the metric that decides, and label smoothing."""
    if training.attn_implementation is not None:
        model.set_attn_implementation(training.attn_implementation)
    choose_metric(training, model)
    if training.label_smoothing_factor:
        model.config.label_smoothing = training.label_smoothing_factor
        model.config.validate()


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
    except Exception as error:  # safetensors and tokenizers each have an error of their own for a full disk
        remedy = "Free disk space and run the same command again."
        raise OSError(f"The checkpoint could not be written into {folder}: {error}. {remedy}") from error


def seed_everything(training: RecommenderTrainingArguments) -> None:
    """Seed before the model is made, so that its initial weights hang on the seed too."""
    set_seed(training.seed)
