"""Pretraining on several logs at once: where they lie, their vocabularies, and the rows of the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel

from ..data.collators import objective_of
from ..data.drawing import DrawnRows, draws_of_sources
from ..data.interactions import Duplicates, Interactions, load_interactions
from ..data.sources import SEPARATOR, Block, JoinedSources, check_source_names, source_names
from ..data.temporal import ProtocolArguments, split_log
from ..evaluation.protocol import rank_checkpoint, rows_to_rank
from ..evaluation.sources import RankedSources, make_source_metrics
from ..tokenization import ItemTokenizer
from ..transfer.sources import take_source
from .arguments import DataArguments, RecommenderTrainingArguments
from .facts import log_sizes
from .rows import RunRows, build_tokenizer, training_sequences

NO_ITEMS = "none"  # in place of an items file


@dataclass(frozen=True)
class LogSource:
    """One source of several.

    Args:
        train_file: File, folder or glob of the log, or a named data set.
        name: What its users and items are called after.
        items_file: Item metadata.
        user_column, item_column, timestamp_column: Names in the log.
        where: Conditions that every kept interaction meets, such as "country!=France".
        min_user_interactions, min_item_interactions: The k-core.
        duplicates: What becomes of repeated (user, item) pairs.
        rename_items: Columns of the items file by the names that they get, so that sources have them in common.
        license, domain: What a model card says of it.
    """

    train_file: str
    name: str
    items_file: str | None = None
    user_column: str = "user_id"
    item_column: str = "item_id"
    timestamp_column: str = "timestamp"
    where: Sequence[str] = ()
    min_user_interactions: int = 1
    min_item_interactions: int = 1
    duplicates: Duplicates = "keep"
    rename_items: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    domain: str | None = None

    def load(self) -> Interactions:
        """Read the log.

        Raises:
            ValueError: With the name of the source.
        """
        try:
            log = load_interactions(
                self.train_file,
                user_column=self.user_column,
                item_column=self.item_column,
                timestamp_column=self.timestamp_column,
                where=self.where,
                min_user_interactions=self.min_user_interactions,
                min_item_interactions=self.min_item_interactions,
                duplicates=self.duplicates,
                items=self.items_file,
            )
        except ValueError as error:
            raise ValueError(f"source {self.name}: {error}") from error
        return Interactions(log.table, self._renamed(log.items), log.report)

    def _renamed(self, items: pa.Table | None) -> pa.Table | None:
        if not self.rename_items:
            return items
        missing = [name for name in self.rename_items if items is None or name not in items.column_names]
        if items is None or missing:
            found = "no items" if items is None else ", ".join(items.column_names)
            raise ValueError(f"source {self.name}: `rename_items` names {', '.join(missing)}, found {found}.")
        kept = items.drop_columns([new for new in self.rename_items.values() if new in items.column_names])
        return kept.rename_columns([self.rename_items.get(name, name) for name in kept.column_names])


SOURCE_KEYS = {place.name for place in fields(LogSource)}


@dataclass
class SourcesArguments(DataArguments):
    """One log, or several at once, each with a catalogue of its own."""

    train_file: list[str] | None = field(  # type: ignore[assignment]  # one file is a path, as everywhere else
        default=None, metadata={"help": "File, folder or glob of the interaction log; several are several sources."}
    )
    items_file: list[str] | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Item metadata (title, …) by item id; of several sources one each, or none."}
    )
    source_names: list[str] = field(
        default_factory=list, metadata={"help": "Names of several sources. Default: of their files or folders."}
    )
    sources: list[str] = field(
        default_factory=list,
        metadata={"help": "In a settings file: sources with columns and filters of their own (docs/start-elsewhere)."},
    )
    source_temperature: float = field(
        default=1.0,
        metadata={"help": "Sources are drawn by rows ** (1 / temperature): 1 draws each row once an epoch."},
    )
    label_candidates: Literal["source", "all"] = field(
        default="source", metadata={"help": "Items that a label competes with: those of its source, or all."}
    )
    missing_items: Literal["keep", "refuse", "unknown"] = field(
        default="keep",
        metadata={"help": "Items of a log that its items file lacks: kept without content, refused, or no tokens."},
    )

    def __post_init__(self) -> None:
        draws_of_sources([1], self.source_temperature)
        if self.sources:
            if self.train_file or self.items_file or self.source_names or self.dataset:
                raise ValueError(
                    "`sources` say where the logs lie: leave out train_file, items_file, source_names, dataset."
                )
            self.train_file = [source.train_file for source in self.log_sources()]
        several = self.train_file is not None and len(self.train_file) > 1
        if not several:
            if self.items_file is not None and len(self.items_file) > 1:
                raise ValueError(f"`--items_file` names {len(self.items_file)} files for one log: give one of them.")
            if self.sources or self.source_names:
                raise ValueError("`sources` and `--source_names` are for several sources, found one.")
            self.train_file = self.train_file[0] if self.train_file else None  # type: ignore[assignment]
            self.items_file = self.items_file[0] if self.items_file else None  # type: ignore[assignment]
        else:
            check_source_names([source.name for source in self.log_sources()])
        super().__post_init__()

    @property
    def several(self) -> bool:
        """Whether there is more than one source."""
        return isinstance(self.train_file, list)

    @property
    def source(self) -> str:
        """The file or the name of the data set; of several sources their names."""
        if not self.several:
            return super().source
        return " + ".join(source.name for source in self.log_sources())

    def log_sources(self) -> list[LogSource]:
        """The sources of a run on several.

        Raises:
            ValueError: Another number of items files or names than of logs, or a source that is described otherwise.
        """
        if self.sources:
            return self._described()
        files = self.train_file or []
        items = self.items_file or [NO_ITEMS] * len(files)
        for flag, given in (("items_file", items), ("source_names", self.source_names)):
            if given and len(given) != len(files):
                raise ValueError(
                    f"`--{flag}` must have one value for each of the {len(files)} logs of `--train_file`, found "
                    f"{len(given)}" + (f": give {NO_ITEMS!r} for a log without." if flag == "items_file" else ".")
                )
        names = self.source_names or source_names(files)
        shared = {
            name: value for name, value in vars(self).items() if name in SOURCE_KEYS - {"train_file", "items_file"}
        }
        return [
            LogSource(file, name, None if table == NO_ITEMS else table, **shared)
            for file, name, table in zip(files, names, items, strict=True)
        ]

    def _described(self) -> list[LogSource]:
        found = []
        for text in self.sources:
            try:
                described = json.loads(text)
            except ValueError as error:
                raise ValueError(f"`sources` must be a list of sources in a settings file, found {text!r}.") from error
            if not isinstance(described, dict) or "train_file" not in described or set(described) - SOURCE_KEYS:
                raise ValueError(
                    f"A source needs `train_file` and may have {', '.join(sorted(SOURCE_KEYS - {'train_file'}))}, "
                    f"found {text}."
                )
            found.append(described)
        names = source_names([source["train_file"] for source in found]) if any("name" not in s for s in found) else []
        named = [{"name": name, **source} for name, source in zip(names, found, strict=True)] if names else found
        return [LogSource(**source) for source in named]

    def source_settings(self) -> dict[str, Any]:
        """What an interrupted run on several sources is compared by, besides the logs."""
        return {
            "source_temperature": self.source_temperature,
            "label_candidates": self.label_candidates,
            "missing_items": self.missing_items,
        }


def load_sources(data: SourcesArguments, protocol: ProtocolArguments) -> JoinedSources:
    """Read and split the logs of several sources.

    Raises:
        ValueError: With the name of the source that cannot be used.
    """
    splits, tokenizers = {}, {}
    for source in data.log_sources():
        log = source.load()
        split = split_log(log, protocol)
        if len(split.validation) == 0:
            raise ValueError(f"source {source.name}: no user has 3 interactions, nothing is left to validate on.")
        splits[source.name] = split
        tokenizers[source.name] = vocabulary_of(split.train, data, source.name)
    return JoinedSources(splits, tokenizers)


def vocabulary_of(train: Interactions, data: SourcesArguments, name: str) -> ItemTokenizer:
    """Vocabulary of the training items of a log, without those that count as unknown."""
    return build_tokenizer(train, unknown=items_without_metadata(train, data.missing_items, name))


def items_without_metadata(log: Interactions, policy: str, name: str) -> list[str]:
    """Items of a log that its items file lacks and that get no token; they are counted on stderr.

    Args:
        log: With its items.
        policy: `keep` (none are returned), `refuse` or `unknown`.
        name: Of the log, for messages.

    Raises:
        ValueError: There are some and they are refused, or there is no items file to say so.
    """
    if log.items is None:
        if policy != "keep":
            raise ValueError(f"`--missing_items {policy}` needs an items file, {name} has none.")
        return []
    ids = pc.unique(log.table["item_id"])
    missing: list[str] = ids.filter(
        pc.invert(pc.is_in(ids, value_set=log.items["item_id"].combine_chunks()))
    ).to_pylist()
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
    rows = training_sequences(split.train, tokenizer, objective_of(model), data, model.config.max_position_embeddings)
    if data.source_temperature != 1.0:
        if training.train_sampling_strategy != "random":
            raise ValueError("`--source_temperature` draws at random: leave `--train_sampling_strategy` out.")
        seed = training.seed if training.data_seed is None else training.data_seed
        sizes = _rows_of_sources(rows, list(joined.splits))
        rows = DrawnRows(rows, sizes, temperature=data.source_temperature, seed=seed)
    compete(model, joined.blocks, data)
    return RunRows(
        train=rows,
        validation=rows_to_rank(model, tokenizer, split, "validation"),
        split=split.report.to_dict(),
        fingerprint=split.train.fingerprint,
        sizes=log_sizes(split.train),
        test=lambda best: rank_sources(best, joined),
        compute_metrics=make_source_metrics(joined.blocks),
    )


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


def source_facts(joined: JoinedSources, data: SourcesArguments) -> dict[str, Any]:
    """What `all_results.json` says of the sources: where each came from, its sizes, split and fingerprint."""
    facts = joined.facts()
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
