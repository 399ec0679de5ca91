"""The model that is shipped: trained on all rows and items, for as long as the validation run was best."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..data.collators import objective_of
from ..data.files import VALIDATION_FOLDER, read_json_object, sealed_files, write_json
from ..data.inputs import inputs_of
from ..data.interactions import Interactions
from ..data.locks import locked_folder
from ..evaluation.protocol import versions
from ..tokenization import ItemTokenizer
from .arguments import DataArguments
from .facts import log_sizes, run_facts
from .rows import training_sequences
from .run import FitRows, fit, save_checkpoint, whole_model
from .trainer_arguments import RecommenderTrainingArguments
from .updates import STOCK_UPDATES, Updates

ALL_ROWS = "all_rows"  # the strategy of a split that holds nothing out


@dataclass(frozen=True)
class Chosen:
    """How long a validation run trained until it was best.

    Args:
        epochs: Until its best checkpoint, in passes over its own rows.
        of_epochs: That its learning rate was planned for.
        step: The same as `epochs` in its own steps.
        metric: What it was best by.
        value: Of that metric.
    """

    epochs: float
    of_epochs: float
    step: int
    metric: str
    value: float | None

    def __str__(self) -> str:
        value = "" if self.value is None else f" ({self.metric} {self.value:.4f} on validation)"
        return f"{self.epochs:g} of {self.of_epochs:g} epochs{value}"


def chosen_length(schedule: Mapping[str, Any]) -> Chosen:
    """What a validation run chose, from the `schedule` of its results.

    Example:
        >>> schedule = {"best_step": 30, "best_epoch": 3.0, "max_steps": 100, "metric": "ndcg@10", "best_value": 0.1}
        >>> str(chosen_length(schedule))
        '3 of 10 epochs (ndcg@10 0.1000 on validation)'
    """
    step, epochs = schedule["best_step"], schedule["best_epoch"]
    planned = epochs * schedule["max_steps"] / step
    return Chosen(epochs, planned, step, schedule["metric"], schedule["best_value"])


class StopAfterEpochs(TrainerCallback):
    """Ends a run after some epochs of the many that its learning rate is planned for, with a checkpoint.

    It acts in `on_step_end`, and in `on_train_begin` on a run that resumes from its last checkpoint.

    Args:
        epochs: Passes over the rows; the first step that is not before them is the last.
    """

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step and self._is_over(state):
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._is_over(state):
            control.should_training_stop = control.should_save = True

    def _is_over(self, state: TrainerState) -> bool:
        return (state.epoch or 0.0) >= self.epochs - 1e-6  # an epoch is a sum of fractions


def check_final(data: DataArguments, training: RecommenderTrainingArguments) -> None:
    """Refuse what cannot be trained on all rows.

    Raises:
        ValueError: Prepared sequences, or a checkpoint to resume from.
    """
    if data.streaming:
        raise ValueError(
            "`--final true` is not for `--streaming true`: prepared sequences leave each user's last two items out. "
            "Give the log itself as `--train_file` without `--streaming`."
        )
    if training.resume_from_checkpoint is not None:
        raise ValueError(
            "`--final true` trains twice and finds its own checkpoints: leave out `--resume_from_checkpoint` and give "
            "the same command again."
        )


def validation_arguments(training: RecommenderTrainingArguments) -> RecommenderTrainingArguments:
    """The arguments of the run that chooses; it lies in a folder of its own and pushes nothing."""
    arguments = copy.copy(training)
    arguments.output_dir = str(Path(training.output_dir) / VALIDATION_FOLDER)
    arguments.push_to_hub = False
    return arguments


def final_arguments(training: RecommenderTrainingArguments, chosen: Chosen) -> RecommenderTrainingArguments:
    """The arguments of the run on all rows: the schedule of the one that chose, and nothing to evaluate on."""
    arguments = copy.copy(training)
    arguments.num_train_epochs, arguments.max_steps = chosen.of_epochs, -1
    arguments.time_budget = None
    arguments.eval_strategy = IntervalStrategy.NO
    arguments.load_best_model_at_end = arguments.push_to_hub = False
    if arguments.save_strategy == SaveStrategy.BEST:
        arguments.save_strategy = SaveStrategy.EPOCH
    return arguments


def finished_validation(training: RecommenderTrainingArguments) -> dict[str, Any] | None:
    """Results of a validation run that is done; None of one that is to be trained, and of every other run."""
    path = Path(training.output_dir) / "all_results.json"
    done = Path(training.output_dir).name == VALIDATION_FOLDER and path.is_file()
    return read_json_object(path) if done else None


def train_finally(
    training: RecommenderTrainingArguments,
    *,
    validate: Callable[[RecommenderTrainingArguments], dict[str, Any]],
    tell: Callable[[dict[str, Any], RecommenderTrainingArguments], None],
    refit: Callable[[RecommenderTrainingArguments, Chosen, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """A validation run, unless it is done already, and the run on all rows for as long as that was best.

    Args:
        training: Arguments of the whole.
        validate: Trains and tests the run that chooses.
        tell: Writes the card of that run and prints its results.
        refit: Trains on all rows.
    """
    arguments = validation_arguments(training)
    with locked_folder(Path(arguments.output_dir)):  # which also brings to its end what a killed run began there
        results = validate(arguments)
        tell(results, arguments)
    chosen = chosen_length(results["schedule"])
    if training.process_index == 0:
        print(f"Trained again on all rows and items for as long as validation chose: {chosen}.")
    return refit(final_arguments(training, chosen), chosen, results)


@dataclass(frozen=True)
class AllRows:
    """What a model is trained on when nothing is held out.

    Args:
        log: All rows.
        sequences: Rows of `training_sequences` of it, or [`DrawnRows`] of these.
    """

    log: Interactions
    sequences: Any

    @classmethod
    def of(cls, log: Interactions, model: PreTrainedModel, tokenizer: ItemTokenizer, data: DataArguments) -> AllRows:
        """Each row of one log once an epoch."""
        length, inputs = model.config.max_position_embeddings, inputs_of(model)
        return cls(log, training_sequences(log, tokenizer, objective_of(model), data, length, inputs=inputs))


def refit_on_all(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    rows: AllRows,
    *,
    validation: dict[str, Any],
    data: DataArguments,
    training: RecommenderTrainingArguments,
    updates: Updates = STOCK_UPDATES,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on all rows for as long as was chosen, and write the checkpoint and `all_results.json`.

    The results hold no `test`: nothing is left to test these weights on. Those of the validation run stand under
    `validation_run`, as what they are.

    Args:
        model: At the start of the validation run, but with all items.
        tokenizer: Of all items.
        rows: All rows.
        validation: Results of the validation run, which say how long.
        data, training, updates, extra: As those of `train_and_evaluate`.
    """
    chosen = chosen_length(validation["schedule"])
    model.config.filter_seen = validation["seen_items"]["filter_seen"]
    log = rows.log
    updates = replace(updates, callbacks=[*updates.callbacks, StopAfterEpochs(chosen.epochs)])
    trainer, metrics = fit(
        model, tokenizer, FitRows(rows.sequences), data=data, training=training, updates=updates, final=True
    )
    results: dict[str, Any] = {
        "final": {**asdict(chosen), "steps": trainer.state.global_step},
        "train": metrics,
        "split": {"strategy": ALL_ROWS},
        "data": {"source": data.source, "train_fingerprint": log.fingerprint},
        "seed": training.seed,
        "versions": versions(),
        **run_facts(data, training, log_sizes(log), trainer.state.log_history),
        **{name: validation[name] for name in ("protocol", "seen_items") if name in validation},
        **(extra or {}),
        "validation_run": validation,
    }
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        save_checkpoint(best, tokenizer, Path(training.output_dir))
        with sealed_files(Path(training.output_dir)) as draft:
            write_json(draft / "all_results.json", results)
    return results


def final_text(results: Mapping[str, Any]) -> str:
    """The line that a run on all rows ends with."""
    sizes, steps = results["sizes"], results["final"]["steps"]
    return (
        f"Trained on all {sizes['interactions']:,} interactions and {sizes['items']:,} items in {steps:,} steps. No "
        f"test figure is of these weights: those of the same training with items held out lie in {VALIDATION_FOLDER}/."
    )
