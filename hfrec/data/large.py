"""A log of any size to a folder of tokenised sequences, out of core: `docs/scaling.md` describes the layout.

The log is read piece by piece, spread over parts of users that fit into memory (Polars' streaming engine), and each
part is sorted and split on its own. Held at a time: users and items with their counts, and one part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hfrec.data.files import DRAFT_PREFIX, seal, sha256_of, whole_files, write_json
from hfrec.data.filters import check_core, nothing_left
from hfrec.data.item_tables import read_items
from hfrec.data.readers import find_items_file
from hfrec.data.sequences import take_lists
from hfrec.data.shards import INFO_FILE, PARTS
from hfrec.data.streams import InteractionStream
from hfrec.tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
INTERACTIONS_PER_SHARD = 2_000_000
ROW_GROUP_SIZE = 8192


@dataclass
class _Log:
    """The log by codes: users in order, items in any order, and where the parts of users lie."""

    users: pa.Array
    items: pa.Array
    parts: list[Path]
    rows_read: int


def prepare_sequences(
    stream: InteractionStream,
    folder: Path,
    *,
    min_user_interactions: int = 1,
    min_item_interactions: int = 1,
    interactions_per_shard: int = INTERACTIONS_PER_SHARD,
) -> dict[str, Any]:
    """Write the leave-one-out split of a log as shards of token ids, with their tokenizer.

    Equal to `load_interactions`, `leave_one_out`, `to_sequences` and `to_evaluation_sequences` on a log that fits into
    memory: the same users, order, ties in the order of the source, vocabulary and targets.

    Args:
        stream ([`InteractionStream`]): The log.
        folder (`Path`): New folder; it gets `train/`, `validation/` and `test/` with `part-*.parquet`, the tokenizer,
            `items.parquet` and `dataset_info.json`.
        min_user_interactions (`int`), min_item_interactions (`int`): k-core, as in `load_interactions`.
        interactions_per_shard (`int`): About how many are sorted at a time. More need more memory.

    Returns:
        What `dataset_info.json` holds.

    Raises:
        ImportError: Polars is not installed.
        ValueError: A row that cannot be read, or nothing left.
    """
    check_core(min_user_interactions, min_item_interactions)
    metadata = find_items_file(stream.source)
    with whole_files(folder) as draft, TemporaryDirectory(dir=folder, prefix=DRAFT_PREFIX) as work, _engine_errors():
        log = _spread(stream, Path(work), interactions_per_shard)
        users_kept, items_kept, rounds = _core(log, min_user_interactions, min_item_interactions)
        if not users_kept.any():
            least = min_user_interactions, min_item_interactions
            raise nothing_left(stream.source, *least, rows=log.rows_read, users=len(log.users))
        facts, counts = _sort_parts(log, users_kept, items_kept)
        items = None if metadata is None else read_items(metadata, stream.names["item_id"], "item_id")
        tokenizer, tokens = _tokenizer(log, counts, items)
        written = _write_parts(log, tokens, tokenizer.unk_token_id, draft)
        tokenizer.save_pretrained(draft)
        info = {
            "layout": "hfrec sequences 1",
            "source": stream.source,
            "split": "leave_one_out",
            "rows_read": log.rows_read,
            "num_interactions": facts["num_interactions"],
            "num_users": int(users_kept.sum()),
            "num_items": int(items_kept.sum()),
            "vocab_size": len(tokenizer),
            "core_rounds": rounds,
            **facts,
            **written,
            "files": {path.relative_to(draft).as_posix(): sha256_of(path) for path in _written(draft)},
        }
        write_json(draft / INFO_FILE, info)
        seal(draft)
    return info


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Polars has errors of its own for a full disk; they share no parent with Python's."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] != "polars":
            raise
        raise OSError(f"the log could not be sorted: {error} Free disk space beside the output, or memory.") from error


def _spread(stream: InteractionStream, work: Path, interactions_per_shard: int) -> _Log:
    """The log as rows `(user code, item code, time, place in the source)`, users of one range to one folder."""
    try:
        import polars as pl
    except ImportError as error:
        raise ImportError("preparing sequences needs Polars: `pip install 'hfrec[large]'`.") from error
    rows_read = _stage(stream, work / "log.parquet")
    log = pl.scan_parquet(work / "log.parquet")
    items = log.select("item_id").unique().collect(engine="streaming").sort("item_id").with_row_index("item")
    users = log.group_by("user_id").len().collect(engine="streaming").sort("user_id").with_row_index("user")
    before = pl.col("len").cast(pl.Int64).cum_sum() - pl.col("len").cast(pl.Int64)
    users = users.with_columns(part=before // interactions_per_shard)
    coded = (
        log.with_row_index("place")
        .join(users.lazy().select("user_id", "user", "part"), on="user_id")
        .join(items.lazy(), on="item_id")
        .select("part", "user", "item", "timestamp", "place")
    )
    coded.sink_parquet(pl.PartitionBy(work / "parts", key=["part"], include_key=False), mkdir=True, engine="streaming")
    (work / "log.parquet").unlink()
    numbers = users["part"].unique(maintain_order=True).to_list()
    parts = [work / "parts" / f"part={number}" for number in numbers]
    return _Log(_strings(users["user_id"]), _strings(items["item_id"]), parts, rows_read)


def _strings(series: Any) -> pa.Array:
    return series.to_arrow().cast(pa.string())


def _stage(stream: InteractionStream, path: Path) -> int:
    """The validated log in one file; integer and fractional times in one log are all fractional."""
    kind: pa.DataType | None = None
    for _ in range(2):  # a second time where the first piece does not show the kind of all
        rows, mixed, writer = 0, False, None
        try:
            for table in stream:
                found = table.schema.field("timestamp").type
                kind = kind or found
                if {str(kind), str(found)} == {"int64", "double"}:
                    mixed = mixed or kind != pa.float64()
                    table = table.set_column(2, "timestamp", table["timestamp"].cast(kind, safe=False))
                elif found != kind:
                    raise ValueError(
                        f"The files of {stream.source} disagree about the kind of time: {kind} and {found}. "
                        "Make them alike."
                    )
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table)
                rows += len(table)
        finally:
            if writer is not None:
                writer.close()
        if not mixed:
            return rows
        kind = pa.float64()
    return rows


def _core(log: _Log, min_user: int, min_item: int) -> tuple[BoolArray, BoolArray, int]:
    """Users and items that stay, and the passes until nothing changed: k-core on counts alone."""
    users, items, rounds = np.ones(len(log.users), bool), np.ones(len(log.items), bool), 0
    if min_user == min_item == 1:
        return users, items, rounds
    while True:
        user_counts, item_counts = np.zeros(len(users), np.int64), np.zeros(len(items), np.int64)
        for part in log.parts:
            table = pq.read_table(part, columns=["user", "item"], partitioning=None)
            user, item = (np.asarray(table[name].combine_chunks(), dtype=np.int64) for name in ("user", "item"))
            kept = users[user] & items[item]
            user_counts += np.bincount(user[kept], minlength=len(users))
            item_counts += np.bincount(item[kept], minlength=len(items))
        few_users, few_items = (
            (user_counts > 0) & (user_counts < min_user),
            (item_counts > 0) & (item_counts < min_item),
        )
        users, items = user_counts >= min_user, item_counts >= min_item
        if not few_users.any() and not few_items.any():
            return users & (user_counts > 0), items & (item_counts > 0), rounds
        rounds += 1


def _sort_parts(log: _Log, users_kept: BoolArray, items_kept: BoolArray) -> tuple[dict[str, Any], IntArray]:
    """Sort each part by user, time and place, in place; gives the counts of the split and of each training item."""
    facts = dict.fromkeys(("num_interactions", *(f"num_{part}" for part in PARTS), "tied_interactions"), 0)
    ties = {"validation": 0, "test": 0}
    counts = np.zeros(len(log.items), dtype=np.int64)
    for number, part in enumerate(log.parts):
        table = pq.read_table(part, partitioning=None)
        user, item, place = (
            np.asarray(table[name].combine_chunks(), dtype=np.int64) for name in ("user", "item", "place")
        )
        time = table["timestamp"].combine_chunks()
        time = np.asarray(time.cast(pa.int64()) if pa.types.is_timestamp(time.type) else time)
        kept = np.flatnonzero(users_kept[user] & items_kept[item])
        order = kept[np.lexsort((place[kept], time[kept], user[kept]))]
        user, item, time = user[order], item[order], time[order]
        tied = np.append((user[1:] == user[:-1]) & (time[1:] == time[:-1]), False)  # with the next row
        label = _labels(user)
        counts += np.bincount(item[label == 0], minlength=len(counts))
        facts["num_interactions"] += len(user)
        facts["tied_interactions"] += int(tied.sum())
        for place_of, name in enumerate(PARTS):
            facts[f"num_{name}"] += int((label == place_of).sum())
        ties["validation"] += int(((label == 1) & (tied | np.append(False, tied[:-1]))).sum())
        ties["test"] += int(((label == 2) & np.append(False, tied[:-1])).sum())
        sorted_table = pa.table({"user": user, "item": item, "label": label})
        log.parts[number] = part.with_name(f"sorted-{number}.parquet")
        pq.write_table(sorted_table, log.parts[number], compression="zstd")
    shares = {f"{name}_tie_share": count / max(1, facts[f"num_{name}"]) for name, count in ties.items()}
    return {**facts, **shares}, counts


def _labels(user: IntArray) -> npt.NDArray[np.int8]:
    """0 for train, 1 for validation, 2 for test, as `leave_one_out` divides a sorted log."""
    _, starts, sizes = np.unique(user, return_index=True, return_counts=True)
    size = np.repeat(sizes, sizes)
    age = np.repeat(starts + sizes, sizes) - 1 - np.arange(len(user))
    test, validation = (age == 0) & (size > 1), (age == 1) & (size > 2)
    return np.asarray(2 * test + validation, dtype=np.int8)


def _tokenizer(log: _Log, counts: IntArray, metadata: pa.Table | None) -> tuple[ItemTokenizer, IntArray]:
    """Vocabulary of the training items, the most frequent first, and the token of each item code; 0 is none."""
    codes = np.flatnonzero(counts)
    codes = codes[np.argsort(-counts[codes], kind="stable")]  # items are in order: ties by id
    tokens = np.zeros(len(counts), dtype=np.int64)
    tokens[codes] = np.arange(len(codes)) + NUM_SPECIAL_TOKENS
    ids = log.items.take(pa.array(codes)).to_pylist()
    frequencies = dict(zip(ids, counts[codes].tolist(), strict=True))
    return ItemTokenizer.from_items(ids, metadata=metadata, counts=frequencies), tokens


def _write_parts(log: _Log, tokens: IntArray, unknown: int, folder: Path) -> dict[str, Any]:
    rows = dict.fromkeys(PARTS, 0)
    digests = {name: [hashlib.sha256() for _ in range(4)] for name in PARTS}
    for name in PARTS:
        (folder / name).mkdir()
    for number, part in enumerate(log.parts):
        for name, table in _sequences(pq.read_table(part), log.users, tokens, unknown):
            path = folder / name / f"part-{number:05d}.parquet"
            pq.write_table(table, path, row_group_size=ROW_GROUP_SIZE, compression="zstd")
            rows[name] += len(table)
            for digest, content in zip(digests[name], _content(table), strict=False):
                digest.update(content)
        part.unlink()
    whole = hashlib.sha256("".join(digest.hexdigest() for name in PARTS for digest in digests[name]).encode())
    return {"fingerprint": whole.hexdigest(), "rows": rows}


def _written(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _content(table: pa.Table) -> Iterator[bytes]:
    """Users, lengths, tokens and targets, each on its own, so that the shards' sizes do not change their digest."""
    yield "".join(f"{user}\0" for user in table["user_id"].to_pylist()).encode()
    lists = table["input_ids"].combine_chunks()
    yield np.asarray(pc.list_value_length(lists), dtype=np.int32).tobytes()
    yield np.asarray(lists.flatten(), dtype=np.int32).tobytes()
    if "target" in table.column_names:
        yield np.asarray(table["target"].combine_chunks(), dtype=np.int32).tobytes()


