"""A new model from the flags of `hfrec pretrain`, which the trials of `hfrec tune` are made of too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel

from ..data.arguments import ProtocolArguments
from ..data.inputs import Input, declare_inputs
from ..data.interactions import Interactions, user_codes
from ..data.sources import JoinedSources
from ..tokenization import ItemTokenizer
from ..training.arguments import CardArguments, FinalArguments, NewModelArguments, RecipeArguments
from ..training.final import check_final
from ..training.recipes import LogStatistics
from ..training.runfile import items_content
from ..training.source_arguments import SourcesArguments
from ..training.start import histories_and_counts, start_from_log
from ..training.trainer import DEFAULT_MAX_LENGTH, build_model
from ..training.trainer_arguments import RecommenderTrainingArguments
from ..transfer.specification import content_features, content_of, describe_content
from .content import ContentArguments
from .flags import FLAGS
from .parsing import parse_arguments

CLASSES = FLAGS["pretrain"]


class PretrainArguments(NamedTuple):
    """The dataclasses of the command, and the words that they came from."""

    words: tuple[str, ...]
    data: SourcesArguments
    protocol: ProtocolArguments
    shape: NewModelArguments
    content: ContentArguments
    card: CardArguments
    training: RecommenderTrainingArguments
    recipe: RecipeArguments
    final: FinalArguments


def parse(words: Sequence[str], *, defaults: dict[str, Any] | None = None) -> PretrainArguments:
    """Flags or a settings file into the dataclasses; `defaults` stand in place of the flags' own."""
    parsed = PretrainArguments(tuple(words), *parse_arguments("pretrain", CLASSES, words, defaults=defaults))
    shape, content = parsed.shape, parsed.content
    if (shape.item_representation != "id") != content.given:
        raise ValueError(
            "`--item_representation content` or `content+id` and content (`--text_column`, `--encoder`, "
            f"`--category_column`, `--number_columns` or `--vector_column`) go together: found "
            f"{shape.item_representation!r}, content {'given' if content.given else 'missing'}."
        )
    if shape.inputs and (parsed.data.streaming or parsed.data.several):
        raise ValueError(
            f"`--inputs {' '.join(shape.inputs)}` is for one log that fits into memory: leave out `--streaming` and "
            "further sources."
        )
    if parsed.final.final:
        check_final(parsed.data, parsed.training)
    if parsed.data.streaming and parsed.protocol.protocol != "leave_one_out":
        raise ValueError(
            f"`--protocol {parsed.protocol.protocol}` is not for `--streaming`, whose sequences are divided by "
            "leave-one-out already: give the log itself as `--train_file` without `--streaming`."
        )
    return parsed


def statistics_of(train: Interactions) -> LogStatistics:
    """What a recipe depends on, of the training part of a log."""
    return LogStatistics(np.bincount(user_codes(train.table)), num_items=train.num_items)


def statistics_of_sources(joined: JoinedSources) -> LogStatistics:
    """The same of the training parts of several logs; items without a token do not count."""
    return replace(statistics_of(joined.split.train), num_items=len(joined.tokenizer.items))


def content_of_items(arguments: PretrainArguments, tokenizer: ItemTokenizer) -> dict[str, str]:
    """The fingerprint of the items where the model is made of their content."""
    return items_content(tokenizer.items if arguments.content.given else None)


def start_model(arguments: PretrainArguments, train: Interactions, tokenizer: ItemTokenizer) -> PreTrainedModel:
    """A new model of a log that lies in memory, at its start."""
    model = new_model(arguments, tokenizer, inputs=declare_inputs(arguments.shape.inputs, train))
    if arguments.shape.item_start == "svd":
        start_from_log(model, *histories_and_counts(train, tokenizer), seed=arguments.training.seed)
    return model


def new_model(
    arguments: PretrainArguments, tokenizer: ItemTokenizer, *, inputs: Sequence[Input] | None = None
) -> PreTrainedModel:
    """A new model of a vocabulary, whose items may be made of what its table says of them."""
    shape, max_length, content = arguments.shape, arguments.data.max_length or DEFAULT_MAX_LENGTH, None
    if arguments.content.given:
        with content_of(arguments.data.items_file):
            specification = describe_content(tokenizer.items, **arguments.content.columns())
            content = specification, content_features(specification, tokenizer.items)
    return build_model(shape, len(tokenizer), max_length, content=content, inputs=inputs)
