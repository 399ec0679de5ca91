"""Go on from a checkpoint on another log, held to it by L2-SP.

hfrec finetune out target.csv --output_dir tuned --l2sp_alpha 0.01
hfrec finetune me/films target.csv --output_dir tuned --freeze embeddings
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.arguments import ProtocolArguments
from ..data.interactions import Interactions
from ..data.splits import Split
from ..hub.checkpoint import load_network
from ..training.arguments import (
    CardArguments,
    DataArguments,
    FinalArguments,
    FinetuneArguments,
    TaskArguments,
)
from ..training.final import (
    AllRows,
    Chosen,
    check_final,
    finished_validation,
    refit_on_all,
    train_finally,
)
from ..training.fitting import fit_to_log, model_content
from ..training.pushes import hub_target
from ..training.rows import load_split, split_rows
from ..training.run import check_output_folder, train_and_evaluate
from ..training.runfile import begin_run, split_content, start_settings
from ..training.seen import settle_seen_items
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..training.updates import build_updates
from .flags import FLAGS
from .parsing import parse_arguments
from .reporting import finish_card, report

Arguments = tuple[
    DataArguments,
    ProtocolArguments,
    FinetuneArguments,
    TaskArguments,
    CardArguments,
    RecommenderTrainingArguments,
    FinalArguments,
]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    parsed = parse_arguments("finetune", FLAGS["finetune"], words)
    data, protocol, start, task, card, training, final = parsed
    if task.cross_validate and (card.license is not None or training.push_to_hub):
        raise ValueError("`cross_validate` writes no checkpoint: leave out `license` and `push_to_hub`.")
    if task.task == "classification" and start.inputs:
        raise ValueError("`--inputs` is for a recommender, and `--task classification` makes none: leave it out.")
    if task.task == "classification" and final.final:
        raise ValueError("`--final true` is for a recommender, and `--task classification` makes none: leave it out.")
    if task.task == "classification" and (training.time_budget or training.rowwise_embeddings or training.eval_users):
        raise ValueError(
            "`time_budget`, `rowwise_embeddings` and `eval_users` are for a recommender: leave them out with `--task "
            "classification`."
        )
    if final.final:
        check_final(data, training)
    if task.task == "classification" and protocol != ProtocolArguments():
        raise ValueError(
            "`--task classification` divides users and recommends nothing: leave out `protocol`, its starts and "
            "ratios, and `filter_seen`."
        )
    return data, protocol, start, task, card, training, final


def main(arguments: Arguments) -> dict[str, Any]:
    """Fine-tune and test; returns what `all_results.json` holds."""
    data, protocol, start, task, card, training, final = arguments
    if task.task == "classification":
        from .classify import main_classification

        return main_classification(data, start, task, card, training)
    finish_card(training, card)
    check_output_folder(training, final=final.final)
    repo_id = hub_target(training)
    # Before the log, which takes longer to be refused.
    load_network(start.model_name_or_path, revision=start.model_revision)
    log, split = load_split(data, protocol)
    if not final.final:
        results = run_on_split(data, protocol, start, split, training)
    else:
        results = train_finally(
            training,
            validate=lambda part: run_on_split(data, protocol, start, split, part),
            tell=lambda found, part: report(found, part, card),
            refit=lambda part, chosen, found: run_on_all(data, start, log, part, chosen, found),
        )
    report(results, training, card, repo_id)
    return results


def run_on_split(
    data: DataArguments,
    protocol: ProtocolArguments,
    start: FinetuneArguments,
    split: Split,
    training: RecommenderTrainingArguments,
) -> dict[str, Any]:
    """Fine-tune on the training part of a split and test; a validation run that is done already is only read."""
    model, tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    content = {**split_content(split), **model_content(model, start, split.train)}
    begin_run(data, training, content, start=start_settings(model, start), protocol=vars(protocol))
    done = finished_validation(training)
    if done is not None:
        return done
    fitted = fit_to_log(model, tokenizer, split.train, data=data, start=start, training=training)
    tokenizer = fitted.tokenizer
    rows = split_rows(model, tokenizer, split, data)
    seen_items = settle_seen_items(model, rows.validation, protocol)
    return train_and_evaluate(
        model,
        tokenizer,
        rows,
        data=data,
        training=training,
        updates=build_updates(model, fitted.anchored, start, training),
        extra={"finetuning": vars(start), **seen_items},
    )


def run_on_all(
    data: DataArguments,
    start: FinetuneArguments,
    log: Interactions,
    training: RecommenderTrainingArguments,
    chosen: Chosen,
    validation: dict[str, Any],
) -> dict[str, Any]:
    """Fine-tune from the same checkpoint on all rows for as long as validation chose."""
    model, tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    content = {"train": log.fingerprint, **model_content(model, start, log)}
    begin_run(data, training, content, start=start_settings(model, start), final=vars(chosen))
    fitted = fit_to_log(model, tokenizer, log, data=data, start=start, training=training)
    tokenizer = fitted.tokenizer
    return refit_on_all(
        model,
        tokenizer,
        AllRows.of(log, model, tokenizer, data),
        validation=validation,
        data=data,
        training=training,
        updates=build_updates(model, fitted.anchored, start, training),
        extra={"finetuning": vars(start)},
    )
