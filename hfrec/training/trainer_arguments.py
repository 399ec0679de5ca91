"""`TrainingArguments` of transformers with hfrec's flags and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its list
from transformers import TrainingArguments

from .arguments import TrainingFlags
from .cpu import warn_of_slow_bf16
from .durations import parse_duration


@dataclass
class RecommenderTrainingArguments(TrainingFlags, TrainingArguments):  # type: ignore[misc]  # narrower types
    """`TrainingArguments` with the defaults of a recommender; everything else is the parent's.

    Differs from the parent: learning rate 1e-3, batches of 128 and 256, 100 epochs with evaluation and a checkpoint
    after each, best checkpoint by `ndcg@10`, two checkpoints kept, labels that carry the seen items, losses
    that are NaN or infinite are logged as they are, and `--report_to` takes several names.

    Raises:
        ValueError: A value out of range.
    """

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
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are NaN or infinite."})

    def __post_init__(self) -> None:
        for name in ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}.")
        for name in ("learning_rate", "early_stopping_patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, found {getattr(self, name)}.")
        if self.eval_users is not None and self.eval_users < 1:
            raise ValueError(f"`eval_users` must be at least 1, found {self.eval_users}.")
        if self.time_budget is not None:
            parse_duration(self.time_budget)
            for name in ("num_train_epochs", "max_steps"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"`--time_budget` and `--{name}` are both given: leave one of them out.")
        if self.hub_model_id is not None:
            validate_repo_id(self.hub_model_id)  # it stands in the card, whether or not the run is pushed
        super().__post_init__()  # type: ignore[no-untyped-call]
        if self.bf16 and self.device.type == "cpu" and self.process_index == 0:
            warn_of_slow_bf16()
