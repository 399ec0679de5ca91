"""The flags of a run on several sources. Nothing heavy is imported here: help must not wait for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..data.columns import content_columns
from ..data.source_names import check_source_names, source_names
from .arguments import DataArguments

NO_ITEMS = "none"  # in place of an items file


@dataclass(frozen=True)
class LogSource:
    """One source of several.

    Args:
        train_file: File, folder or glob of the log, or a named data set.
        name: What its users and items are called after.
        items_file: Item metadata.
        user_column, item_column, timestamp_column: Names in the log.
        delimiter: What separates its columns; None for what its first line shows.
        where: Conditions that every kept interaction meets, such as "country!=France".
        min_user_interactions, min_item_interactions: The k-core.
        duplicates: What becomes of repeated (user, item) pairs.
        content_columns: What the items file calls columns that sources have in common, such as `{"title": "name"}`.
        license, domain: What a model card says of it.
    """

    train_file: str
    name: str
    items_file: str | None = None
    user_column: str = "user_id"
    item_column: str = "item_id"
    timestamp_column: str = "timestamp"
    delimiter: str | None = None
    where: Sequence[str] = ()
    min_user_interactions: int = 1
    min_item_interactions: int = 1
    duplicates: Literal["keep", "first", "last", "consecutive"] = "keep"
    content_columns: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    domain: str | None = None


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
        if not self.source_temperature > 0:
            raise ValueError(f"`--source_temperature` must be above 0, found {self.source_temperature}.")
        self.train_file = [self.train_file] if isinstance(self.train_file, str) else self.train_file
        self.items_file = [self.items_file] if isinstance(self.items_file, str) else self.items_file
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
        shared["content_columns"] = content_columns(self.content_columns)
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
