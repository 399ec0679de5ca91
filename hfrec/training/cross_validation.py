"""Labels of users, cross-validated: three ways to use a checkpoint beside two baselines, with intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from transformers import TrainerCallback

from ..data.interactions import Interactions
from ..tokenization import ItemTokenizer
from .arguments import FinetuneArguments, TaskArguments
from .classification import IntArray, LabelledUsers, classifier_trainer, labelled_users, new_classifier, scores
from .freezing import freeze
from .l2sp import L2SPCallback
from .trainer_arguments import RecommenderTrainingArguments
from .updates import Updates

Method = Literal["frozen body", "fine-tuned", "fine-tuned + L2-SP"]
# What each method may try, as factors on the learning rate and on L2-SP's strength: the same number for each.
TRIALS: dict[Method, tuple[dict[str, float], ...]] = {
    "frozen body": ({"rate": 1.0}, {"rate": 3.0}, {"rate": 10.0}),
    "fine-tuned": ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0}),
    "fine-tuned + L2-SP": ({"rate": 1.0, "alpha": 0.1}, {"rate": 1.0, "alpha": 1.0}, {"rate": 1.0, "alpha": 10.0}),
}
INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
PATIENCE = 3


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

    users = labelled_users(interactions, tokenizer, task)
    classes, truth = users.classes, users.truth
    folds = list(StratifiedKFold(task.folds, shuffle=True, random_state=training.seed).split(truth, truth))
    results: dict[str, Any] = {
        "task": task.label_column,
        "classes": classes,
        "n_users": len(truth),
        "folds": task.folds,
    }
    predictions = baseline_predictions(users.rows, truth, folds, vocab_size=len(tokenizer), seed=training.seed)
    chosen = {}
    for method, trials in TRIALS.items():
        # The first fold decides for all of them: its test users are not looked at.
        tried = [predict_fold(users, folds[0], method, trial, start, training) for trial in trials]
        best = max(range(len(trials)), key=lambda index: tried[index][1])
        chosen[method] = trials[best]
        predictions[method] = np.empty_like(truth)
        predictions[method][folds[0][1]] = tried[best][0]
        for fold in folds[1:]:
            predictions[method][fold[1]], _ = predict_fold(users, fold, method, trials[best], start, training)
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
    users: LabelledUsers,
    fold: tuple[IntArray, IntArray],
    method: Method,
    trial: dict[str, float],
    start: FinetuneArguments,
    training: RecommenderTrainingArguments,
) -> tuple[IntArray, float]:
    """Train on the first part of a fold and predict the second; a tenth of the first chooses the epoch.

    Returns:
        Classes of the predicted users `(n_test,)`, and the accuracy on that tenth.
    """
    model = new_classifier(start, users.classes, seed=training.seed)
    if method == "frozen body":
        freeze(model, "backbone")
    callbacks: list[TrainerCallback] = []
    if method == "fine-tuned + L2-SP":
        alpha = (start.l2sp_alpha or 0.01) * trial["alpha"]
        callbacks.append(L2SPCallback(start.model_name_or_path, alpha=alpha, mode=start.l2sp_mode))
    train, test = fold
    kept, chosen = held_back(train, seed=training.seed)
    with tempfile.TemporaryDirectory(prefix="hfrec-classification-") as folder:
        settings = RecommenderTrainingArguments(
            output_dir=folder,
            learning_rate=training.learning_rate * trial["rate"],
            num_train_epochs=training.num_train_epochs,
            per_device_train_batch_size=training.per_device_train_batch_size,
            early_stopping_patience=PATIENCE,
            seed=training.seed,
            save_total_limit=1,
            save_only_model=True,
            disable_tqdm=True,
        )
        parts = users.rows.select(kept), users.rows.select(chosen)
        trainer = classifier_trainer(model, *parts, training=settings, updates=Updates(callbacks))
        trainer.train()
        logits = np.asarray(trainer.predict(users.rows.select(test)).predictions)  # (n_test, num_labels)
    return np.asarray(logits.argmax(-1), dtype=np.int64), float(trainer.state.best_metric or 0.0)
