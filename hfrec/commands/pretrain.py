"""Train a model on an interaction log.

hfrec pretrain --train_file interactions.csv --output_dir out --objective masked --max_length 100 --hidden_size 64
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..training.arguments import DataArguments, ModelArguments, RecommenderTrainingArguments
from ..training.run import (
    DEFAULT_MAX_LENGTH,
    build_model,
    build_tokenizer,
    check_output_folder,
    load_split,
    seed_everything,
    train_and_evaluate,
)
from .parsing import parse_arguments

Arguments = tuple[DataArguments, ModelArguments, RecommenderTrainingArguments]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    data, model, training = parse_arguments(
        "pretrain", (DataArguments, ModelArguments, RecommenderTrainingArguments), words
    )
    return data, model, training


def main(arguments: Arguments) -> dict[str, Any]:
    """Pretrain and test; returns what `all_results.json` holds."""
    data, shape, training = arguments
    check_output_folder(training)
    _, split = load_split(data)
    seed_everything(training)
    tokenizer = build_tokenizer(split.train)
    model = build_model(shape, len(tokenizer), data.max_length or DEFAULT_MAX_LENGTH)
    results = train_and_evaluate(model, tokenizer, split, data=data, training=training)
    report(results, training.output_dir)
    return results


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print the test table and where the checkpoint lies, and write its card."""
    from ..evaluation.table import results_table
    from ..hub.model_card import write_model_card

    if "test" in results:
        write_model_card(output_dir)
        print(results_table(results["test"]))
        print(f"Checkpoint: {output_dir}")
