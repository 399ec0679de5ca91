"""A run that goes on from a checkpoint stops where the uninterrupted one would have stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalPrediction

from ..data.files import SEAL_FILE, fault_of
from ..evaluation.ranking import make_compute_metrics
from .checkpoints import no_half_checkpoint
from .l2sp import L2SPCallback


class EarlyStopping(EarlyStoppingCallback):
    """The parent, which goes on counting from the checkpoint of a resumed run.

    It acts in `on_evaluate`; `on_train_begin` takes the counter out of `trainer_state.json`. The Trainer can restore
    states of callbacks too, but puts the restored ones behind all others, where L2-SP must not stand.

    Example:
        >>> EarlyStopping(early_stopping_patience=3).state()["attributes"]
        {'early_stopping_patience_counter': 0}
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restores the counter."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        name = type(self).__name__
        callbacks: Any = state.stateful_callbacks
        saved = callbacks.setdefault(name, self.state())
        saved = saved[-1] if isinstance(saved, list) else saved
        self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class _Ended(Exception):
    """The checkpoint is that of a run's last step."""


class _EndCallback(TrainerCallback):
    """Keeps a resumed run from training a step more than the uninterrupted one; it must stand behind all others."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finds the best checkpoint also after the folder was moved, and ends a run whose last step is done."""
        best = f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        if args.load_best_model_at_end and state.best_global_step:
            folder = Path(args.output_dir or ".") / best
            fault = fault_of(folder)
            if fault is None:
                state.best_model_checkpoint = str(folder)
            elif args.resume_from_checkpoint is None:
                raise ValueError(
                    f"`output_dir` {args.output_dir}: the best checkpoint of this run so far, {best}, cannot be used: "
                    f"{fault}. Copy it again, or start anew in another folder."
                )
        if state.global_step and (control.should_training_stop or state.global_step >= state.max_steps):
            raise _Ended


def check_best_metric(training: TrainingArguments) -> None:
    """Refuse a metric for the best checkpoint that no evaluation gives, or that would choose the worst.

    Raises:
        ValueError: With the metrics that there are.
    """
    name = (training.metric_for_best_model or "loss").removeprefix("eval_")
    known = ["loss", *make_compute_metrics()(EvalPrediction(np.ones((1, 2), dtype=np.int64), np.ones(1)))]
    if name not in known:
        raise ValueError(f"`metric_for_best_model` {name!r} is unknown, expected one of {', '.join(known)}.")
    if (name == "loss") == bool(training.greater_is_better):
        raise ValueError(
            f"`greater_is_better` {training.greater_is_better} with `metric_for_best_model` {name} would keep the "
            f"worst checkpoint: set `--greater_is_better {str(name != 'loss').lower()}`."
        )


def _log_end(trainer: Trainer) -> None:
    """Measure L2-SP at the last step, as the uninterrupted run did after it had written its last checkpoint."""
    state = trainer.state
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, L2SPCallback):
            state.log_history.append({**callback.penalty(), "epoch": state.epoch or 0.0, "step": state.global_step})


def train(trainer: Trainer, checkpoint: str | None) -> dict[str, float]:
    """Train from the start or from a checkpoint; returns the metrics of the Trainer.

    Args:
        trainer: What trains.
        checkpoint: Folder of a checkpoint, or None. From that of the last step, nothing more is trained.

    Raises:
        ValueError: The checkpoint is damaged, or the best one of a run that goes on is missing or damaged.
        OSError: A checkpoint could not be written.
    """
    if checkpoint is not None and (Path(checkpoint) / SEAL_FILE).is_file() and (fault := fault_of(Path(checkpoint))):
        raise ValueError(f"`resume_from_checkpoint` {checkpoint} cannot be used: {fault}. Take another one.")
    trainer.add_callback(_EndCallback())
    with no_half_checkpoint(trainer):
        try:
            metrics: dict[str, float] = trainer.train(resume_from_checkpoint=checkpoint).metrics
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ValueError(
                f"the checkpoint {checkpoint} is of a model of another shape: give its settings. {error}"
            ) from error
        except _Ended:
            _log_end(trainer)
            if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
                trainer._load_best_model()
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            done = trainer.state
            metrics = {"train_runtime": 0.0, "epoch": float(done.epoch or 0.0), "total_flos": done.total_flos}
    if checkpoint is not None:
        metrics.pop("train_loss", None)  # the Trainer has that of the steps since the checkpoint only
    return metrics
