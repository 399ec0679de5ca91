"""The flags that name the columns of a log which a checkpoint is asked about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class ColumnFlags:
    """What the log calls its columns, where it is not as in training."""

    user_column: str | None = field(default=None, metadata={"help": "Column of the user ids. Default: of training."})
    item_column: str | None = field(default=None, metadata={"help": "Column of the item ids. Default: of training."})
    timestamp_column: str | None = field(default=None, metadata={"help": "Column of the times. Default: of training."})
    delimiter: str | None = field(
        default=None, metadata={"help": "What separates the columns of a text file. Default: as in training."}
    )


@dataclass(kw_only=True)
class LogFlags(ColumnFlags):
    """How a log is read of which a checkpoint is asked, where not as in training, and which state of the checkpoint."""

    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    duplicates: Literal["keep", "first", "last", "consecutive"] | None = field(
        default=None, metadata={"help": "What becomes of repeated (user, item) pairs. Default: as in training."}
    )
