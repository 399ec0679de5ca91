"""Bring a checkpoint up to date with a newer log, and say whether the new one should take its place.

hfrec refresh out log.csv --test_start 2024-03-01 --output_dir refreshed
hfrec refresh out log.csv --refresh_start 2024-02-01 --test_start 2024-03-01 --output_dir refreshed
hfrec refresh --model_name_or_path me/films --train_file log.csv --test_start T2 --output_dir refreshed \\
  --push_to_hub true --hub_model_id me/films --tag 2024-06-08
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel, Trainer

from ..data.collators import objective_of
from ..data.files import sealed_files, whole_files, write_json
from ..data.inputs import inputs_of
from ..data.interactions import Interactions
from ..data.periods import Periods, split_periods
from ..data.repeats import chosen_filter
from ..data.sequences import to_evaluation_sequences
from ..evaluation.protocol import versions
from ..hub.checkpoint import load_network
from ..hub.log_shape import COLUMNS, FILTERS, explained, log_shape
from ..hub.model_card import write_model_card
from ..hub.push import push_to_hub
from ..tokenization import ItemTokenizer
from ..training.arguments import CardArguments, DataArguments, RefreshFinetuneArguments
from ..training.facts import log_sizes, run_facts
from ..training.fitting import fit_to_log, model_content
from ..training.pushes import hub_target
from ..training.refresh import (
    cohort_masks,
    compare,
    objections,
    rank_next,
    refreshed_split,
    refreshed_test,
    report_markdown,
)
from ..training.refresh_arguments import RefreshArguments
from ..training.resuming import train as train_from
from ..training.rows import load_log, training_sequences
from ..training.run import check_output_folder, save_checkpoint
from ..training.runfile import begin_run, start_settings
from ..training.trainer import build_trainer
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..training.updates import STOCK_UPDATES, Updates, build_updates
from .flags import FLAGS
from .parsing import given_values, parse_arguments

EXIT_CODES = {"promote": 0, "keep the old model": 3}
REPORT = "refresh_report.json"


Arguments = tuple[
    DataArguments, RefreshFinetuneArguments, RefreshArguments, CardArguments, RecommenderTrainingArguments
]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    data, start, refresh, card, training = parse_arguments("refresh", FLAGS["refresh"], words)
    given = given_values("refresh", FLAGS["refresh"], words)
    flags = SimpleNamespace(**{name: given.get(name) for name in (*COLUMNS, *FILTERS)})
    data = replace(data, **log_shape(start.model_name_or_path, flags, revision=start.model_revision))
    if refresh.tag is not None and not training.push_to_hub:
        raise ValueError("`--tag` is that of a pushed commit: add `--push_to_hub true`, or leave it out.")
    return data, start, refresh, card, training


def main(arguments: Arguments) -> dict[str, Any]:
    """Train, compare, write the checkpoint and the report, and push what is to be promoted.

    Returns:
        The report, `exit_code` included.
    """
    data, start, refresh, card, training = arguments
    folder = Path(training.output_dir)
    if (folder / REPORT).exists():
        raise ValueError(f"`output_dir` {folder} holds a finished refresh: choose another folder or remove it.")
    check_output_folder(training)
    repo_id = hub_target(training)
    training.push_to_hub = False  # nothing leaves before the verdict
    old_model, old_tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    log = load_remembered(data, start)
    periods = split_periods(
        log, test_start=refresh.test_start, refresh_start=refresh.refresh_start, test_end=refresh.test_end
    )
    old_model.config.filter_seen = chosen_filter(refresh.filter_seen, old_model.config)
    refresh = replace(refresh, filter_seen="true" if old_model.config.filter_seen else "false")
    named = {name: getattr(refresh, name) for name in ("test_start", "refresh_start", "context_items")}
    content = {"log": log.fingerprint, **model_content(old_model, start, log)}
    begin_run(data, training, content, start=start_settings(old_model, start), periods=named)
    model = deepcopy(old_model)
    fitted = fit_to_log(model, old_tokenizer, periods.new, data=data, start=start, training=training)
    tokenizer = fitted.tokenizer
    trainer = train_on_period(
        model,
        tokenizer,
        periods,
        data=data,
        training=training,
        context_items=refresh.context_items,
        updates=build_updates(model, fitted.anchored, start, training),
    )
    models = ((old_model, old_tokenizer), (trainer.accelerator.unwrap_model(trainer.model), tokenizer))
    report = judge(models, periods, refresh)
    report |= {
        "old_model": start.model_name_or_path,
        "new_model": training.output_dir,
        "periods": vars(refresh),
        "data": {"source": data.source, "fingerprint": periods.known.fingerprint},
        "finetuning": vars(start),
        "seed": training.seed,
        "versions": versions(),
    }
    if training.process_index == 0:
        results = {
            "test": refreshed_test(report, refresh),
            "split": refreshed_split(periods, refresh),
            "data": {"source": data.source, "train_fingerprint": periods.new.fingerprint},
            "finetuning": vars(start),
            "seed": training.seed,
            "versions": versions(),
            **run_facts(data, training, log_sizes(periods.new), trainer.state.log_history),
        }
        write_refreshed(models[1], report, results, training=training, card=card)
        publish(report, training, repo_id, refresh.tag)
    return report


def load_remembered(data: DataArguments, start: RefreshFinetuneArguments) -> Interactions:
    """Read the log; what is wrong with columns that the checkpoint remembers is told as that."""
    nothing = SimpleNamespace(**dict.fromkeys(COLUMNS))
    remembered = log_shape(start.model_name_or_path, nothing, revision=start.model_revision)
    with explained({name: value for name, value in remembered.items() if getattr(data, name) == value}, nothing):
        return load_log(data)


def write_refreshed(
    new: tuple[PreTrainedModel, ItemTokenizer],
    report: dict[str, Any],
    results: dict[str, Any],
    *,
    training: RecommenderTrainingArguments,
    card: CardArguments,
) -> None:
    """Write the judged weights with their results, card and report, and print the report."""
    folder, text = Path(training.output_dir), report_markdown(report)
    with whole_files(folder) as draft:
        save_checkpoint(*new, draft)
        with sealed_files(draft) as added:
            write_json(added / "all_results.json", results)
        write_model_card(draft, repo_id=training.hub_model_id, license=card.license, name=folder.resolve().name)
        (draft / "refresh_report.md").write_text(text, encoding="utf-8")
        write_json(draft / REPORT, report)
    print(text)
    print(f"Refreshed checkpoint: {folder}")


def publish(
    report: dict[str, Any], training: RecommenderTrainingArguments, repo_id: str | None, tag: str | None
) -> None:
    """Push what is to be promoted, as one commit; nothing where the old model is kept.

    Raises:
        HubError: The push failed; the checkpoint and the report are written.
    """
    if repo_id is None:
        return
    if report["exit_code"] != 0:
        print(f"Nothing is pushed to {repo_id}: {report['verdict']}.")
        return
    commit = push_to_hub(
        training.output_dir,
        repo_id,
        revision=training.hub_revision,
        private=training.hub_private_repo,
        commit_message="Refresh with hfrec: promoted",
        tag=tag,
    )
    print(f"Pushed: {commit.commit_url}" + (f", tag {tag}" if tag else ""))


def train_on_period(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    periods: Periods,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    context_items: int | None = None,
    updates: Updates = STOCK_UPDATES,
) -> Trainer:
    """Train in place on the new period; the best checkpoint is that of each user's last interaction in it.

    Args:
        model: Masked or causal model, which knows the items of the period.
        tokenizer: Its tokenizer.
        periods: The log.
        data: How sequences are made.
        training: Arguments of the `Trainer`.
        context_items: Earlier items of a user before his new ones; None: half of the model's length.
        updates: Callbacks and optimiser.

    Returns:
        The trainer, whose model is the best one.
    """
    length, inputs = model.config.max_position_embeddings, inputs_of(model)
    train, history, validation = periods.training_parts(length // 2 if context_items is None else context_items)
    checkpoint = check_output_folder(training)
    trainer = build_trainer(
        model,
        tokenizer,
        training_sequences(train, tokenizer, objective_of(model), data, length, inputs=inputs),
        to_evaluation_sequences(history, validation, tokenizer, inputs=inputs),
        data=data,
        training=training,
        callbacks=updates.callbacks,
        optimizer=updates.optimizer,
    )
    train_from(trainer, training.resume_from_checkpoint or checkpoint)
    return trainer


def judge(
    models: Sequence[tuple[PreTrainedModel, ItemTokenizer]], periods: Periods, refresh: RefreshArguments
) -> dict[str, Any]:
    """Rank the next period with the old and the new model and apply the rule."""
    (_, old), (_, new) = models
    candidates = new.items["item_id"].to_pylist()
    before, after = (rank_next(model, tokenizer, periods, candidates) for model, tokenizer in models)
    masks = cohort_masks(periods, old, new)
    compared = compare(before, after, masks, n_bootstrap=refresh.n_bootstrap)
    against = objections(compared["unfiltered" if refresh.filter_seen == "false" else "filter_seen"], refresh)
    verdict = "keep the old model" if against else "promote"
    unknown, later = (int(masks[name].sum()) for name in ("new items", "later items"))
    notes = [
        f"{len(periods.targets):,} users, each with the first interaction of the next period as target and all before "
        f"the period as history; {len(candidates):,} candidates; 95 % bootstrap intervals over users.",
        f"{unknown:,} targets are new items: misses of the old model, which cannot rank them; nor do the "
        f"{len(candidates) - len(old.items):,} new items stand before its other targets.",
        f"{later:,} targets came after the new period: misses of both.",
    ]
    if len(periods.before) == 0:
        notes.append("The log has nothing before the new period: every user counts as new.")
    return {
        "verdict": verdict,
        "exit_code": EXIT_CODES[verdict],
        "rule": refresh.rule,
        "objections": against,
        "notes": notes,
        **compared,
    }
