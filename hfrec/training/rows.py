"""From a log to the rows of a run: read, split, vocabulary, sequences, and what they are tested on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.arguments import ProtocolArguments
from ..data.collators import Objective, objective_of
from ..data.columns import LogColumns
from ..data.filters import LogFilters
from ..data.inputs import Input, inputs_of
from ..data.interactions import Interactions, load_interactions
from ..data.sequences import to_sequences
from ..data.shards import SequenceShards, StreamedBatches
from ..data.splits import Split, split_facts
from ..data.temporal import split_log
from ..evaluation.protocol import rank_checkpoint, rank_rows, rows_to_rank
from ..evaluation.ranked_test import RankedTest
from ..evaluation.sources import RankedSources
from ..tokenization import ItemTokenizer
from .arguments import DataArguments
from .facts import log_sizes
from .trainer import build_collator
from .trainer_arguments import RecommenderTrainingArguments

logger = logging.get_logger(__name__)


def load_log(arguments: DataArguments) -> Interactions:
    """Read the log that the arguments name."""
    if arguments.streaming:
        raise ValueError(
            "`streaming` is for `hfrec pretrain` alone: leave it out and give a log that fits into memory."
        )
    flags = vars(arguments)
    return load_interactions(
        arguments.source, columns=LogColumns.of(flags), filters=LogFilters.of(flags), items=arguments.items_file
    )


def load_split(arguments: DataArguments, protocol: ProtocolArguments) -> tuple[Interactions, Split]:
    """Read the log that the arguments name and divide it by the protocol."""
    interactions = load_log(arguments)
    split = split_log(interactions, protocol)
    if len(split.validation) == 0:
        raise ValueError(
            f"`{arguments.source}` has no user with 3 interactions: nothing is left to validate on. "
            "Give a log with three or more of a user, or take `hfrec evaluate` to test on it."
        )
    logger.info(str(split.report))
    return interactions, split


def build_tokenizer(train: Interactions, *, unknown: Collection[str] = ()) -> ItemTokenizer:
    """Vocabulary of the training items but the `unknown` ones, the most frequent first."""
    import pyarrow.compute as pc

    counts = {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(train.table["item_id"])}
    counts = {item: count for item, count in counts.items() if item not in set(unknown)} if unknown else counts
    items = sorted(counts, key=lambda item: (-counts[item], item))
    return ItemTokenizer.from_items(items, metadata=train.items, counts=counts)


def training_sequences(
    train: Interactions,
    tokenizer: ItemTokenizer,
    objective: Objective,
    arguments: DataArguments,
    max_length: int,
    *,
    inputs: Sequence[Input] | None = None,
) -> Any:
    """Rows to train on; a causal row holds one item more, its last label."""
    length = max_length if objective == "masked" else max_length + 1
    rows = to_sequences(train, tokenizer, max_length=length, windows=arguments.windows, unknown="drop", inputs=inputs)
    if objective == "causal":
        import pyarrow.compute as pc

        enough = pc.greater_equal(pc.list_value_length(rows.data["input_ids"]), 2)
        rows = rows.select([index for index, keep in enumerate(enough.to_pylist()) if keep])
        if len(rows) == 0:
            raise ValueError("No user has two training interactions: the causal objective has nothing to learn from.")
    return rows


@dataclass(frozen=True)
class RunRows:
    """What a run is trained and tested on, whether it lies in memory or is streamed.

    Args:
        train: Rows of `to_sequences`, or [`StreamedBatches`].
        validation: Rows of `to_evaluation_sequences`.
        split, fingerprint, sizes: What `all_results.json` says about the data.
        test: Ranks the test targets with the best checkpoint.
        compute_metrics: Of the Trainer's evaluations; None for those of one log.
    """

    train: Any
    validation: Any
    split: dict[str, Any]
    fingerprint: str | None
    sizes: dict[str, Any]
    test: Callable[[PreTrainedModel], RankedTest | RankedSources]
    compute_metrics: Callable[[Any], dict[str, float]] | None = None


def split_rows(model: PreTrainedModel, tokenizer: ItemTokenizer, split: Split, data: DataArguments) -> RunRows:
    """Rows of a split in memory.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: Leave-one-out or temporal split of the log.
        data: How sequences are made.
    """
    max_length, objective = model.config.max_position_embeddings, objective_of(model)
    return RunRows(
        train=training_sequences(split.train, tokenizer, objective, data, max_length, inputs=inputs_of(model)),
        validation=rows_to_rank(model, tokenizer, split, "validation"),
        split=split_facts(split),
        fingerprint=split.train.fingerprint,
        sizes=log_sizes(split.train),
        test=lambda best: rank_checkpoint(best, tokenizer, split),
    )


def streamed_rows(
    shards: SequenceShards, model: PreTrainedModel, *, data: DataArguments, training: RecommenderTrainingArguments
) -> RunRows:
    """Rows of prepared shards: the training part streamed, validation and test mapped from disk.

    Args:
        shards: The prepared folder.
        model: Masked or causal model.
        data: Windows, masking probabilities and the size of the shuffled buffer.
        training: Batch size, seed and processes.
    """
    tokenizer = shards.tokenizer
    train = stream_of(shards.files("train"), model, tokenizer, data=data, training=training)
    counts = train.item_counts()
    names = ("num_users", "num_items", "num_train")
    known = dict(zip(("users", "items", "interactions"), map(shards.info.get, names), strict=True))
    return RunRows(
        train=train,
        validation=shards.targets("validation"),
        split={name: value for name, value in shards.info.items() if name.endswith("_tie_share")},
        fingerprint=shards.info.get("fingerprint"),
        sizes=known if None not in known.values() else {},
        test=lambda best: rank_rows(
            best, tokenizer, shards.targets("test"), counts, fingerprint=shards.info.get("fingerprint")
        ),
    )


def stream_of(
    files: Sequence[Path],
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    *,
    data: DataArguments,
    training: RecommenderTrainingArguments,
    blocks: Sequence[tuple[int, int]] | None = None,
    temperature: float = 1.0,
) -> StreamedBatches:
    """This process's batches of prepared shards.

    Args:
        files: The training part.
        model: Masked or causal model.
        tokenizer: Its vocabulary.
        data: Windows, masking probabilities and the size of the shuffled buffer.
        training: Batch size, seed and processes.
        blocks, temperature: Of several sources, as `StreamedBatches` takes them.
    """
    objective, max_length = objective_of(model), model.config.max_position_embeddings
    return StreamedBatches(
        files,
        build_collator(tokenizer, objective, data, max_length, seed=training.seed).train,
        batch_size=training.train_batch_size,
        vocab_size=len(tokenizer),
        max_length=max_length if objective == "masked" else max_length + 1,
        windows=data.windows,
        min_length=1 if objective == "masked" else 2,
        buffer_size=data.shuffle_buffer_size,
        seed=training.seed if training.data_seed is None else training.data_seed,
        blocks=blocks,
        temperature=temperature,
        process=training.process_index,
        num_processes=training.world_size,
    )