def _sequences(table: pa.Table, users: pa.Array, tokens: IntArray, unknown: int) -> Iterator[tuple[str, pa.Table]]:
    """The rows of the three parts, for the users of one sorted piece."""
    user, item, label = (np.asarray(table[name].combine_chunks(), dtype=np.int64) for name in table.column_names)
    token = tokens[item]
    codes, first = np.unique(user, return_index=True)  # (num_users,)
    stop = np.append(first[1:], len(user))
    names = users.take(pa.array(codes))
    known = token > 0
    values = pa.array(token[known], pa.int32())
    place = np.append(0, np.cumsum(known))  # where the known tokens of each row begin
    row_of = np.searchsorted(codes, user)
    target = np.where(known, token, unknown)
    # A user's training rows come first, then the validation row, then the test row.
    train_stop = np.append(0, np.cumsum(label == 0))
    train_stop = first + train_stop[stop] - train_stop[first]
    filled = place[train_stop] > place[first]
    lists = take_lists(values, place[first][filled], place[train_stop][filled])
    yield "train", pa.table({"user_id": names.filter(pa.array(filled)), "input_ids": lists})
    for name, number in (("validation", 1), ("test", 2)):
        at = np.flatnonzero(label == number)
        rows = row_of[at]
        lists = take_lists(values, place[first[rows]], place[at])
        columns = {"user_id": names.take(pa.array(rows)), "input_ids": lists}
        yield name, pa.table({**columns, "target": pa.array(target[at], pa.int32())})
