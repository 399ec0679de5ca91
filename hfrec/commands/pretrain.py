"""Train a model on an interaction log.

hfrec pretrain interactions.csv --output_dir out
hfrec pretrain --train_file sequences --streaming true --output_dir out
hfrec pretrain --train_file beauty.csv toys.csv --items_file beauty_items.csv toys_items.csv --output_dir out
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.inputs import input_content
from ..data.interactions import Interactions
from ..data.sources import JoinedSources, facts_of_source, join_logs, join_tokenizers, source_blocks
from ..data.splits import Split
from ..evaluation.table import align
from ..training.final import (
    AllRows,
    Chosen,
    finished_validation,
    refit_on_all,
    train_finally,
)
from ..training.pushes import hub_target
from ..training.recipes import LogStatistics, choose_settings, recipe_defaults
from ..training.rows import load_split, split_rows, streamed_rows
from ..training.run import check_output_folder, train_and_evaluate
from ..training.runfile import begin_run, split_content, streamed_content
from ..training.seen import settle_seen_items
from ..training.sources import (
    compete,
    drawn_rows,
    load_sources,
    source_content,
    source_facts,
    source_rows,
    vocabulary_of,
)
from ..training.start import start_from_log
from ..training.streamed_sources import StreamedSources, open_shards
from ..training.trainer import seed_everything
from ..training.trainer_arguments import RecommenderTrainingArguments
from .new_models import (
    CLASSES,
    PretrainArguments,
    content_of_items,
    new_model,
    parse,
    start_model,
    statistics_of,
    statistics_of_sources,
)
from .parsing import given_values
from .reporting import finish_card, report

Validate = Callable[[RecommenderTrainingArguments], dict[str, Any]]
Refit = Callable[[RecommenderTrainingArguments, Chosen, dict[str, Any]], dict[str, Any]]


def main(arguments: PretrainArguments) -> dict[str, Any]:
    """Pretrain and test; returns what `all_results.json` holds."""
    finish_card(arguments.training, arguments.card)
    check_output_folder(arguments.training, final=arguments.final.final)
    repo_id = hub_target(arguments.training)
    several = arguments.data.several
    if arguments.data.streaming:
        results = (stream_sources if several else stream)(arguments)
    else:
        results = (train_on_sources if several else train_on_log)(arguments)
    report(results, arguments.training, arguments.card, repo_id)
    return results


def train_on_log(arguments: PretrainArguments) -> dict[str, Any]:
    """Train on a log that lies in memory and test, or in the end train on all of it."""
    log, split = load_split(arguments.data, arguments.protocol)
    arguments, recipe = follow_recipe(arguments, statistics_of(split.train))
    return train_finally_if_asked(
        arguments,
        validate=lambda training: run_on_split(arguments, training, split, recipe),
        refit=lambda training, chosen, found: run_on_all(arguments, training, log, recipe, chosen, found),
    )


def train_on_sources(arguments: PretrainArguments) -> dict[str, Any]:
    """Train on several logs at once and test on each, or in the end train on all of them."""
    logs, joined = load_sources(arguments.data, arguments.protocol)
    arguments, recipe = follow_recipe(arguments, statistics_of_sources(joined))
    return train_finally_if_asked(
        arguments,
        validate=lambda training: run_on_sources(arguments, training, joined, recipe),
        refit=lambda training, chosen, found: run_on_all_sources(arguments, training, logs, recipe, chosen, found),
    )


def train_finally_if_asked(arguments: PretrainArguments, *, validate: Validate, refit: Refit) -> dict[str, Any]:
    """A run that holds rows out, and where `--final true` asks for it the one on all rows."""
    if not arguments.final.final:
        return validate(arguments.training)
    return train_finally(
        arguments.training,
        validate=validate,
        tell=lambda found, training: report(found, training, arguments.card),
        refit=refit,
    )


def stream(arguments: PretrainArguments) -> dict[str, Any]:
    """Train on prepared sequences and test."""
    flags = arguments.data
    shards = open_shards(flags.source, vars(flags), missing_items=flags.missing_items)
    lengths = np.concatenate([np.asarray(piece.value_lengths()) for piece in shards.histories("train")])
    arguments, recipe = follow_recipe(arguments, LogStatistics(lengths, num_items=len(shards.tokenizer.items)))
    data, training = arguments.data, arguments.training
    seed_everything(training)
    model = new_model(arguments, shards.tokenizer)
    rows = streamed_rows(shards, model, data=data, training=training)
    if arguments.shape.item_start == "svd":
        start_from_log(model, shards.histories("train"), rows.train.item_counts(), seed=training.seed)
    content = {**streamed_content(rows.train, shards.info), **content_of_items(arguments, shards.tokenizer)}
    begin_run(data, training, content, **run_settings(arguments))
    extra = {**settle_seen_items(model, rows.validation, arguments.protocol), **recipe}
    return train_and_evaluate(model, shards.tokenizer, rows, data=data, training=training, extra=extra)


def stream_sources(arguments: PretrainArguments) -> dict[str, Any]:
    """Train on prepared sequences of several sources and test on each."""
    joined = StreamedSources.of(arguments.data)
    arguments, recipe = follow_recipe(arguments, LogStatistics(joined.lengths(), len(joined.tokenizer.items)))
    data, training, tokenizer = arguments.data, arguments.training, joined.tokenizer
    seed_everything(training)
    model = new_model(arguments, tokenizer)
    rows = joined.rows(model, data=data, training=training)
    if arguments.shape.item_start == "svd":
        start_from_log(model, joined.histories(), rows.train.item_counts(), seed=training.seed)
    content = {**joined.content(rows.train), **content_of_items(arguments, tokenizer)}
    begin_run(data, training, content, **run_settings(arguments))
    extra = {**settle_seen_items(model, rows.validation, arguments.protocol), **recipe, **joined.facts(data)}
    return train_and_evaluate(model, tokenizer, rows, data=data, training=training, extra=extra)


def run_on_sources(
    arguments: PretrainArguments, training: RecommenderTrainingArguments, joined: JoinedSources, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Train on the training parts of several logs and test; a validation run that is done already is only read."""
    data, tokenizer = arguments.data, joined.tokenizer
    seed_everything(training)
    content = {**source_content(joined), **content_of_items(arguments, tokenizer)}
    begin_run(data, training, content, **run_settings(arguments))
    done = finished_validation(training)
    if done is not None:
        return done
    model = start_model(arguments, joined.split.train, tokenizer)
    rows = source_rows(model, joined, data, training)
    seen_items = settle_seen_items(model, rows.validation, arguments.protocol)
    extra = {**seen_items, **recipe, **source_facts(joined.facts(), data)}
    return train_and_evaluate(model, tokenizer, rows, data=data, training=training, extra=extra)


