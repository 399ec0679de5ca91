"""Go on from a checkpoint on another log, held to it by L2-SP.

hfrec finetune out target.csv --output_dir tuned --l2sp_alpha 0.01
hfrec finetune me/films target.csv --output_dir tuned --freeze embeddings
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

from ..data.arguments import ProtocolArguments
from ..data.inputs import declare_inputs, input_content, inputs_of
from ..data.interactions import Interactions
from ..data.splits import Split
from ..hub.checkpoint import load_network
from ..tokenization import ItemTokenizer
from ..training.arguments import (
    CardArguments,
    DataArguments,
    FinalArguments,
    FinetuneArguments,
    NewItemStart,
    TaskArguments,
)
from ..training.final import (
    Chosen,
    check_final,
    finished_validation,
    refit_on_log,
    train_finally,
)
from ..training.freezing import freeze
from ..training.pushes import hub_target
from ..training.rows import build_tokenizer, load_split, split_rows
from ..training.run import check_output_folder, train_and_evaluate
from ..training.runfile import begin_run, items_content, split_content, start_settings
from ..training.seen import settle_seen_items
from ..training.start import histories_and_counts, start_new_items, start_residuals
from ..training.trainer import seed_everything
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..training.updates import build_updates
from .flags import FLAGS
from .parsing import parse_arguments
from .reporting import finish_card, report

if TYPE_CHECKING:
    import pyarrow as pa

    from ..models.body import Bert4RecPreTrainedModel

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
    content = {**split_content(split), **input_content(read_inputs(model, start), split.train)}
    content |= items_content(split.train.items if adopts(model, split.train) else None)
    begin_run(data, training, content, start=start_settings(model, start), protocol=vars(protocol))
    done = finished_validation(training)
    if done is not None:
        return done
    tokenizer = fit_to_log(model, tokenizer, split.train, data=data, start=start, training=training)
    rows = split_rows(model, tokenizer, split, data)
    seen_items = settle_seen_items(model, rows.validation, protocol)
    return train_and_evaluate(
        model,
        tokenizer,
        rows,
        data=data,
        training=training,
        updates=build_updates(model, tokenizer, start, training),
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
    content = {"train": log.fingerprint, **input_content(read_inputs(model, start), log)}
    content |= items_content(log.items if adopts(model, log) else None)
    begin_run(data, training, content, start=start_settings(model, start), final=vars(chosen))
    tokenizer = fit_to_log(model, tokenizer, log, data=data, start=start, training=training)
    return refit_on_log(
        model,
        tokenizer,
        log,
        validation=validation,
        data=data,
        training=training,
        updates=build_updates(model, tokenizer, start, training),
        extra={"finetuning": vars(start)},
    )


def fit_to_log(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    train: Interactions,
    *,
    data: DataArguments,
    start: FinetuneArguments,
    training: RecommenderTrainingArguments,
) -> ItemTokenizer:
    """Seed the run, give the log's new items rows, and set the length and what is frozen; returns the tokenizer."""
    seed_everything(training)
    if adopts(model, train):
        tokenizer = adopt_log(model, tokenizer, train, start=start)
    else:
        tokenizer = cover_items(model, tokenizer, train, start=start.new_item_start)
    if data.max_length is not None:
        model.resize_position_embeddings(data.max_length)
    known = inputs_of(model) or []
    new = declare_inputs(read_inputs(model, start)[len(known) :], train)
    cast("Bert4RecPreTrainedModel", model).add_inputs(new or [])
    freeze(model, start.freeze)
    return tokenizer


def read_inputs(model: PreTrainedModel, start: FinetuneArguments) -> list[str]:
    """Names of what the model is to read beside the items: what the checkpoint reads, then what the flags add."""
    return list(dict.fromkeys([*(entry["name"] for entry in inputs_of(model) or []), *start.inputs]))


def adopts(model: PreTrainedModel, train: Interactions) -> bool:
    """Whether the catalogue of the items file takes the place of the checkpoint's."""
    return model.config.item_representation != "id" and train.items is not None


def adopt_log(
    model: PreTrainedModel, tokenizer: ItemTokenizer, train: Interactions, *, start: FinetuneArguments
) -> ItemTokenizer:
    """Go over to the items of the items file, the most frequent of the log first; prints what was carried over.

    Raises:
        ValueError: The log has items that the file lacks, unless they are dropped.
    """
    from ..transfer.adoption import adopt

    ranked = build_tokenizer(train).items["item_id"].to_pylist()
    everything = cast("pa.Table", train.items)
    place = {item: row for row, item in enumerate(everything["item_id"].to_pylist())}
    lacking = [item for item in ranked if item not in place]
    if lacking and start.items_without_row == "error":
        raise ValueError(
            f"`--items_file` lacks {len(lacking):,} of the log's {len(ranked):,} items: {', '.join(lacking[:5])}. Add "
            "their rows, or leave their interactions out with `--items_without_row drop`."
        )
    seen = set(ranked)
    order = [place[item] for item in ranked if item in place]
    order += [row for item, row in place.items() if item not in seen]
    adoption = adopt(model, tokenizer, everything.take(order), encoder=start.encoder)
    print(adoption)
    if lacking:
        print(f"{len(lacking):,} items of the log are not in the file; their interactions are left out.")
    if start.new_item_start == "cooccurrence" and adoption.num_shared == 0:
        start_residuals(model, *histories_and_counts(train, adoption.tokenizer))
    return adoption.tokenizer


def cover_items(
    model: PreTrainedModel, tokenizer: ItemTokenizer, train: Interactions, *, start: NewItemStart = "cooccurrence"
) -> ItemTokenizer:
    """Give the items that the checkpoint does not know rows of their own, beside what they go together with."""
    from ..transfer.vocabulary import add_items

    target = build_tokenizer(train)
    known = tokenizer.get_vocab()
    new = [item for item in target.items["item_id"].to_pylist() if item not in known]
    shared = len(target.items) - len(new)
    print(f"{shared:,} of {len(target.items):,} items are the checkpoint's, {len(new):,} are new.")
    if new and model.config.item_representation != "id":
        raise ValueError(
            f"{len(new):,} items of the log are new to the checkpoint, whose items are made of content: give the table "
            "with their content as `--items_file`."
        )
    if shared == 0:
        raise ValueError(
            "No item of the log is in the checkpoint, which knows items by their ids: expected a shared catalogue, "
            "found none shared. One pretrained with `--item_representation content` or `content+id` takes up any."
        )
    if not new:
        return tokenizer
    grown = add_items(model, tokenizer, new, metadata=train.items)
    if start == "cooccurrence":
        start_new_items(model, *histories_and_counts(train, grown), num_new=len(new))
    return grown
