"""Train a model on an interaction log.

hfrec pretrain --train_file interactions.csv --output_dir out --objective masked --max_length 100 --hidden_size 64
hfrec pretrain --train_file sequences --streaming true --output_dir out
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.shards import SequenceShards
from ..tokenization import ItemTokenizer
from ..training.arguments import CardArguments, DataArguments, ModelArguments, RecommenderTrainingArguments
from ..training.pushes import hub_target
from ..training.run import (
    DEFAULT_MAX_LENGTH,
    build_model,
    build_tokenizer,
    check_output_folder,
    load_split,
    seed_everything,
    split_rows,
    streamed_rows,
    train_and_evaluate,
)
from .content import ContentArguments, read_content
from .parsing import parse_arguments

Arguments = tuple[DataArguments, ModelArguments, ContentArguments, CardArguments, RecommenderTrainingArguments]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    classes = (DataArguments, ModelArguments, ContentArguments, CardArguments, RecommenderTrainingArguments)
    data, shape, content, card, training = parse_arguments("pretrain", classes, words)
    if shape.item_features != content.given:
        raise ValueError(
            "`--item_features true` and content (`--encoder`, `--category_column` or `--vector_column`) go together: "
            f"found item_features={shape.item_features}, content {'given' if content.given else 'missing'}."
        )
    return data, shape, content, card, training


def main(arguments: Arguments) -> dict[str, Any]:
    """Pretrain and test; returns what `all_results.json` holds."""
    data, shape, content, card, training = arguments
    check_output_folder(training)
    repo_id = hub_target(training)
    max_length = data.max_length or DEFAULT_MAX_LENGTH
    if data.streaming:
        if shape.item_features:
            raise ValueError("`item_features` is not for `streaming`: give a log that fits into memory.")
        shards = SequenceShards(Path(data.source))
        seed_everything(training)
        tokenizer = shards.tokenizer
        model = build_model(shape, len(tokenizer), max_length)
        rows = streamed_rows(shards, model, data=data, training=training)
    else:
        _, split = load_split(data)
        seed_everything(training)
        tokenizer = build_tokenizer(split.train)
        features = item_features(tokenizer, content) if shape.item_features else None
        model = build_model(shape, len(tokenizer), max_length, features=features)
        rows = split_rows(model, tokenizer, split, data)
    results = train_and_evaluate(model, tokenizer, rows, data=data, training=training)
    report(results, training, card, repo_id)
    return results


def item_features(tokenizer: ItemTokenizer, content: ContentArguments) -> Tensor:
    """Features `(num_items, width)` of the vocabulary, from the columns beside the item ids."""
    from ..transfer.features import unit_features

    return unit_features(*read_content(tokenizer.items, content).values())


def report(
    results: dict[str, Any], training: RecommenderTrainingArguments, card: CardArguments, repo_id: str | None
) -> None:
    """Print the test table and where the checkpoint lies, write its card and push it.

    Raises:
        HubError: The push failed; the checkpoint and its results are written.
    """
    from ..evaluation.table import results_table
    from ..hub.model_card import write_model_card
    from ..hub.push import push_to_hub

    if "test" in results:
        write_model_card(training.output_dir, repo_id=training.hub_model_id, license=card.license)
        print(results_table(results["test"]))
        print(f"Checkpoint: {training.output_dir}")
        if repo_id is not None:
            private, revision = training.hub_private_repo, training.hub_revision
            commit = push_to_hub(training.output_dir, repo_id, private=private, revision=revision)
            print(f"Pushed: {commit.commit_url}")
        print(results["test"]["verdict"]["text"])