def run_on_all_sources(
    arguments: PretrainArguments,
    training: RecommenderTrainingArguments,
    logs: dict[str, Interactions],
    recipe: dict[str, Any],
    chosen: Chosen,
    validation: dict[str, Any],
) -> dict[str, Any]:
    """Train on all rows of several logs for as long as validation chose."""
    data = arguments.data
    seed_everything(training)
    tokenizers = {name: vocabulary_of(log, data, name) for name, log in logs.items()}
    log, tokenizer = join_logs(logs), join_tokenizers(tokenizers)
    facts = {name: facts_of_source(logs[name], tokenizers[name]) for name in logs}
    prints = {f"{name} train": found["train_fingerprint"] for name, found in facts.items()}
    content = {**prints, **content_of_items(arguments, tokenizer)}
    begin_run(data, training, content, **run_settings(arguments), final=vars(chosen))
    model = start_model(arguments, log, tokenizer)
    compete(model, source_blocks({name: found["items"] for name, found in facts.items()}), data)
    rows = AllRows(log, drawn_rows(model, tokenizer, log, data=data, training=training))
    extra = {**recipe, **source_facts(facts, data)}
    return refit_on_all(model, tokenizer, rows, validation=validation, data=data, training=training, extra=extra)


def run_on_split(
    arguments: PretrainArguments, training: RecommenderTrainingArguments, split: Split, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Train on the training part of a split and test; a validation run that is done already is only read."""
    seed_everything(training)
    tokenizer = vocabulary_of(split.train, arguments.data, arguments.data.source)
    content = {**split_content(split), **input_content(arguments.shape.inputs, split.train)}
    content |= content_of_items(arguments, tokenizer)
    begin_run(arguments.data, training, content, **run_settings(arguments))
    done = finished_validation(training)
    if done is not None:
        return done
    model = start_model(arguments, split.train, tokenizer)
    rows = split_rows(model, tokenizer, split, arguments.data)
    extra = {**settle_seen_items(model, rows.validation, arguments.protocol), **recipe}
    return train_and_evaluate(model, tokenizer, rows, data=arguments.data, training=training, extra=extra)


def run_on_all(
    arguments: PretrainArguments,
    training: RecommenderTrainingArguments,
    log: Interactions,
    recipe: dict[str, Any],
    chosen: Chosen,
    validation: dict[str, Any],
) -> dict[str, Any]:
    """Train on all rows for as long as validation chose."""
    seed_everything(training)
    tokenizer = vocabulary_of(log, arguments.data, arguments.data.source)
    model = start_model(arguments, log, tokenizer)
    content = {"train": log.fingerprint, **input_content(arguments.shape.inputs, log)}
    content |= content_of_items(arguments, tokenizer)
    begin_run(arguments.data, training, content, **run_settings(arguments), final=vars(chosen))
    rows = AllRows.of(log, model, tokenizer, arguments.data)
    return refit_on_all(
        model, tokenizer, rows, validation=validation, data=arguments.data, training=training, extra=recipe
    )


def run_settings(arguments: PretrainArguments) -> dict[str, Any]:
    """The groups of settings, beside those of data and training, that an interrupted run is compared by."""
    sources = {"sources": arguments.data.source_settings()} if arguments.data.several else {}
    return {
        "model": vars(arguments.shape),
        "content": vars(arguments.content),
        "protocol": vars(arguments.protocol),
        **sources,
    }


def follow_recipe(arguments: PretrainArguments, log: LogStatistics) -> tuple[PretrainArguments, dict[str, Any]]:
    """The arguments with the recipe's settings where no flag gives one, printed; and what results say of it."""
    name = arguments.recipe.recipe
    if name == "none":
        return arguments, {"recipe": {"name": name, "settings": {}}}
    given = given_values("pretrain", CLASSES, arguments.words)
    choices = choose_settings(name, log, given)
    defaults = recipe_defaults(choices, given)
    chosen = [choice for choice in choices if choice.name in defaults]
    if chosen:
        print(f"Recipe {name}: {log.num_users:,} users, {log.num_items:,} items, {log.num_interactions:,} interactions")
        print(align([[f"  --{choice.name} {choice.value}", choice.reason] for choice in chosen]))
    settings = {choice.name: choice.value for choice in chosen}
    return parse(arguments.words, defaults=defaults), {"recipe": {"name": name, "settings": settings}}
