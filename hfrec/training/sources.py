"""Pretraining on several logs at once: where they lie, their vocabularies, and the rows of the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel

from ..data.arguments import ProtocolArguments
from ..data.collators import objective_of
from ..data.columns import LogColumns
from ..data.drawing import DrawnRows
from ..data.filters import LogFilters
from ..data.interactions import Interactions, load_interactions
from ..data.source_names import SEPARATOR
from ..data.sources import Block, JoinedSources
from ..data.temporal import split_log
from ..evaluation.protocol import rank_checkpoint, rows_to_rank
from ..evaluation.sources import RankedSources, make_source_metrics
from ..tokenization import ItemTokenizer
from ..transfer.sources import take_source
from .facts import log_sizes
from .rows import RunRows, build_tokenizer, training_sequences
from .source_arguments import LogSource, SourcesArguments
from .trainer_arguments import RecommenderTrainingArguments


def load_source(source: LogSource) -> Interactions:
    """Read the log of a source.

    Raises:
        ValueError: With the name of the source.
    """
    try:
        shape = vars(source)
        columns, filters = LogColumns.of(shape), LogFilters.of(shape)
        return load_interactions(source.train_file, columns=columns, filters=filters, items=source.items_file)
    except ValueError as error:
        raise ValueError(f"source {source.name}: {error}") from error


def load_sources(data: SourcesArguments, protocol: ProtocolArguments) -> tuple[dict[str, Interactions], JoinedSources]:
    """Read the logs of several sources and divide them by the protocol.

    Raises:
        ValueError: With the name of the source that cannot be used.
    """
    logs, splits, tokenizers = {}, {}, {}
    for source in data.log_sources():
        log = logs[source.name] = load_source(source)
        split = split_log(log, protocol)
        if len(split.validation) == 0:
            raise ValueError(f"source {source.name}: no user has 3 interactions, nothing is left to validate on.")
        splits[source.name] = split
        tokenizers[source.name] = vocabulary_of(split.train, data, source.name)
    return logs, JoinedSources(splits, tokenizers)


def vocabulary_of(train: Interactions, data: SourcesArguments, name: str) -> ItemTokenizer:
    """Vocabulary of the training items of a log, without those that count as unknown."""
    ids = pc.unique(train.table["item_id"])
    return build_tokenizer(train, unknown=items_without_metadata(ids, train.items, data.missing_items, name))


def items_without_metadata(ids: Any, items: pa.Table | None, policy: str, name: str) -> list[str]:
    """Items of a log that its items file lacks and that get no token; they are counted on stderr.

    Args:
        ids: Arrow array of the log's items, each once.
        items: The table of the file.
        policy: `keep` (none are returned), `refuse` or `unknown`.
        name: Of the log, for messages.

    Raises:
        ValueError: There are some and they are refused, or there is no items file to say so.
    """
    if items is None:
        if policy != "keep":
            raise ValueError(f"`--missing_items {policy}` needs an items file, {name} has none.")
        return []
    listed = pc.is_in(ids, value_set=items["item_id"].combine_chunks())
    missing: list[str] = ids.filter(pc.invert(listed)).to_pylist()
    if not missing:
        return []
    line = f"{name}: {len(missing):,} of {len(ids):,} items are not in the items file ({', '.join(missing[:3])}, …)"
    if policy == "refuse":
        raise ValueError(f"{line}. Add them, or set `--missing_items` to keep or unknown.")
    print(f"{line}: {'they have no content' if policy == 'keep' else 'they get no token'}", file=sys.stderr)
    return missing if policy == "unknown" else []


def source_rows(
    model: PreTrainedModel, joined: JoinedSources, data: SourcesArguments, training: RecommenderTrainingArguments
) -> RunRows:
    """Rows of several sources in memory; the model's labels compete as the arguments say.

    Args:
        model: Masked or causal model of the joined vocabulary.
        joined: The sources.
        data: How sequences are made and drawn.
        training: Its seed is that of the drawing.
    """
    split, tokenizer = joined.split, joined.tokenizer
    compete(model, joined.blocks, data)
    return RunRows(
        train=drawn_rows(model, tokenizer, split.train, data=data, training=training),
        validation=rows_to_rank(model, tokenizer, split, "validation"),
        split=split.report.to_dict(),
        fingerprint=split.train.fingerprint,
        sizes=log_sizes(split.train),
        test=lambda best: rank_sources(best, joined),
        compute_metrics=make_source_metrics(joined.blocks),
    )


def drawn_rows(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    log: Interactions,
    *,
    data: SourcesArguments,
    training: RecommenderTrainingArguments,
) -> Any:
    """Rows of a joined log to train on, drawn with the temperature of the arguments."""
    rows = training_sequences(log, tokenizer, objective_of(model), data, model.config.max_position_embeddings)
    if data.source_temperature == 1.0:
        return rows
    if training.train_sampling_strategy != "random":
        raise ValueError("`--source_temperature` draws at random: leave `--train_sampling_strategy` out.")
    seed = training.seed if training.data_seed is None else training.data_seed
    sizes = _rows_of_sources(rows, [source.name for source in data.log_sources()])
    return DrawnRows(rows, sizes, temperature=data.source_temperature, seed=seed)


def compete(model: Any, blocks: Mapping[str, Block], data: SourcesArguments) -> None:
    """Let labels compete with the items of their source, unless they are to compete with all."""
    model.compete_within(list(blocks.values()) if data.label_candidates == "source" else None)


def rank_sources(model: PreTrainedModel, joined: JoinedSources) -> RankedSources:
    """Test a model on each source: among its own items, beside baselines of its own log."""
    parts = {}
    for name, split in joined.splits.items():
        own, tokenizer = take_source(model, joined.tokenizer, name)
        parts[name] = rank_checkpoint(own, tokenizer, split)
    return RankedSources(parts, joined.blocks)


def source_facts(facts: Mapping[str, Any], data: SourcesArguments) -> dict[str, Any]:
    """What `all_results.json` says of the sources: where each came from, and `facts` of each by its name."""
    described = {source.name: asdict(source) for source in data.log_sources()}
    return {"sources": {name: {**described[name], **facts[name]} for name in facts}}


def source_content(joined: JoinedSources) -> dict[str, str]:
    """Fingerprints of the sources, by which an interrupted run knows its logs."""
    return {
        f"{name} {part}": getattr(split, part).fingerprint
        for name, split in joined.splits.items()
        for part in ("train", "validation")
    }


def _rows_of_sources(rows: Any, names: Sequence[str]) -> list[int]:
    """Number of each source's rows, which stand one source after the other."""
    users = rows.data["user_id"] if rows._indices is None else pa.chunked_array([rows["user_id"][:]])
    found = pc.list_element(pc.split_pattern(users, SEPARATOR, max_splits=1), 0)
    counts = [int(np.sum(pc.equal(found, name).to_numpy(zero_copy_only=False))) for name in names]
    if 0 in counts:
        raise ValueError(f"The source {names[counts.index(0)]!r} has no row to train on: leave it out.")
    return counts
