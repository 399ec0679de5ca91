"""Several logs as one: users and items carry the name of their source, so that equal ids of two sources never meet.

The item `7` of the source `beauty` is `beauty:7` in the joined log and in the vocabulary, whose table says `source` and
`source_item_id` of each item. The items of a source stand together in the vocabulary, the most frequent first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.interactions import Interactions, InteractionsReport, timestamps_to_numpy
from hfrec.data.splits import Split, SplitReport, split_facts
from hfrec.tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer

SEPARATOR = ":"
SOURCE_COLUMN, SOURCE_ITEM_COLUMN = "source", "source_item_id"
SMALLEST_SOURCE = 2  # items: with one there is nothing to rank
Block = tuple[int, int]


def source_names(paths: Sequence[str]) -> list[str]:
    """A name for each source: that of its file, or where files have the same name that of its folder.

    Raises:
        ValueError: Neither tells the sources apart.

    Example:
        >>> source_names(["data/beauty.csv.gz", "data/toys.csv"])
        ['beauty', 'toys']
        >>> source_names(["beauty/interactions.csv", "toys/interactions.csv"])
        ['beauty', 'toys']
    """
    for names in (
        [Path(path).name.split(".")[0] for path in paths],
        [Path(path).resolve().parent.name for path in paths],
    ):
        if len(set(names)) == len(names) and all(names):
            return [name.replace(SEPARATOR, "-") for name in names]
    raise ValueError(
        f"`--train_file` names files of the same name in folders of the same name: {', '.join(paths)}. Give each "
        "source a name with `--source_names`."
    )


def check_source_names(names: Sequence[str]) -> None:
    """Refuse names that are empty, stand there twice or hold a colon.

    Raises:
        ValueError: With the name.
    """
    for name, count in Counter(names).items():
        if not name or SEPARATOR in name or count > 1:
            found = f"{count} times" if count > 1 else "with a colon" if name else "empty"
            raise ValueError(
                f"A source needs a name of its own without {SEPARATOR!r}, found {name!r} {found}. Change it."
            )


@dataclass(frozen=True)
class JoinedSources:
    """Splits of several logs with their own ids, and what comes of them together.

    Args:
        splits: Of each source by its name, in the order of the vocabulary.
        unknown: Of some sources, items that are treated as unknown: they get no token.

    Raises:
        ValueError: Fewer than two sources, a name that cannot be used, or a source of one item.
    """

    splits: Mapping[str, Split]
    unknown: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        if len(self.splits) < 2:
            raise ValueError(f"Expected at least two sources, found {len(self.splits)}.")
        check_source_names(list(self.splits))
        for name, counts in self._counts.items():
            if len(counts) < SMALLEST_SOURCE:
                raise ValueError(
                    f"The source {name!r} has {len(counts)} item in its training part: nothing can be ranked there. "
                    "Leave it out."
                )

    @cached_property
    def split(self) -> Split:
        """The splits as one, with the ids of the joined log; users of a source stay together."""
        parts = {
            part: self._joined(part, [getattr(split, part) for split in self.splits.values()])
            for part in ("train", "validation", "test")
        }
        reports = [split.report for split in self.splits.values()]
        kinds = {split.targets for split in self.splits.values()}
        return Split(**parts, report=_summed(reports), targets=kinds.pop())

    @cached_property
    def tokenizer(self) -> ItemTokenizer:
        """Vocabulary of the training items, source by source, the most frequent first."""
        ids = [(name, item) for name, counts in self._counts.items() for item in _by_frequency(counts)]
        joined = [f"{name}{SEPARATOR}{item}" for name, item in ids]
        metadata = self.split.train.items
        table = pa.table(
            {"item_id": joined, SOURCE_COLUMN: [n for n, _ in ids], SOURCE_ITEM_COLUMN: [i for _, i in ids]}
        )
        if metadata is not None:
            rows = pc.index_in(table["item_id"], value_set=metadata["item_id"])
            for column in metadata.column_names:
                if column not in table.column_names:
                    table = table.append_column(column, metadata[column].take(rows))
        counts = {f"{name}{SEPARATOR}{item}": self._counts[name][item] for name, item in ids}
        return ItemTokenizer.from_items(joined, metadata=table, counts=counts)

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """First token of each source and the one after its last."""
        return source_blocks({name: len(counts) for name, counts in self._counts.items()})

    def facts(self) -> dict[str, dict[str, Any]]:
        """What results say of each source: its log, sizes and split."""
        return {
            name: {
                "train_fingerprint": split.train.fingerprint,
                "users": split.train.num_users,
                "items": len(self._counts[name]),
                "interactions": len(split.train),
                "log": split.train.report.to_dict(),
                "split": split_facts(split),
            }
            for name, split in self.splits.items()
        }

    @cached_property
    def _counts(self) -> dict[str, Counter[str]]:
        """Training interactions of the items of each source that get a token."""
        found = {}
        for name, split in self.splits.items():
            counted = pc.value_counts(split.train.table["item_id"].combine_chunks())
            counts = Counter(
                dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
            )
            for item in self.unknown.get(name, ()):
                counts.pop(item, None)
            found[name] = counts
        return found

    def _joined(self, part: str, logs: Sequence[Interactions]) -> Interactions:
        times = [timestamps_to_numpy(log.table["timestamp"]) for log in logs]
        tables = [
            pa.table(
                {
                    "user_id": _with_name(name, log.table["user_id"]),
                    "item_id": _with_name(name, log.table["item_id"]),
                    # Only the order within a user counts: a source may have seconds, another one dates.
                    "timestamp": time.astype(np.result_type(*(values.dtype for values in times))),
                }
            )
            for name, log, time in zip(self.splits, logs, times, strict=True)
        ]
        items = (
            _joined_items({name: log.items for name, log in zip(self.splits, logs, strict=True)})
            if part == "train"
            else None
        )
        report = _summed_reports(" + ".join(self.splits), [log.report for log in logs])
        return Interactions(table=pa.concat_tables(tables), items=items, report=report)


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


def _by_frequency(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))


def _joined_items(tables: Mapping[str, pa.Table | None]) -> pa.Table | None:
    """Metadata of all sources; a column that one of them lacks is null there."""
    given = [
        table.set_column(table.column_names.index("item_id"), "item_id", _with_name(name, table["item_id"]))
        for name, table in tables.items()
        if table is not None
    ]
    if not given:
        return None
    try:
        return pa.concat_tables(given, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(
            f"The items files of the sources disagree about a column's type: {error}. Make them alike, or rename the "
            "column of one."
        ) from error


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
