"""The flags of the commands that train. Nothing heavy is imported here: help must not wait for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..data.arguments import LogArguments
from ..data.columns import CONTENT_COLUMNS, content_columns
from ..models.loss_names import LossName
from .durations import parse_duration

NewItemStart = Literal["cooccurrence", "random"]


@dataclass
class DataArguments(LogArguments):
    """Where the log comes from and how it becomes sequences."""

    words: ClassVar[tuple[str, ...]] = ("train_file",)

    content_columns: list[str] = field(default_factory=list, metadata=CONTENT_COLUMNS)
    max_length: int | None = field(
        default=None, metadata={"help": "Newest tokens the model reads. Default: 100, or the checkpoint's."}
    )
    windows: Literal["newest", "overlapping"] = field(
        default="overlapping", metadata={"help": "Longer histories: only their newest part, or overlapping windows."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read `--train_file`, a folder of prepared sequences, piece by piece."}
    )
    shuffle_buffer_size: int = field(default=65_536, metadata={"help": "Rows shuffled at a time under streaming."})
    mlm_probability: float = field(default=0.2, metadata={"help": "Share of items to predict (masked objective)."})
    mask_last_probability: float = field(
        default=0.1, metadata={"help": "Share of rows with only the newest item masked (masked objective)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        content_columns(self.content_columns)
        if self.streaming and self.train_file is None:
            raise ValueError(
                "`streaming` needs `--train_file`: prepare the log with `hfrec prepare --layout sequences`."
            )
        if self.streaming and (self.min_user_interactions, self.min_item_interactions, self.duplicates) != (
            1,
            1,
            "keep",
        ):
            raise ValueError("`streaming` takes prepared sequences as they are: filter in `hfrec prepare`.")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"`max_length` must be at least 2, found {self.max_length}.")


@dataclass
class ModelArguments:
    """A new model; all fields but `objective` and `item_start` are those of `Bert4RecConfig`."""

    objective: Literal["masked", "causal"] = field(
        default="masked", metadata={"help": "Masked items (BERT4Rec) or the next item everywhere (SASRec)."}
    )
    item_start: Literal["svd", "random"] = field(
        default="svd",
        metadata={"help": "svd: the model starts as a recommender by co-occurrence; random: as BERT does."},
    )
    hidden_size: int = field(default=64, metadata={"help": "Width of the layers."})
    embedding_size: int | None = field(default=None, metadata={"help": "Width of the item embeddings (factorised)."})
    item_representation: Literal["id", "content", "content+id"] = field(
        default="id",
        metadata={
            "help": "What an item is: an embedding of its own; its content (--text_column, --category_column, …), "
            "which fits other catalogues too; or that plus a residual of its own."
        },
    )
    content_rank: int = field(default=256, metadata={"help": "Main axes of each block of content that are kept."})
    content_adapter: Literal["none", "linear"] = field(
        default="none", metadata={"help": "What is learnt between whitened content and item embeddings."}
    )
    content_similarity: Literal["cosine", "dot"] = field(
        default="cosine", metadata={"help": "Whether embeddings by content are brought to length 1."}
    )
    num_hidden_layers: int = field(default=2, metadata={"help": "Layers."})
    num_attention_heads: int = field(default=2, metadata={"help": "Heads of a layer."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Feed-forward width; 4 x hidden_size."})
    hidden_act: str = field(default="gelu", metadata={"help": "Activation."})
    gated_mlp: bool = field(default=False, metadata={"help": "Gated feed-forward part."})
    norm_position: Literal["pre", "post"] = field(default="pre", metadata={"help": "Norm before or after a block."})
    position_embedding_type: Literal["absolute", "rotary", "none"] = field(
        default="absolute", metadata={"help": "Positions, counted from the newest item."}
    )
    hidden_dropout_prob: float = field(default=0.2, metadata={"help": "Dropout on embeddings and blocks."})
    attention_probs_dropout_prob: float = field(default=0.0, metadata={"help": "Dropout on attention weights."})
    head_transform: bool | None = field(
        default=None,
        metadata={
            "help": "Dense layer and norm before the item scores, as BERT has; left out, masked models of ids do."
        },
    )
    loss: LossName = field(
        default="chunked", metadata={"help": "Training loss; chunked is full in less memory and time."}
    )
    loss_chunk_size: int = field(default=1_048_576, metadata={"help": "Scores held at a time by the chunked loss."})
    loss_candidates: Literal["all", "unseen"] = field(
        default="all",
        metadata={"help": "What competes with a target: all items, or those not in the history."},
    )
    num_negatives: int = field(
        default=1024, metadata={"help": "Negatives that a batch shares (sampled_softmax, gbce)."}
    )
    num_hard_negatives: int = field(
        default=0,
        metadata={"help": "Items that score highest for alike positions, beside those drawn (sampled_softmax, ids)."},
    )
    negative_sampling: Literal["uniform", "log_uniform", "in_batch", "mixed"] = field(
        default="uniform", metadata={"help": "How negatives are drawn; their frequency is corrected for."}
    )
    gbce_t: float = field(default=0.75, metadata={"help": "Calibration of gbce, from 0 to 1."})

    def __post_init__(self) -> None:
        if self.head_transform is None:
            self.head_transform = self.objective == "masked" and self.item_representation == "id"

    def shape(self) -> dict[str, Any]:
        """The fields of `Bert4RecConfig`."""
        own = ("objective", "item_start", "inputs")
        return {name: value for name, value in vars(self).items() if name not in own}


@dataclass
class NewModelArguments(ModelArguments):
    """A new model of a log, which may say more of an interaction than its item."""

    inputs: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What the model reads of an interaction beside its item: time_gap, and columns of the log with "
            "categories, such as rating."
        },
    )


@dataclass
class RecipeArguments:
    """How the settings that no flag gives are chosen."""

    recipe: Literal["fast", "balanced", "best", "none"] = field(
        default="balanced",
        metadata={
            "help": "Settings from the log's statistics, for minutes, up to an hour or hours on one core; none: the "
            "defaults of the flags."
        },
    )


@dataclass
class FinetuneArguments:
    """Where fine-tuning starts from, what is frozen and how it is held to its start."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path",)

    model_name_or_path: str = field(metadata={"help": "Pretrained checkpoint: a folder or a hub id."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    encoder: str | None = field(
        default=None, metadata={"help": "Where the checkpoint's text encoder lies on this machine (with --items_file)."}
    )
    items_without_row: Literal["error", "drop"] = field(
        default="error",
        metadata={"help": "What becomes of interactions with items that --items_file lacks, where it is adopted."},
    )
    new_item_start: NewItemStart = field(
        default="cooccurrence",
        metadata={
            "help": "Items that the checkpoint does not know start beside those they go together with in the log."
        },
    )
    inputs: list[str] = field(
        default_factory=list,
        metadata={"help": "What the model is to read beside what the checkpoint does, as in `hfrec pretrain`."},
    )
    l2sp_alpha: float = field(default=0.0, metadata={"help": "Strength of L2-SP on pretrained weights; 0 is off."})
    l2sp_beta: float = field(default=0.0, metadata={"help": "Strength of the decay of new weights under L2-SP."})
    l2sp_residual: float = field(
        default=0.0,
        metadata={
            "help": "Strength of L2-SP's pull of the items' residuals (`--item_representation content+id`): to those "
            "of the checkpoint, and to zero for new items."
        },
    )
    l2sp_mode: Literal["coupled", "decoupled"] = field(
        default="coupled", metadata={"help": "Gradient of the penalty, or a pull beside the adaptive gradient."}
    )
    freeze: str = field(default="none", metadata={"help": "none, embeddings, backbone or layers:N."})
    unfreeze_every_steps: int | None = field(
        default=None, metadata={"help": "Gradual unfreezing: one more layer, from the top, every so many steps."}
    )
    layerwise_lr_decay: float | None = field(
        default=None, metadata={"help": "Factor on the learning rate for each layer further down."}
    )


@dataclass
class CardArguments:
    """What the model card says that no run can measure."""

    license: str | None = field(
        default=None, metadata={"help": "Licence of the weights, by its name on the hub, such as apache-2.0."}
    )


@dataclass
class TrainingFlags:
    """How long and how it trains; `--help_all` lists all that `TrainingArguments` of transformers takes besides.

    Where a command names this class, `RecommenderTrainingArguments` is what is filled.
    """

    output_dir: str = field(default="outputs/run", metadata={"help": "New or empty folder of the checkpoint."})
    num_train_epochs: float = field(default=100.0, metadata={"help": "Epochs at most, evaluated after each."})
    max_steps: int = field(default=-1, metadata={"help": "Optimiser steps in place of epochs."})
    early_stopping_patience: int = field(
        default=10, metadata={"help": "Evaluations without a better metric before training stops; 0 never stops."}
    )
    time_budget: str | None = field(
        default=None,
        metadata={"help": "Train as well as can be in this time, such as 90s, 15m or 1h30m; it decides the steps."},
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "Highest learning rate of AdamW."})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "Rows of a training step."})
    per_device_eval_batch_size: int = field(
        default=256, metadata={"help": "Users scored at a time; fewer above 260,000 items, for the memory."}
    )
    eval_users: int | None = field(
        default=None,
        metadata={
            "help": "Users ranked at each evaluation while training. Default: all, or a fixed random sample where all "
            "would take above a tenth of the training time; the last evaluation ranks all."
        },
    )
    seed: int = field(default=42, metadata={"help": "Seed of weights, masks, dropout and order."})
    save_on_exit: bool = field(
        default=False,
        metadata={"help": "On SIGTERM (pre-emption) and Ctrl-C, first write a checkpoint to go on from."},
    )
    rowwise_embeddings: bool = field(
        default=False,
        metadata={"help": "Adam on the touched rows of the item table only (sampled losses, one process)."},
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of the model, such as sdpa or eager; flash_attention_2 (a GPU, `--bf16 true`) takes "
            "histories without padding."
        },
    )
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "Trackers, such as tensorboard and trackio."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Push the checkpoint when it is finished."})
    hub_model_id: str | None = field(default=None, metadata={"help": "namespace/name on the hub (--push_to_hub)."})


