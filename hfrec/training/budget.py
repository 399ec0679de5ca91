"""A time budget: how many steps fit into it, an end when it is over, and what more time would bring."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    IntervalStrategy,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

_TRIED_STEPS = 8  # timed after one that warms up
_TRIED_USERS = 512  # ranked for the time of an evaluation
EVALUATIONS = 20  # of a run that is not stopped early
_RESERVE = 0.9  # of the budget is planned for; the rest is for loading, saving and the test


def plan_steps(trainer: Trainer, seconds: float, checkpoint: str | None) -> None:
    """Set the steps, the warm-up and the evaluations of a run that may take so long, and its end when time is over.

    Some steps are tried on a copy of the model. A run that resumes keeps the plan of its checkpoint.

    Args:
        trainer: Holds model, rows, collator and arguments; the latter are changed.
        seconds: The time.
        checkpoint: Folder that the run resumes from.
    """
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        steps, every = state.max_steps, int(state.eval_steps)
    else:
        an_evaluation = _seconds_an_evaluation(trainer)
        evaluations = int(min(EVALUATIONS, max(_RESERVE * seconds / (3 * an_evaluation), 1)))
        steps = max(int((_RESERVE * seconds - evaluations * an_evaluation) / _seconds_a_step(trainer)), 1)
        every = -(-steps // evaluations)
        print(f"{seconds:,.0f} seconds: about {steps:,} steps and {evaluations} evaluations.")
    arguments = trainer.args
    arguments.max_steps, arguments.warmup_steps = steps, steps // 20
    arguments.eval_strategy = arguments.save_strategy = arguments.logging_strategy = IntervalStrategy.STEPS
    arguments.eval_steps = arguments.save_steps = arguments.logging_steps = every
    trainer.add_callback(TimeBudgetCallback(seconds))


def _seconds_a_step(trainer: Trainer) -> float:
    model: PreTrainedModel = copy.deepcopy(trainer.model)  # type: ignore[assignment]  # a Trainer has a model
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    batches = iter(trainer.get_train_dataloader())
    times = []
    for _ in range(_TRIED_STEPS + 1):
        batch = next(batches, None)
        if batch is None:
            break
        started = time.perf_counter()
        for _ in range(trainer.args.gradient_accumulation_steps):
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    tried = sorted(times[1:] or times)
    return tried[len(tried) // 2]


def _seconds_an_evaluation(trainer: Trainer) -> float:
    rows: Any = trainer.eval_dataset
    sample = rows.select(range(min(_TRIED_USERS, len(rows))))
    started = time.perf_counter()
    trainer.predict(sample)
    return (time.perf_counter() - started) * len(rows) / len(sample)


class TimeBudgetCallback(TrainerCallback):
    """Ends training when its time is over, with an evaluation and a checkpoint of what there is.

    Args:
        seconds: The time, from the beginning of training.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if time.perf_counter() - self._started > self.seconds:
            control.should_evaluate = control.should_save = control.should_training_stop = True


def what_more_would_bring(log_history: Sequence[dict[str, Any]], metric: str) -> str:
    """One sentence on whether the metric was still rising when training ended.

    Args:
        log_history: Of the Trainer's state.
        metric: Such as `eval_ndcg@10`.

    Example:
        >>> history = [{"step": step, "eval_ndcg@10": value} for step, value in enumerate([0.1, 0.15, 0.16, 0.165])]
        >>> what_more_would_bring(history, "eval_ndcg@10")
        'ndcg@10 on validation was still rising (+0.0050 in the last quarter): more steps may bring more.'
    """
    name = metric.removeprefix("eval_")
    curve = [(entry["step"], entry[metric]) for entry in log_history if metric in entry]
    if len(curve) < 4:
        return f"Too few evaluations to say whether {name} on validation was still rising."
    quarter = -(-len(curve) // 4)
    before, best = max(value for _, value in curve[:-quarter]), max(value for _, value in curve)
    if best > 1.01 * before:
        gain = best - before
        return f"{name} on validation was still rising (+{gain:.4f} in the last quarter): more steps may bring more."
    step = next(step for step, value in curve if value == best)
    return f"{name} on validation was level: its best, {best:.4f}, was at step {step:,} of {curve[-1][0]:,}."
