"""The flags of a log, of its split and of repeats. Nothing is imported here: help must not wait for a library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Choice = Literal["auto", "true", "false"]
TEMPORAL_FLAGS = ("validation_start", "test_start", "validation_ratio", "test_ratio")


@dataclass
class LogArguments:
    """Where a log comes from, what its columns are called, and what is dropped."""

    train_file: str | None = field(default=None, metadata={"help": "File, folder or glob of the interaction log."})
    dataset: str | None = field(default=None, metadata={"help": "ml-100k, ml-1m, synthetic or a hub id."})
    items_file: str | None = field(default=None, metadata={"help": "Item metadata (title, …) by item id."})
    title_column: str | None = field(
        default=None, metadata={"help": "Column of the items' names, in --items_file or the log. Default: title."}
    )
    user_column: str = field(default="user_id", metadata={"help": "Column of the user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    timestamp_column: str = field(default="timestamp", metadata={"help": "Column of the times."})
    delimiter: str | None = field(
        default=None,
        metadata={"help": "What separates the columns of a text file, such as ';' or tab; else its first line says."},
    )
    min_user_interactions: int = field(default=1, metadata={"help": "Users with fewer are dropped (k-core)."})
    min_item_interactions: int = field(default=1, metadata={"help": "Items with fewer are dropped (k-core)."})
    duplicates: Literal["keep", "first", "last", "consecutive"] = field(
        default="keep", metadata={"help": "What becomes of repeated (user, item) pairs."}
    )

    def __post_init__(self) -> None:
        if (self.train_file is None) == (self.dataset is None):
            raise ValueError("Expected exactly one of `--train_file` and `--dataset`.")

    @property
    def source(self) -> str:
        """The file or the name of the data set."""
        return self.train_file or self.dataset or ""


@dataclass
class SplitArguments:
    """How the log is divided into training, validation and test."""

    protocol: Literal["leave_one_out", "temporal", "user_ratio"] = field(
        default="leave_one_out",
        metadata={
            "help": "Each user's last two items are held out, or everything from one time on, or the newest share of "
            "each user."
        },
    )
    validation_start: str | None = field(
        default=None, metadata={"help": "temporal: first time of validation. Default: by --validation_ratio."}
    )
    test_start: str | None = field(
        default=None, metadata={"help": "temporal: first time of the test. Default: by --test_ratio."}
    )
    validation_ratio: float | None = field(
        default=None,
        metadata={"help": "Share, of all interactions or of each user's, before the test; 0.1 if left out."},
    )
    test_ratio: float | None = field(
        default=None,
        metadata={"help": "Share, of all interactions or of each user's, the newest; 0.1 if left out."},
    )

    def __post_init__(self) -> None:
        own = {"temporal": TEMPORAL_FLAGS, "user_ratio": TEMPORAL_FLAGS[2:]}.get(self.protocol, ())
        given = [name for name in TEMPORAL_FLAGS if getattr(self, name) is not None and name not in own]
        if given:
            flags = ", ".join(f"`{name}`" for name in given)
            needed = "temporal" if given[0].endswith("start") else "temporal` or `user_ratio"
            raise ValueError(f"{flags} need `--protocol {needed}`, found {self.protocol}: add it or leave them out.")
        for part in ("validation", "test"):
            start, ratio = getattr(self, f"{part}_start"), getattr(self, f"{part}_ratio")
            if start is not None and ratio is not None:
                raise ValueError(f"`{part}_start` and `{part}_ratio` say the same twice: give one of them.")
            if ratio is not None and not 0.0 < ratio < 1.0:
                raise ValueError(f"`{part}_ratio` must lie in (0, 1), found {ratio}.")


@dataclass
class ProtocolArguments(SplitArguments):
    """The split, and whether items that a user had are left out."""

    filter_seen: Choice = field(
        default="auto",
        metadata={
            "help": "Whether items of the history are left out where the best checkpoint is chosen and items are "
            "recommended. auto: training measures repeats on validation; evaluating does as the checkpoint says."
        },
    )
