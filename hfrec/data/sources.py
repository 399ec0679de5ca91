"""Several logs as one: users and items carry the name of their source, so that equal ids of two sources never meet.

The item `7` of the source `beauty` is `beauty:7` in the joined log and in the vocabulary, whose table says `source` and
`source_item_id` of each item. The items of a source stand together in the vocabulary, the most frequent first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.interactions import Interactions, InteractionsReport, timestamps_to_numpy
from hfrec.data.source_names import SEPARATOR, check_source_names
from hfrec.data.splits import Split, SplitReport, split_facts
from hfrec.tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, counts_of

SOURCE_COLUMN, SOURCE_ITEM_COLUMN = "source", "source_item_id"
SMALLEST_SOURCE = 2  # items: with one there is nothing to rank
Block = tuple[int, int]


@dataclass(frozen=True)
class JoinedSources:
    """Splits of several logs with their own ids, and what comes of them together.

    Args:
        splits: Of each source by its name, in the order of the vocabulary.
        tokenizers: Vocabularies of the sources, in the same order.

    Raises:
        ValueError: Fewer than two sources, a name that cannot be used, or a source of one item.
    """

    splits: Mapping[str, Split]
    tokenizers: Mapping[str, ItemTokenizer]

    def __post_init__(self) -> None:
        _ = self.tokenizer  # refuses what cannot be joined before anything is trained

    @cached_property
    def tokenizer(self) -> ItemTokenizer:
        """The vocabularies as one."""
        return join_tokenizers(self.tokenizers)

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """First token of each source and the one after its last."""
        return source_blocks({name: len(tokenizer.items) for name, tokenizer in self.tokenizers.items()})

    @cached_property
    def split(self) -> Split:
        """The splits as one, with the ids of the joined log; users of a source stay together."""
        train, validation, test = (
            join_logs({name: getattr(split, part) for name, split in self.splits.items()})
            for part in ("train", "validation", "test")
        )
        report = _summed([split.report for split in self.splits.values()])
        (targets,) = {split.targets for split in self.splits.values()}
        return Split(train=train, validation=validation, test=test, report=report, targets=targets)

    def facts(self) -> dict[str, dict[str, Any]]:
        """What results say of each source: its log, sizes and split."""
        return {
            name: {**facts_of_source(split.train, self.tokenizers[name]), "split": split_facts(split)}
            for name, split in self.splits.items()
        }


def facts_of_source(train: Interactions, tokenizer: ItemTokenizer) -> dict[str, Any]:
    """What results say of the rows of a source that are trained on."""
    return {
        "train_fingerprint": train.fingerprint,
        "users": train.num_users,
        "items": len(tokenizer.items),
        "interactions": len(train),
        "log": train.report.to_dict(),
    }


def join_logs(logs: Mapping[str, Interactions]) -> Interactions:
    """Several logs as one, users and items under the names of their sources, without metadata."""
    times = [timestamps_to_numpy(log.table["timestamp"]) for log in logs.values()]
    kind = np.result_type(*(values.dtype for values in times))
    tables = [
        pa.table(
            {
                "user_id": _with_name(name, log.table["user_id"]),
                "item_id": _with_name(name, log.table["item_id"]),
                "timestamp": time.astype(kind),  # only the order within a user counts
            }
        )
        for (name, log), time in zip(logs.items(), times, strict=True)
    ]
    report = _summed_reports(" + ".join(logs), [log.report for log in logs.values()])
    return Interactions(table=pa.concat_tables(tables), items=None, report=report)


def join_tokenizers(tokenizers: Mapping[str, ItemTokenizer]) -> ItemTokenizer:
    """The vocabularies of several sources as one, source by source, each in its own order.

    Args:
        tokenizers: Of each source by its name.

    Returns:
        A tokenizer of the items `source:item`, whose table says `source` and `source_item_id` of each, and whatever the
        tables of the sources say.

    Raises:
        ValueError: Fewer than two sources, a name that cannot be used, a source of one item, or a column that has
            another type in another source.

    Example:
        >>> own = {"beauty": ItemTokenizer.from_items(["7", "8"]), "toys": ItemTokenizer.from_items(["7", "9"])}
        >>> join_tokenizers(own).items["item_id"].to_pylist()
        ['beauty:7', 'beauty:8', 'toys:7', 'toys:9']
    """
    if len(tokenizers) < 2:
        raise ValueError(f"Expected at least two sources, found {len(tokenizers)}.")
    check_source_names(list(tokenizers))
    tables = []
    for name, tokenizer in tokenizers.items():
        table = tokenizer.items
        if len(table) < SMALLEST_SOURCE:
            raise ValueError(
                f"The source {name!r} has {len(table)} item in its training part: nothing can be ranked there. Leave "
                "it out."
            )
        raw = table["item_id"]
        table = table.drop_columns([c for c in (SOURCE_COLUMN, SOURCE_ITEM_COLUMN) if c in table.column_names])
        table = table.set_column(table.column_names.index("item_id"), "item_id", _with_name(name, raw))
        table = table.append_column(SOURCE_COLUMN, pa.array([name] * len(table)))
        tables.append(table.append_column(SOURCE_ITEM_COLUMN, raw))
    joined = _below_each_other(tables)
    return ItemTokenizer.from_items(joined["item_id"], metadata=joined, counts=counts_of(joined))


def _below_each_other(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(
            f"The items files of the sources disagree about a column's type: {error}. Make them alike, or rename the "
            "column of one."
        ) from error


def source_blocks(sizes: Mapping[str, int]) -> dict[str, Block]:
    """First token of each source and the one after its last, from the numbers of items.

    Example:
        >>> source_blocks({"beauty": 2, "toys": 3})
        {'beauty': (3, 5), 'toys': (5, 8)}
    """
    bounds = (NUM_SPECIAL_TOKENS + np.cumsum([0, *sizes.values()])).tolist()
    return dict(zip(sizes, pairwise(bounds), strict=True))


def _with_name(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(pa.scalar(name), column.cast(pa.string()), SEPARATOR)


def _summed(reports: Sequence[SplitReport]) -> SplitReport:
    """One report of several: numbers added, shares weighted."""
    names = ("num_train", "num_validation", "num_test", "users_without_test", "users_without_validation")
    sums = {name: sum(getattr(report, name) for report in reports) for name in names}
    return SplitReport(
        strategy=reports[0].strategy,
        **sums,
        validation_tie_share=_mean_share(reports, "validation"),
        test_tie_share=_mean_share(reports, "test"),
    )


def _mean_share(reports: Sequence[SplitReport], part: str) -> float:
    sizes = [getattr(report, f"num_{part}") for report in reports]
    shares = [getattr(report, f"{part}_tie_share") for report in reports]
    return float(np.dot(sizes, shares) / max(1, sum(sizes)))


def _summed_reports(source: str, reports: Sequence[InteractionsReport]) -> InteractionsReport:
    rows = [report.to_dict() for report in reports]
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("source", "core_rounds")}
    return InteractionsReport(source=source, core_rounds=max(row["core_rounds"] for row in rows), **sums)
