"""What fits a checkpoint to the log that it is fine-tuned on: its items, its length, its inputs, what is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from transformers import PreTrainedModel

from ..data.inputs import declare_inputs, input_content, inputs_of
from ..data.interactions import Interactions
from ..tokenization import ItemTokenizer
from .arguments import DataArguments, FinetuneArguments, NewItemStart
from .freezing import freeze
from .rows import build_tokenizer
from .runfile import items_content
from .start import anchored_rows, histories_and_counts, start_adopted, start_new_items
from .trainer import seed_everything
from .trainer_arguments import RecommenderTrainingArguments

if TYPE_CHECKING:
    import pyarrow as pa

    from ..models.body import Bert4RecPreTrainedModel


@dataclass(frozen=True)
class Fitted:
    """A checkpoint's vocabulary as it is after it was fitted to a log.

    Args:
        tokenizer: Of the model now.
        anchored: Rows of the model by what the checkpoint calls them: of those alone it says where L2-SP pulls. An item
            may have another id now, and another item may have its id.
    """

    tokenizer: ItemTokenizer
    anchored: Mapping[str, int]


def fit_to_log(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    train: Interactions,
    *,
    data: DataArguments,
    start: FinetuneArguments,
    training: RecommenderTrainingArguments,
) -> Fitted:
    """Seed the run, give the log's new items rows, and set the length and what is frozen."""
    from ..transfer.specification import content_of

    seed_everything(training)
    if adopts(model, train):
        with content_of(data.items_file):
            fitted = adopt_log(model, tokenizer, train, start=start)
    else:
        tokenizer = cover_items(model, tokenizer, train, start=start.new_item_start)
        fitted = Fitted(tokenizer, tokenizer.get_vocab())
    if data.max_length is not None:
        model.resize_position_embeddings(data.max_length)
    known = inputs_of(model) or []
    new = declare_inputs(read_inputs(model, start)[len(known) :], train)
    freeze(model, start.freeze)
    cast("Bert4RecPreTrainedModel", model).add_inputs(new or [])  # after it: what starts at zero has to be trained
    return fitted


def read_inputs(model: PreTrainedModel, start: FinetuneArguments) -> list[str]:
    """Names of what the model is to read beside the items: what the checkpoint reads, then what the flags add."""
    return list(dict.fromkeys([*(entry["name"] for entry in inputs_of(model) or []), *start.inputs]))


def adopts(model: PreTrainedModel, train: Interactions) -> bool:
    """Whether the catalogue of the items file takes the place of the checkpoint's."""
    return model.config.item_representation != "id" and train.items is not None


def model_content(model: PreTrainedModel, start: FinetuneArguments, log: Interactions) -> dict[str, str]:
    """Fingerprints of what a fine-tuned model reads beside users, items and times: inputs, content of items."""
    inputs = input_content(read_inputs(model, start), log)
    return {**inputs, **items_content(log.items if adopts(model, log) else None)}


def adopt_log(
    model: PreTrainedModel, tokenizer: ItemTokenizer, train: Interactions, *, start: FinetuneArguments
) -> Fitted:
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
    from_log = start.new_item_start == "cooccurrence"
    if from_log:
        start_adopted(model, *histories_and_counts(train, adoption.tokenizer), adoption=adoption)
        if adoption.whitened:
            print("Started at the log: residuals and biases; what the body adds to content starts at nothing.")
    return Fitted(adoption.tokenizer, anchored_rows(adoption, from_log=from_log))


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
        last = np.arange(len(grown.items)) >= len(grown.items) - len(new)
        start_new_items(model, *histories_and_counts(train, grown), new=last)
    return grown
