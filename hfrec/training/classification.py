"""A new head over the pretrained body, for tasks on users: five folds, baselines, intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, Trainer, TrainerCallback, set_seed

from ..data.collators import pad_newest
from ..data.interactions import Interactions
from ..data.readers import read_source
from ..data.sequences import to_sequences
from ..models import Bert4RecForSequenceClassification
from ..tokenization import ItemTokenizer
from .arguments import FinetuneArguments, TaskArguments
from .freezing import freeze
from .l2sp import L2SPCallback
from .trainer_arguments import RecommenderTrainingArguments

IntArray = NDArray[np.int64]
Method = Literal["frozen body", "fine-tuned", "fine-tuned + L2-SP"]
# What each method may try, as factors on the learning rate and on L2-SP's strength: the same number for each.
TRIALS: dict[Method, tuple[dict[str, float], ...]] = {
    "frozen body": ({"rate": 1.0}, {"rate": 3.0}, {"rate": 10.0}),
    "fine-tuned": ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0}),
    "fine-tuned + L2-SP": ({"rate": 1.0, "alpha": 0.1}, {"rate": 1.0, "alpha": 1.0}, {"rate": 1.0, "alpha": 10.0}),
}
INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
PATIENCE = 3


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


def read_labels(interactions: Interactions, task: TaskArguments, *, user_column: str = "user_id") -> dict[str, str]:
    """The class of each user of the log.

    Raises:
        ValueError: A missing column, a user twice, or users of the log without a label.
    """
    (part,) = read_source(task.label_file, string_columns=(user_column, task.label_column or ""))
    missing = [name for name in (user_column, task.label_column) if name not in part.table.column_names]
    if missing:
        raise ValueError(f"{task.label_file}: expected the columns {missing}, found {part.table.column_names}.")
    users = part.table[user_column].cast(pa.string()).to_pylist()
    classes = part.table[task.label_column].cast(pa.string()).to_pylist()
    labels = dict(zip(users, classes, strict=True))
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


def classify(
    interactions: Interactions,
    tokenizer: ItemTokenizer,
    start: FinetuneArguments,
    task: TaskArguments,
    training: RecommenderTrainingArguments,
) -> dict[str, Any]:
    """Cross-validated accuracy and macro-F1 of two baselines and three ways to use the checkpoint.

    Args:
        interactions: The log; a user's whole history is the input.
        tokenizer: The checkpoint's.
        start: The checkpoint, and L2-SP's strength and mode.
        task: Labels and folds.
        training: Epochs, rates and seed of each run.

    Returns:
        `classes`, `n_users` and, by method, `accuracy` and `macro_f1` with `_ci` 95 % bootstrap intervals over users
        of the predictions made while a user was held out.
    """
    from sklearn.model_selection import StratifiedKFold

    labels = read_labels(interactions, task)
    rows = to_sequences(interactions, tokenizer, unknown="drop")
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        raise ValueError(f"`{task.label_column}` holds one class only, {classes}: nothing to tell apart.")
    truth = np.array([classes.index(labels[user]) for user in rows["user_id"]])  # (n_users,)
    rows = rows.add_column("label", truth.tolist())
    folds = list(StratifiedKFold(task.folds, shuffle=True, random_state=training.seed).split(truth, truth))
    results: dict[str, Any] = {
        "task": task.label_column,
        "classes": classes,
        "n_users": len(truth),
        "folds": task.folds,
    }
    predictions = baseline_predictions(rows, truth, folds, vocab_size=len(tokenizer), seed=training.seed)
    chosen = {}
    for method, trials in TRIALS.items():
        # The first fold decides for all of them: its test users are not looked at.
        train, test = folds[0]
        tried = [predict_fold(rows, train, test, len(classes), method, trial, start, training) for trial in trials]
        best = max(range(len(trials)), key=lambda index: tried[index][1])
        chosen[method] = trials[best]
        predictions[method] = np.empty_like(truth)
        predictions[method][test] = tried[best][0]
        for train, test in folds[1:]:
            found, _ = predict_fold(rows, train, test, len(classes), method, trials[best], start, training)
            predictions[method][test] = found
        print(f"{method}: {trials[best]}", flush=True)
    results["methods"] = {name: scores(truth, guess, len(classes)) for name, guess in predictions.items()}
    results["chosen"] = chosen
    return results


def held_back(train: IntArray, *, seed: int) -> tuple[IntArray, IntArray]:
    """The users to fit on, and a tenth that chooses settings and epochs."""
    chosen, kept = np.split(np.random.default_rng(seed).permutation(train), [len(train) // 10])
    return kept, chosen


def baseline_predictions(
    rows: Any, truth: IntArray, folds: Sequence[Any], *, vocab_size: int, seed: int
) -> dict[str, IntArray]:
    """The majority class, and logistic regression on the logarithm of item counts, its penalty chosen as all is."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    histories = rows.data["input_ids"].combine_chunks()
    # Copies: Arrow's buffers are read-only, and `sum_duplicates` writes in place.
    items, offsets = histories.values.to_numpy().copy(), histories.offsets.to_numpy().copy()
    counts = csr_matrix((np.ones(len(items)), items, offsets), shape=(len(rows), vocab_size))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    guesses = {"majority class": np.empty_like(truth), "logistic regression": np.empty_like(truth)}
    for train, test in folds:
        guesses["majority class"][test] = np.bincount(truth[train]).argmax()
        kept, chosen = held_back(train, seed=seed)
        tried = [LogisticRegression(C=c, max_iter=1000).fit(counts[kept], truth[kept]) for c in INVERSE_PENALTIES]
        best = max(tried, key=lambda model: model.score(counts[chosen], truth[chosen]))
        guesses["logistic regression"][test] = best.fit(counts[train], truth[train]).predict(counts[test])
    return guesses


