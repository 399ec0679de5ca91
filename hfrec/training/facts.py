"""What a run was: settings, hyper-parameters, sizes and the distance that L2-SP kept, for results and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import Trainer

from ..data.interactions import Interactions
from .arguments import DataArguments
from .trainer_arguments import RecommenderTrainingArguments

HYPERPARAMETERS = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "label_smoothing_factor",
    "max_grad_norm",
    "warmup_steps",
    "lr_scheduler_type",
    "optim",
    "bf16",
    "fp16",
    "seed",
    "early_stopping_patience",
    "metric_for_best_model",
)


def run_facts(
    data: DataArguments,
    training: RecommenderTrainingArguments,
    sizes: dict[str, Any],
    log_history: Sequence[dict[str, float]],
) -> dict[str, Any]:
    """What `all_results.json` says about a run beside its metrics.

    Args:
        data: How the log was read and made into sequences.
        training: Arguments of the `Trainer`.
        sizes: Of the training part, as `log_sizes` gives them.
        log_history: Of the Trainer's state.

    Returns:
        `settings`, `hyperparameters`, `sizes` of the training part, and `l2sp`: penalty and distance of each block when
        they were logged last.
    """
    values = {name: getattr(training, name) for name in HYPERPARAMETERS}
    values = {name: getattr(value, "value", value) for name, value in values.items()}  # enumerations by their name
    logged = [entry for entry in log_history if "l2sp_penalty" in entry]
    last = logged[-1] if logged else {}
    return {
        "settings": vars(data),
        "hyperparameters": {**values, "world_size": training.world_size},
        "sizes": sizes,
        "l2sp": {name: value for name, value in last.items() if name.startswith("l2sp_") or name == "step"},
    }


def log_sizes(train: Interactions) -> dict[str, Any]:
    """Users, items and interactions that are trained on, and what reading the log dropped."""
    return {
        "users": train.num_users,
        "items": train.num_items,
        "interactions": len(train),
        "log": train.report.to_dict(),
    }


def schedule_facts(trainer: Trainer) -> dict[str, Any]:
    """How long a run was planned, and when it was best: what a run on all rows is trained by."""
    state = trainer.state
    best = state.best_global_step or state.global_step
    epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == best and "epoch" in entry]
    metric = (trainer.args.metric_for_best_model or "loss").removeprefix("eval_")
    return {
        "max_steps": state.max_steps,
        "best_step": best,
        "best_epoch": epochs[0] if epochs else float(state.epoch or 0.0),
        "metric": metric,
        "best_value": state.best_metric,
    }
