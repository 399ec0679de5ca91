"""Prepared sequences of several sources, streamed at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..data.columns import LogColumns
from ..data.item_tables import read_items, with_content_columns
from ..data.shards import SequenceShards, StreamedBatches
from ..data.source_names import SEPARATOR
from ..data.sources import Block, join_tokenizers, source_blocks
from ..evaluation.protocol import rank_rows
from ..evaluation.sources import RankedSources, make_source_metrics
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from ..transfer.sources import take_source
from .rows import RunRows, stream_of
from .runfile import streamed_content
from .source_arguments import SourcesArguments
from .sources import compete, items_without_metadata
from .trainer_arguments import RecommenderTrainingArguments

if TYPE_CHECKING:
    import datasets


def open_shards(folder: str, settings: Mapping[str, Any], *, missing_items: str) -> SequenceShards:
    """A folder of prepared sequences, with what its items file or its own table says of the items.

    Args:
        folder: The prepared folder.
        settings: Those of a source: `items_file`, `item_column`, `title_column` and `content_columns`.
        missing_items: What becomes of items that the items file lacks: `keep` or `refuse`.

    Raises:
        ValueError: With the folder; items to be left out count as tokens of the sequences already.
    """
    shards, columns = SequenceShards(Path(folder)), LogColumns.of(settings)
    names = {**({"title": columns.title_column} if columns.title_column else {}), **columns.content_columns}
    try:
        if settings["items_file"] is not None:
            items = read_items(settings["items_file"], columns.item_column, "item_id")
        elif names or missing_items != "keep":
            items = shards.tokenizer.items
        else:
            return shards
        items = with_content_columns(items, names)
        ids = shards.tokenizer.items["item_id"].combine_chunks()
        if items_without_metadata(ids, items, missing_items, folder):
            raise ValueError(
                "`--missing_items unknown` is not for `--streaming`, whose sequences hold tokens of these items: leave "
                "them out of the log before `hfrec prepare`."
            )
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return replace(shards, items=items)


@dataclass(frozen=True)
class StreamedSources:
    """Folders of prepared sequences, each with a vocabulary of its own.

    Args:
        shards: Of each source by its name, in the order of the vocabulary.
    """

    shards: Mapping[str, SequenceShards]

    @classmethod
    def of(cls, data: SourcesArguments) -> StreamedSources:
        """The folders that the arguments name."""
        return cls(
            {
                source.name: open_shards(source.train_file, vars(source), missing_items=data.missing_items)
                for source in data.log_sources()
            }
        )

    @cached_property
    def tokenizer(self) -> ItemTokenizer:
        """The vocabularies as one."""
        return join_tokenizers({name: shards.tokenizer for name, shards in self.shards.items()})

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """First token of each source and the one after its last."""
        return source_blocks({name: len(shards.tokenizer.items) for name, shards in self.shards.items()})

    def lengths(self) -> NDArray[np.int64]:
        """Training interactions of each user."""
        return np.concatenate([np.asarray(piece.value_lengths()) for piece in self.histories()]).astype(np.int64)

    def histories(self) -> Iterator[pa.ListArray]:
        """Training histories in the joined vocabulary, a row group at a time."""
        for name, shards in self.shards.items():
            for piece in shards.histories("train"):
                yield pa.ListArray.from_arrays(
                    pc.subtract(piece.offsets, piece.offsets[0]), self._moved(piece.flatten(), name)
                )

    def rows(
        self, model: PreTrainedModel, *, data: SourcesArguments, training: RecommenderTrainingArguments
    ) -> RunRows:
        """Rows of the run; the model's labels compete as the arguments say."""
        files = [(file, self.blocks[name]) for name, shards in self.shards.items() for file in shards.files("train")]
        train = stream_of(
            [file for file, _ in files],
            model,
            self.tokenizer,
            data=data,
            training=training,
            blocks=[block for _, block in files],
            temperature=data.source_temperature,
        )
        compete(model, self.blocks, data)
        counts = train.item_counts()
        return RunRows(
            train=train,
            validation=self._targets("validation"),
            split={},
            fingerprint=None,
            sizes={},
            test=lambda best: self._rank(best, counts),
            compute_metrics=make_source_metrics(self.blocks),
        )

    def content(self, train: StreamedBatches) -> dict[str, Any]:
        """What the shards hold, by which an interrupted run knows its logs."""
        prints = {f"{name} fingerprint": shards.info.get("fingerprint") for name, shards in self.shards.items()}
        return {**streamed_content(train, {}), **prints}

    def facts(self, data: SourcesArguments) -> dict[str, Any]:
        """What `all_results.json` says of the sources."""
        return {
            "sources": {
                source.name: {
                    **asdict(source),
                    "train_fingerprint": self.shards[source.name].info.get("fingerprint"),
                    "items": len(self.shards[source.name].tokenizer.items),
                }
                for source in data.log_sources()
            }
        }

    def _moved(self, tokens: Any, name: str) -> Any:
        """Tokens of a source's own vocabulary as those of the joined one; special ones stay."""
        offset = pa.scalar(self.blocks[name][0] - NUM_SPECIAL_TOKENS, pa.int32())
        return pc.if_else(pc.less(tokens, NUM_SPECIAL_TOKENS), tokens, pc.add(tokens, offset))

    def _targets(self, part: Literal["validation", "test"]) -> datasets.Dataset:
        import datasets

        def moved(table: pa.Table, name: str) -> pa.Table:
            """Rows of a source with the ids and tokens of the joined log."""
            lists = table["input_ids"].combine_chunks()
            starts = pc.subtract(lists.offsets, lists.offsets[0])
            users = pc.binary_join_element_wise(pa.scalar(name), table["user_id"].cast(pa.string()), SEPARATOR)
            return pa.table(
                {
                    "user_id": users,
                    "input_ids": pa.ListArray.from_arrays(starts, self._moved(lists.flatten(), name)),
                    "target": self._moved(table["target"], name),
                }
            )

        parts = []
        for name, shards in self.shards.items():
            rows = shards.targets(part).with_format("arrow")
            rows = rows.map(moved, batched=True, fn_kwargs={"name": name}, remove_columns=rows.column_names)
            parts.append(rows.with_format(None))
        return datasets.concatenate_datasets(parts)

    def _rank(self, model: PreTrainedModel, counts: NDArray[np.int64]) -> RankedSources:
        parts = {}
        for name, shards in self.shards.items():
            own, tokenizer = take_source(model, self.tokenizer, name)
            first, stop = self.blocks[name]
            own_counts = np.concatenate([counts[:NUM_SPECIAL_TOKENS], counts[first:stop]])
            fingerprint = shards.info.get("fingerprint")
            parts[name] = rank_rows(own, tokenizer, shards.targets("test"), own_counts, fingerprint=fingerprint)
        return RankedSources(parts, self.blocks)
