"""The dataclasses behind `hfrec pretrain` and `hfrec finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from .budget import parse_duration

NewItemStart = Literal["cooccurrence", "random"]


@dataclass
class DataArguments:
    """Where the log comes from and how it becomes sequences."""

    train_file: str | None = field(default=None, metadata={"help": "File, folder or glob of the interaction log."})
    dataset: str | None = field(default=None, metadata={"help": "ml-100k, ml-1m, synthetic or a hub id."})
    items_file: str | None = field(default=None, metadata={"help": "Item metadata (title, …) by item id."})
    user_column: str = field(default="user_id", metadata={"help": "Column of the user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    timestamp_column: str = field(default="timestamp", metadata={"help": "Column of the times."})
    min_user_interactions: int = field(default=1, metadata={"help": "Users with fewer are dropped (k-core)."})
    min_item_interactions: int = field(default=1, metadata={"help": "Items with fewer are dropped (k-core)."})
    duplicates: Literal["keep", "first", "last", "consecutive"] = field(
        default="keep", metadata={"help": "What becomes of repeated (user, item) pairs."}
    )
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
        if (self.train_file is None) == (self.dataset is None):
            raise ValueError("Expected exactly one of `--train_file` and `--dataset`.")
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

    @property
    def source(self) -> str:
        """The file or the name of the data set."""
        return self.train_file or self.dataset or ""


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
            "help": "What an item is: an embedding of its own; its content (--encoder, --category_column, …) under an "
            "adapter, which fits other catalogues too; or that plus a residual of its own."
        },
    )
    content_rank: int = field(default=256, metadata={"help": "Main axes of each block of content that are kept."})
    content_adapter: Literal["linear", "whitening", "mlp", "moe"] = field(
        default="linear", metadata={"help": "What is learnt between whitened content and item embeddings."}
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
    loss: Literal["full", "chunked", "sampled_softmax", "gbce"] = field(
        default="chunked", metadata={"help": "Training loss; chunked is full in less memory and time."}
    )
    loss_chunk_size: int = field(default=1_048_576, metadata={"help": "Scores held at a time by the chunked loss."})
    num_negatives: int = field(
        default=1024, metadata={"help": "Negatives that a batch shares (sampled_softmax, gbce)."}
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
        return {name: value for name, value in vars(self).items() if name not in ("objective", "item_start")}


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

    model_name_or_path: str = field(metadata={"help": "Pretrained checkpoint: a folder or a hub id."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    content_encoder: str | None = field(
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
    l2sp_alpha: float = field(default=0.0, metadata={"help": "Strength of L2-SP on pretrained weights; 0 is off."})
    l2sp_beta: float = field(default=0.0, metadata={"help": "Strength of the decay of new weights under L2-SP."})
    l2sp_residual: float = field(
        default=0.0,
        metadata={
            "help": "Strength of L2-SP's pull of the items' residuals to zero (`--item_representation content+id`)."
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
class RecommenderTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults of a recommender; everything else is the parent's.

    Differs from the parent: learning rate 1e-3, batches of 128 and 256, 100 epochs with evaluation and a checkpoint
    after each, best checkpoint by `ndcg@10`, two checkpoints kept, labels that carry the seen items, losses
    that are no numbers are logged as they are, and `--report_to` takes several names.

    Raises:
        ValueError: A value out of range.
    """

    output_dir: str = field(default="outputs/run", metadata={"help": "New or empty folder of the checkpoint."})
    learning_rate: float = 1e-3
    per_device_train_batch_size: int = 128
    per_device_eval_batch_size: int = 256
    num_train_epochs: float = 100.0
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "ndcg@10"
    greater_is_better: bool | None = True
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Pinned host memory; useful with a GPU only."}
    )
    label_names: list[str] | None = field(default_factory=lambda: ["labels", "seen_ids"])
    early_stopping_patience: int = field(
        default=10, metadata={"help": "Evaluations without a better metric before training stops; 0 never stops."}
    )
    time_budget: str | None = field(
        default=None,
        metadata={"help": "Train as well as can be in this time, such as 90s, 15m or 1h30m; it decides the steps."},
    )
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
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are no numbers."})
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "Trackers, such as tensorboard and trackio."}
    )

    def __post_init__(self) -> None:
        for name in ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}.")
        for name in ("learning_rate", "early_stopping_patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, found {getattr(self, name)}.")
        if self.time_budget is not None:
            parse_duration(self.time_budget)
            for name in ("num_train_epochs", "max_steps"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"`--time_budget` and `--{name}` are both given: leave one of them out.")
        super().__post_init__()  # type: ignore[no-untyped-call]