def predict_fold(
    rows: Any,
    train: IntArray,
    test: IntArray,
    num_labels: int,
    method: Method,
    trial: dict[str, float],
    start: FinetuneArguments,
    training: RecommenderTrainingArguments,
) -> tuple[IntArray, float]:
    """Train on one part of the users and predict the other; a tenth of the first chooses the epoch.

    Returns:
        Classes of the test users `(n_test,)`, and the accuracy on that tenth.
    """
    set_seed(training.seed)
    model = Bert4RecForSequenceClassification.from_pretrained(
        start.model_name_or_path,
        revision=start.model_revision or "main",
        num_labels=num_labels,
        classifier_pooling="mean",
        problem_type="single_label_classification",
    )
    if method == "frozen body":
        freeze(model, "backbone")
    callbacks: list[TrainerCallback] = []
    if method == "fine-tuned + L2-SP":
        alpha = (start.l2sp_alpha or 0.01) * trial["alpha"]
        callbacks.append(L2SPCallback(start.model_name_or_path, alpha=alpha, mode=start.l2sp_mode))
    kept, chosen = held_back(train, seed=training.seed)
    with tempfile.TemporaryDirectory(prefix="hfrec-classification-") as folder:
        settings = RecommenderTrainingArguments(
            output_dir=folder,
            learning_rate=training.learning_rate * trial["rate"],
            num_train_epochs=training.num_train_epochs,
            per_device_train_batch_size=training.per_device_train_batch_size,
            seed=training.seed,
            label_names=["labels"],
            metric_for_best_model="accuracy",
            save_total_limit=1,
            save_only_model=True,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=settings,
            data_collator=DataCollatorForUsers(model.config.max_position_embeddings),
            train_dataset=rows.select(kept),
            eval_dataset=rows.select(chosen),
            compute_metrics=share_right,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.callback_handler.callbacks[:0] = [*callbacks, EarlyStoppingCallback(PATIENCE)]
        trainer.train()
        logits = np.asarray(trainer.predict(rows.select(test)).predictions)  # (n_test, num_labels)
    return np.asarray(logits.argmax(-1), dtype=np.int64), float(trainer.state.best_metric or 0.0)


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