@dataclass
class TaskArguments:
    """What fine-tuning is for: recommendation, or a label of each user."""

    task: Literal["recommendation", "classification"] = field(
        default="recommendation", metadata={"help": "Items, or a class for each user by a new head."}
    )
    label_file: str | None = field(default=None, metadata={"help": "Table with a row for each user (classification)."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the class (classification)."})
    cross_validate: bool = field(
        default=False,
        metadata={
            "help": "Train no checkpoint: measure heads over folds of the users, beside baselines (classification)."
        },
    )
    folds: int = field(default=5, metadata={"help": "Folds of --cross_validate."})

    def __post_init__(self) -> None:
        if self.task == "classification" and not (self.label_file and self.label_column):
            raise ValueError("`--task classification` needs `--label_file` and `--label_column`.")
        if self.cross_validate and self.task != "classification":
            raise ValueError("`cross_validate` is for `--task classification`: leave it out, or give that task too.")
        if self.folds < 2:
            raise ValueError(f"`folds` must be at least 2, found {self.folds}.")


@dataclass
class FinalArguments:
    """Whether the checkpoint is that of the validation run, or is trained again on everything."""

    final: bool = field(
        default=False,
        metadata={
            "help": "Train the model to ship: a run with held-out items, kept in OUTPUT_DIR/validation, chooses how "
            "long; then the same start is trained as long on all rows and all items."
        },
    )


@dataclass
class RefreshFinetuneArguments(FinetuneArguments):
    """`FinetuneArguments` with L2-SP switched on."""

    l2sp_alpha: float = field(default=1.0, metadata={"help": "Strength of L2-SP on pretrained weights; 0 is off."})
    l2sp_mode: Literal["coupled", "decoupled"] = field(
        default="decoupled", metadata={"help": "Gradient of the penalty, or a pull beside the adaptive gradient."}
    )


def _trials_at_a_time() -> int:
    """One on a GPU, which trials would share; else one a core."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


@dataclass
class TuneArguments:
    """How much is tried; every flag of `hfrec pretrain` that is given stays fixed."""

    n_trials: int = field(default=20, metadata={"help": "Trials in all, those of earlier commands included."})
    timeout: str | None = field(
        default=None, metadata={"help": "No trial starts after this time, such as 30m or 2h; those begun end."}
    )
    n_jobs: int = field(
        default_factory=_trials_at_a_time,
        metadata={"help": "Trials at a time, each a process with its share of the threads. Default: one a core."},
    )
    trial_steps: int | None = field(
        default=None, metadata={"help": "Steps of a trial, where the recipe's are too many."}
    )

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_jobs", "trial_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        if self.timeout is not None:
            parse_duration(self.timeout, "timeout")
