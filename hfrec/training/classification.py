"""A new head over the pretrained body, for labels of users: what it is trained on, its training, and its figures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, PrinterCallback, Trainer, set_seed

from ..data.collators import pad_newest
from ..data.interactions import Interactions
from ..data.sequences import to_sequences
from ..data.validation import read_ids
from ..models import Bert4RecForSequenceClassification
from ..tokenization import ItemTokenizer
from .arguments import FinetuneArguments, TaskArguments
from .checkpoints import SealCheckpoint, StopOnNaN
from .trainer_arguments import RecommenderTrainingArguments
from .updates import Updates

IntArray = NDArray[np.int64]


@dataclass
class DataCollatorForUsers:
    """Pads whole histories to their newest `max_length` items, with one label a user.

    Example:
        >>> batch = DataCollatorForUsers(max_length=2)([{"input_ids": [3, 4, 5], "label": 1}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[4, 5]], [1])
    """

    max_length: int

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        input_ids, attention_mask = pad_newest([feature["input_ids"] for feature in features], self.max_length)
        labels = torch.tensor([int(feature["label"]) for feature in features])
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@dataclass(frozen=True, eq=False)
class LabelledUsers:
    """Users with their classes.

    Args:
        rows: Rows of `to_sequences`, whole histories, with the number of the class as `label`.
        classes: Names of the classes, sorted.
    """

    rows: Any
    classes: list[str]

    @property
    def truth(self) -> IntArray:
        """Class of each user `(n_users,)`."""
        return np.asarray(self.rows["label"][:], dtype=np.int64)


def labelled_users(interactions: Interactions, tokenizer: ItemTokenizer, task: TaskArguments) -> LabelledUsers:
    """The users of a log with their classes; items that the checkpoint does not know are left out.

    Raises:
        ValueError: Labels that `read_labels` refuses, or of one class only.
    """
    labels = read_labels(interactions, task)
    rows = to_sequences(interactions, tokenizer, unknown="drop")
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        raise ValueError(f"`{task.label_column}` holds one class only, {classes}: nothing to tell apart.")
    return LabelledUsers(rows.add_column("label", [classes.index(labels[user]) for user in rows["user_id"]]), classes)


def read_labels(interactions: Interactions, task: TaskArguments, *, user_column: str = "user_id") -> dict[str, str]:
    """The class of each user of the log.

    Raises:
        ValueError: A missing column, a user twice, or users of the log without a label.
    """
    label_column = str(task.label_column)
    users, part = read_ids(task.label_file, user_column, name="label_file", string_columns=(label_column,))
    if label_column not in part.table.column_names:
        found = ", ".join(part.table.column_names)
        raise ValueError(f"{task.label_file}: expected the column {label_column!r} of labels, found {found}.")
    labels = dict(zip(users.to_pylist(), part.table[label_column].cast(pa.string()).to_pylist(), strict=True))
    if len(labels) != len(users):
        raise ValueError(f"{task.label_file}: expected one row for each user, found {len(users) - len(labels)} twice.")
    wanted = pc.unique(interactions.table["user_id"]).to_pylist()
    without = [user for user in wanted if labels.get(user) is None]
    if without:
        raise ValueError(
            f"{task.label_file}: {len(without)} of {len(wanted)} users have no `{task.label_column}`, first "
            f"{without[:3]}. Label them, or leave them out of the log."
        )
    return {user: labels[user] for user in wanted}


def new_classifier(start: FinetuneArguments, classes: Sequence[str], *, seed: int) -> PreTrainedModel:
    """The body of the checkpoint under a new head, whose classes stand in the config by their names."""
    set_seed(seed)
    names = dict(enumerate(classes))
    model: PreTrainedModel = Bert4RecForSequenceClassification.from_pretrained(
        start.model_name_or_path,
        revision=start.model_revision or "main",
        id2label=names,
        label2id={name: number for number, name in names.items()},
        classifier_pooling="mean",
        problem_type="single_label_classification",
    )
    return model


def classifier_trainer(
    model: PreTrainedModel,
    train_rows: Any,
    validation_rows: Any,
    *,
    training: RecommenderTrainingArguments,
    updates: Updates,
) -> Trainer:
    """The stock `Trainer` of a classifier, whose best checkpoint is that of the highest accuracy on validation.

    Args:
        model: Of `new_classifier`.
        train_rows, validation_rows: Of [`LabelledUsers`].
        training: Arguments of the `Trainer`; what a recommender is chosen by is replaced.
        updates: Callbacks and optimiser.
    """
    settings = copy.copy(training)
    settings.label_names, settings.metric_for_best_model, settings.push_to_hub = ["labels"], "accuracy", False
    trainer = Trainer(
        model=model,
        args=settings,
        data_collator=DataCollatorForUsers(model.config.max_position_embeddings),
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        compute_metrics=share_right,
        optimizers=(updates.optimizer, None),
        callbacks=[StopOnNaN(), SealCheckpoint()],
    )
    trainer.remove_callback(PrinterCallback)
    patience = training.early_stopping_patience
    stops = [EarlyStoppingCallback(patience)] if patience and training.load_best_model_at_end else []
    trainer.callback_handler.callbacks[:0] = [*updates.callbacks, *stops]
    return trainer


def divide_users(num_users: int, *, seed: int) -> tuple[IntArray, IntArray, IntArray]:
    """Rows that train, a tenth that chooses the epoch, and a fifth that is only tested; at least one of each.

    Raises:
        ValueError: Fewer than three users.
    """
    if num_users < 3:
        raise ValueError(f"Expected at least 3 users to train, choose and test on, found {num_users}. Label more.")
    order = np.random.default_rng(seed).permutation(num_users)
    tested, chosen = max(1, num_users // 5), max(1, num_users // 10)
    test, validation, train = np.split(order, [tested, tested + chosen])
    return train, validation, test


def train_classifier(
    model: PreTrainedModel,
    users: LabelledUsers,
    *,
    training: RecommenderTrainingArguments,
    updates: Updates,
    checkpoint: str | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """Train a head, and the body as far as it is not frozen, and test it on users that were held out.

    Args:
        model: Of `new_classifier`.
        users: Histories and classes.
        training: Arguments of the `Trainer`.
        updates: Callbacks and optimiser.
        checkpoint: To go on from.

    Returns:
        The trainer, whose model is the best one, and `train`, `validation`, `split` and `test` of its results.
    """
    train, validation, test = divide_users(len(users.rows), seed=training.seed)
    trainer = classifier_trainer(
        model, users.rows.select(train), users.rows.select(validation), training=training, updates=updates
    )
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    logits = np.asarray(trainer.predict(users.rows.select(test)).predictions)  # (n_test, num_labels)
    truth, number = users.truth, len(users.classes)
    common = np.full(len(test), np.bincount(truth[train]).argmax())
    results = {
        "train": metrics,
        "validation": {"accuracy": trainer.state.best_metric},
        "split": {
            "strategy": "users",
            **{
                f"num_{name}": len(part)
                for name, part in (("train", train), ("validation", validation), ("test", test))
            },
        },
        "test": {
            "n_users": len(test),
            "model": scores(truth[test], logits.argmax(-1), number),
            "majority class": scores(truth[test], common, number),
        },
    }
    return trainer, results


def share_right(outcome: EvalPrediction) -> dict[str, float]:
    """`compute_metrics` of the Trainer."""
    return {"accuracy": float((np.asarray(outcome.predictions).argmax(-1) == outcome.label_ids).mean())}


def scores(truth: IntArray, guess: IntArray, num_classes: int, *, n_bootstrap: int = 1000, seed: int = 0) -> Any:
    """Accuracy and macro-F1 with 95 % bootstrap intervals over users.

    Example:
        >>> found = scores(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), 2, n_bootstrap=10)
        >>> found["accuracy"], round(found["macro_f1"], 4)
        (0.75, 0.7333)
    """
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (truth, guess), 1)
    cells = np.random.default_rng(seed).multinomial(len(truth), confusion.ravel() / len(truth), n_bootstrap)
    draws = cells.reshape(-1, num_classes, num_classes)  # (n_bootstrap, num_classes, num_classes)
    result: dict[str, Any] = {}
    for name, measure in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        result[name] = float(measure(confusion[None])[0])
        result[f"{name}_ci"] = [float(value) for value in np.quantile(measure(draws), [0.025, 0.975])]
    return result


def accuracy(confusion: NDArray[Any]) -> NDArray[Any]:
    """Share of right answers of confusion matrices `(n, classes, classes)`, true classes in rows."""
    return np.asarray(np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2)))


def macro_f1(confusion: NDArray[Any]) -> NDArray[Any]:
    """Mean over classes of `2 right / (true + guessed)`; a class that neither holds counts 0."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    total = confusion.sum(axis=1) + confusion.sum(axis=2)
    return np.asarray((2 * right / np.maximum(total, 1)).mean(axis=1))
