"""`hfrec finetune --task classification`: a checkpoint that tells users apart, or a comparison of ways to one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..data.files import check_new_folder, sealed_files, write_json
from ..data.inputs import refuse_inputs
from ..evaluation.protocol import versions
from ..evaluation.table import align, cell
from ..hub.checkpoint import load_network
from ..hub.classifier_card import write_classifier_card
from ..training.arguments import CardArguments, DataArguments, FinetuneArguments, TaskArguments
from ..training.classification import labelled_users, new_classifier, train_classifier
from ..training.facts import log_sizes, run_facts
from ..training.freezing import freeze
from ..training.pushes import hub_target
from ..training.rows import load_log
from ..training.run import check_output_folder, save_checkpoint, whole_model
from ..training.runfile import begin_run, start_settings
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..training.updates import build_updates
from .reporting import push_run


def main_classification(
    data: DataArguments,
    start: FinetuneArguments,
    task: TaskArguments,
    card: CardArguments,
    training: RecommenderTrainingArguments,
) -> dict[str, Any]:
    """Fine-tune a classifier and test it on users that were held out; writes the checkpoint, its results and its card.

    With `cross_validate` it writes `classification_results.json` alone.
    """
    if task.cross_validate:
        return cross_validate(data, start, task, training)
    checkpoint = check_output_folder(training)
    repo_id = hub_target(training)
    recommender, tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    refuse_inputs(recommender, "`--task classification`")
    log = load_log(data)
    users = labelled_users(log, tokenizer, task)
    model = new_classifier(start, users.classes, seed=training.seed)
    if data.max_length is not None:
        model.resize_position_embeddings(data.max_length)
    content = {"train": log.fingerprint, "labels": hashlib.sha256(users.truth.tobytes()).hexdigest()}
    begin_run(data, training, content, start=start_settings(model, start), task={"label_column": task.label_column})
    freeze(model, start.freeze)
    trainer, measured = train_classifier(
        model,
        users,
        training=training,
        updates=build_updates(model, tokenizer, start, training),
        checkpoint=training.resume_from_checkpoint or checkpoint,
    )
    results = {
        **measured,
        "task": {"label": task.label_column, "classes": users.classes},
        "data": {"source": data.source, "train_fingerprint": log.fingerprint},
        "finetuning": vars(start),
        "seed": training.seed,
        "versions": versions(),
        **run_facts(data, training, log_sizes(log), trainer.state.log_history),
    }
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        folder = Path(training.output_dir)
        save_checkpoint(best, tokenizer, folder)
        with sealed_files(folder) as added:
            write_json(added / "all_results.json", results)
        write_classifier_card(folder, repo_id=training.hub_model_id, license=card.license)
        test = results["test"]
        rows = {name: test[name] for name in ("model", "majority class")}
        print(table(f"{task.label_column}, {test['n_users']:,} users held out", rows))
        print(f"Checkpoint: {folder}")
        push_run(training, repo_id)
    return results


def cross_validate(
    data: DataArguments, start: FinetuneArguments, task: TaskArguments, training: RecommenderTrainingArguments
) -> dict[str, Any]:
    """Measure new heads on labels of users over folds, beside baselines; writes `classification_results.json`."""
    from ..training.cross_validation import classify

    check_new_folder(Path(training.output_dir))
    recommender, tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    refuse_inputs(recommender, "`--task classification`")
    results = classify(load_log(data), tokenizer, start, task, training)
    write_json(Path(training.output_dir) / "classification_results.json", {**results, "versions": versions()})
    print(table(f"{task.label_column}, {results['n_users']:,} users", results["methods"]))
    return results


def table(title: str, rows: dict[str, Any]) -> str:
    """Accuracy and macro-F1 with intervals."""
    body = [[name, cell(found, "accuracy"), cell(found, "macro_f1")] for name, found in rows.items()]
    return align([[title, "accuracy [95 %]", "macro-F1 [95 %]"], *body])
