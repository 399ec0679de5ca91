"""Read, filter and report a log; write it as Parquet.

hfrec prepare --dataset ml-100k --output_dir prepared --min_user_interactions 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .parsing import parse_arguments


@dataclass
class PrepareArguments:
    """The source, what is dropped, and where the table goes."""

    output_dir: str = field(metadata={"help": "Folder that gets interactions.parquet, items.parquet and report.json."})
    train_file: str | None = field(default=None, metadata={"help": "File, folder or glob of the interaction log."})
    dataset: str | None = field(default=None, metadata={"help": "Named data set or hub id."})
    user_column: str = field(default="user_id", metadata={"help": "Column of the user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    timestamp_column: str = field(default="timestamp", metadata={"help": "Column of the times."})
    min_user_interactions: int = field(default=1, metadata={"help": "Users with fewer are dropped (k-core)."})
    min_item_interactions: int = field(default=1, metadata={"help": "Items with fewer are dropped (k-core)."})
    duplicates: str = field(default="keep", metadata={"help": "keep, first, last or consecutive."})

    def __post_init__(self) -> None:
        if (self.train_file is None) == (self.dataset is None):
            raise ValueError("Expected exactly one of `--train_file` and `--dataset`.")


def parse(words: Sequence[str]) -> PrepareArguments:
    """Flags or a settings file into the dataclass."""
    (arguments,) = parse_arguments("prepare", (PrepareArguments,), words)
    return arguments  # type: ignore[no-any-return]


def main(arguments: PrepareArguments) -> dict[str, Any]:
    """Write the validated table and say what was dropped."""
    import pyarrow.parquet as pq

    from ..data.files import check_new_folder, whole_files, write_json
    from ..data.interactions import load_interactions
    from ..data.splits import leakage_audit, leave_one_out

    folder = Path(arguments.output_dir)
    check_new_folder(folder)
    interactions = load_interactions(
        arguments.train_file or arguments.dataset,
        user_column=arguments.user_column,
        item_column=arguments.item_column,
        timestamp_column=arguments.timestamp_column,
        min_user_interactions=arguments.min_user_interactions,
        min_item_interactions=arguments.min_item_interactions,
        duplicates=arguments.duplicates,  # type: ignore[arg-type]  # checked by load_interactions
    )
    split = leave_one_out(interactions)
    report = {
        "interactions": interactions.report.to_dict(),
        "fingerprint": interactions.fingerprint,
        "leave_one_out": split.report.to_dict(),
    }
    with whole_files(folder) as draft:
        pq.write_table(interactions.table, draft / "interactions.parquet")
        if interactions.items is not None:
            pq.write_table(interactions.items, draft / "items.parquet")
        write_json(draft / "report.json", report)
    print(interactions.report)
    print(split.report)
    print(leakage_audit(split))
    return report
