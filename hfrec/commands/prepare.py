"""Read, filter and report a log; write it as Parquet.

hfrec prepare --dataset ml-100k --output_dir prepared --min_user_interactions 5
hfrec prepare "logs/*.parquet" sequences --layout sequences
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..data.arguments import LogArguments, SplitArguments
from .parsing import parse_arguments

if TYPE_CHECKING:
    from ..data.interactions import Interactions


@dataclass(kw_only=True)
class PrepareArguments(LogArguments):
    """The source, what is dropped, and where the table goes."""

    words: ClassVar[tuple[str, ...]] = ("train_file", "output_dir")

    output_dir: str = field(metadata={"help": "Folder that gets interactions.parquet, items.parquet and report.json."})
    where: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Keep only what meets each condition, column=value or column!=value: --where country=France."
        },
    )
    session_gap: str | None = field(
        default=None,
        metadata={
            "help": "Make a user of each session, which ends with a pause above this: 30m, 12h, or a number in the "
            "unit of the log's times. The minimum counts and --duplicates are then of sessions."
        },
    )
    layout: Literal["table", "sequences"] = field(
        default="table",
        metadata={"help": "One table, or shards of token ids for `pretrain --streaming true`, of logs of any size."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout == "sequences" and (self.items_file is not None or self.title_column is not None):
            raise ValueError(
                "`--layout sequences` reads items.* beside interactions.* of a folder: put the file there in place of "
                "`--items_file`, its names in a column `title` in place of `--title_column`."
            )
        if self.layout == "sequences" and (self.duplicates != "keep" or self.where or self.session_gap):
            raise ValueError(
                f"`--layout sequences` takes the log as it is, found `duplicates` {self.duplicates!r}, "
                f"`session_gap` {self.session_gap} and `where` {self.where}: filter the log before."
            )


def parse(words: Sequence[str]) -> tuple[PrepareArguments, SplitArguments]:
    """Flags or a settings file into the dataclasses."""
    arguments, protocol = parse_arguments("prepare", (PrepareArguments, SplitArguments), words)
    if arguments.layout == "sequences" and protocol.protocol != "leave_one_out":
        raise ValueError(
            f"`--layout sequences` divides by leave-one-out alone: for `--protocol {protocol.protocol}` write a table, "
            f"and give it to `hfrec pretrain --protocol {protocol.protocol}`."
        )
    return arguments, protocol


def main(words: tuple[PrepareArguments, SplitArguments]) -> dict[str, Any]:
    """Write the validated table and say what was dropped."""
    import pyarrow.parquet as pq

    from ..data.files import check_new_folder, seal, whole_files, write_json
    from ..data.splits import leakage_audit
    from ..data.temporal import split_log

    arguments, protocol = words
    folder = Path(arguments.output_dir)
    check_new_folder(folder)
    if arguments.layout == "sequences":
        return _sequences(arguments, folder)
    interactions = _interactions(arguments)
    split = split_log(interactions, protocol)
    report = {
        "interactions": interactions.report.to_dict(),
        "fingerprint": interactions.fingerprint,
        protocol.protocol: split.report.to_dict(),
    }
    with whole_files(folder) as draft:
        pq.write_table(interactions.table, draft / "interactions.parquet")
        if interactions.items is not None:
            pq.write_table(interactions.items, draft / "items.parquet")
        write_json(draft / "report.json", report)
        seal(draft)
    print(interactions.report)
    print(split.report)
    print(leakage_audit(split))
    return report


def _interactions(arguments: PrepareArguments) -> Interactions:
    """The log, filtered; of a log that is cut into sessions these are what is filtered."""
    from ..data.columns import LogColumns
    from ..data.filters import LogFilters
    from ..data.interactions import load_interactions
    from ..data.sessions import split_sessions

    flags = vars(arguments)
    filters, columns = LogFilters.of(flags), LogColumns.of(flags)
    first = LogFilters(where=arguments.where) if arguments.session_gap else filters
    interactions = load_interactions(arguments.source, columns=columns, filters=first, items=arguments.items_file)
    if not arguments.session_gap:
        return interactions
    users = interactions.num_users
    sessions = split_sessions(interactions, arguments.session_gap)
    print(f"{users:,} users have {sessions.num_users:,} sessions (pause above {arguments.session_gap})")
    return load_interactions(sessions.table, filters=replace(filters, where=()), items=interactions.items)


def _sequences(arguments: PrepareArguments, folder: Path) -> dict[str, Any]:
    from ..data.catalogs import NAMED_DATASETS
    from ..data.columns import LogColumns
    from ..data.interactions import load_interactions
    from ..data.large import prepare_sequences

    source = arguments.source
    if source in NAMED_DATASETS:
        raise ValueError(f"`dataset` {source!r} fits into memory: write its table first, then prepare that file.")
    stream = load_interactions(source, streaming=True, columns=LogColumns.of(vars(arguments)))
    info = prepare_sequences(
        stream,
        folder,
        min_user_interactions=arguments.min_user_interactions,
        min_item_interactions=arguments.min_item_interactions,
    )
    print(
        f"{info['source']}: {info['rows_read']:,} interactions read; kept {info['num_interactions']:,} of "
        f"{info['num_users']:,} users on {info['num_items']:,} items, {info['tied_interactions']:,} tied in time\n"
        f"leave_one_out: {info['num_train']:,} train, {info['num_validation']:,} validation and {info['num_test']:,} "
        f"test interactions; tied in time: {info['validation_tie_share']:.1%} of validation, "
        f"{info['test_tie_share']:.1%} of test\nSequences: {folder}"
    )
    return info
