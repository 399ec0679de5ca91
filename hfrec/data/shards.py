"""Batches read from shards of sequences: shuffled, divided among processes, none twice and none lost in an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hfrec.data.drawing import draws_of_sources
from hfrec.data.files import check_seal, read_json_object, sha256_of
from hfrec.data.sequences import check_windows, overlapping_windows
from hfrec.tokenization import ITEMS_FILE, NUM_SPECIAL_TOKENS, ItemTokenizer, counts_of

if TYPE_CHECKING:
    import datasets

IntArray = npt.NDArray[np.int64]
INFO_FILE = "dataset_info.json"
PARTS = ("train", "validation", "test")
_REMEDY = "Copy the folder again, or prepare the log again."
_COLUMNS = {"train": ["user_id", "input_ids"], "test": ["user_id", "input_ids", "target"]}


@dataclass(frozen=True)
class SequenceShards:
    """A folder of tokenised sequences, from `hfrec prepare --layout sequences` or any SQL that writes this layout.

    Args:
        folder (`Path`): Holds `train/`, `validation/` and `test/` with Parquet files, `items.parquet` whose row `i` is
            token id `i + 3`, and, from `hfrec prepare`, a tokenizer and `dataset_info.json`.
        items (`pa.Table`, *optional*): What is known of the items, in place of what the folder says of them.

    Raises:
        FileNotFoundError: A part of the layout is missing.
        ValueError: A part lacks a column, or the files are not those that `dataset_info.json` lists.
    """

    folder: Path
    items: pa.Table | None = None

    def __post_init__(self) -> None:
        if not (self.folder / ITEMS_FILE).is_file():
            raise FileNotFoundError(
                f"{self.folder} is no folder of prepared sequences, {ITEMS_FILE} is missing: write one with "
                "`hfrec prepare --layout sequences`."
            )
        for name in PARTS:
            wanted, path = _COLUMNS["train" if name == "train" else "test"], self.files(name)[0]
            found = _footer(path).schema.to_arrow_schema().names
            if not set(wanted) <= set(found):
                raise ValueError(f"{path}: expected the columns {', '.join(wanted)}, found {', '.join(found)}.")
        check_seal(self.folder)
        self._check_promises()

    def _check_promises(self) -> None:
        """Compare the folder with `dataset_info.json`: a shard that is missing or there twice is other data."""
        shards = {f"{part}/{path.name}" for part in PARTS for path in self.files(part)}
        for part, promised in self.info.get("rows", {}).items():
            found = sum(_footer(file).num_rows for file in self.files(part))
            if found != promised:
                raise ValueError(f"{self.folder / part} holds {found:,} rows, {INFO_FILE} says {promised:,}. {_REMEDY}")
        if "files" not in self.info:  # of SQL
            return
        added = sorted(shards - set(self.info["files"]))
        changed = [name for name, digest in self.info["files"].items() if not self._is_whole(name, digest)]
        for names, what in ((added, "not promised"), (changed, "missing or other than promised")):
            if names:
                raise ValueError(f"{self.folder}: {what} by {INFO_FILE}: {', '.join(names[:5])}. {_REMEDY}")

    def _is_whole(self, name: str, digest: str) -> bool:
        path = self.folder / name
        return path.is_file() and sha256_of(path) == digest

    @cached_property
    def tokenizer(self) -> ItemTokenizer:
        """The tokenizer that gave the token ids; without a saved one, of `items.parquet`."""
        if self.items is None and (self.folder / "tokenizer.json").is_file():
            return ItemTokenizer.from_pretrained(self.folder)
        items = pq.read_table(self.folder / ITEMS_FILE)
        metadata = items if self.items is None else self.items
        return ItemTokenizer.from_items(items["item_id"], metadata=metadata, counts=counts_of(items))

    @cached_property
    def info(self) -> dict[str, Any]:
        """What `dataset_info.json` says; empty where SQL wrote the folder."""
        path = self.folder / INFO_FILE
        info = read_json_object(path) if path.is_file() else {}
        for name in ("rows", "files"):
            if not isinstance(info.get(name, {}), dict):
                raise ValueError(f"{path} is damaged: expected an object as `{name}`. {_REMEDY}")
        return info

    def files(self, part: Literal["train", "validation", "test"] | str) -> list[Path]:
        """The shards of a part, in order."""
        files = sorted(path for path in (self.folder / part).glob("*.parquet") if not path.name.startswith("."))
        if not files:
            raise FileNotFoundError(f"{self.folder / part} holds no .parquet file: prepare the log again.")
        for path in files:
            if not path.is_file():  # a pipe would be waited for without end
                raise ValueError(f"{path} is no file, or a link to none. {_REMEDY}")
        return files

    def histories(self, part: Literal["train", "validation", "test"]) -> Iterator[Any]:
        """The token ids of a part as Arrow list arrays, a row group at a time."""
        for path in self.files(part):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=["input_ids"])["input_ids"].combine_chunks()

    def targets(self, part: Literal["validation", "test"]) -> datasets.Dataset:
        """Rows `user_id, input_ids, target` of a part, mapped from disk instead of held in memory."""
        import datasets

        rows = datasets.Dataset.from_parquet([str(file) for file in self.files(part)])
        if len(rows) == 0:
            raise ValueError(
                f"{self.folder / part} holds no user: nothing is left to evaluate on. Prepare a log with three or more "
                "interactions of a user."
            )
        return rows


class StreamedBatches(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
    """Batches of one process, for `DataLoader(dataset, batch_size=None)`.

    An epoch brings each row (or window of a longer history) to exactly one process exactly once, and as many batches
    to each process as to the others: the last one takes one row more where there are fewer rows left than processes.
    The order depends on `seed`, epoch and the numbers of rows and processes, so that a run resumes from any batch;
    the number of worker processes changes nothing: each makes every n-th batch.

    Args:
        files: Parquet files with `input_ids: list<int32>`.
        collator: Makes a batch of rows `{"input_ids": (length,) int32}`.
        batch_size (`int`): Rows of a batch.
        vocab_size (`int`): Token ids lie below it.
        max_length (`int`): Longest row.
        windows (`str`): What becomes of a longer history, as in `to_sequences`.
        min_length (`int`): Shorter rows are left out.
        buffer_size (`int`): Rows that are held and shuffled at a time, besides the order of the row groups.
        seed (`int`): Of the order.
        blocks: Of each file the tokens of its source, the first one and the one after the last, in the vocabulary of
            several sources; its token ids are those of a vocabulary of its own. None: all files share the vocabulary.
        temperature (`float`): How often sources are drawn, as in `draws_of_sources`.
        process (`int`), num_processes (`int`): Which share of the rows is read.

    Raises:
        ValueError: A size is out of range, or there are fewer rows than processes.
    """

    def __init__(
        self,
        files: Sequence[Path],
        collator: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]],
        *,
        batch_size: int,
        vocab_size: int,
        max_length: int,
        windows: Literal["newest", "overlapping"] = "overlapping",
        min_length: int = 1,
        buffer_size: int = 65_536,
        seed: int = 0,
        blocks: Sequence[tuple[int, int]] | None = None,
        temperature: float = 1.0,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("buffer_size", buffer_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        self.files, self.collator, self.batch_size, self.vocab_size = list(files), collator, batch_size, vocab_size
        self.windows, self.min_length, self.max_length = windows, min_length, max_length
        self.stride = check_windows(max_length, windows, None)
        self.buffer_size, self.seed, self.epoch = buffer_size, seed, 0
        self.blocks = [(NUM_SPECIAL_TOKENS, vocab_size)] * len(self.files) if blocks is None else list(blocks)
        self.temperature = temperature
        self.process, self.num_processes = process, num_processes
        self._groups = [(number, group) for number, file in enumerate(files) for group in range(_num_groups(file))]
        self._item_counts = np.zeros(vocab_size, dtype=np.int64)
        counts = []
        for number, group in self._groups:  # one reading of all, which finds bad rows before hours of training
            tokens, starts, _ = self._windows(number, group)
            self._item_counts += np.bincount(tokens, minlength=vocab_size)
            counts.append(len(starts))
        self._counts = np.array(counts, dtype=np.int64)
        if self.num_rows < num_processes:
            raise ValueError(
                f"The shards hold {self.num_rows} rows of at least {min_length} items for {num_processes} processes: "
                "nothing to train on. Give a larger log or fewer processes."
            )

    @property
    def num_rows(self) -> int:
        """Rows of an epoch, of all processes together."""
        return int(self._counts.sum())

    def item_counts(self) -> IntArray:
        """Training interactions of each token, (vocab_size,)."""
        return self._item_counts

    def __len__(self) -> int:
        """Batches of an epoch, the same for each process."""
        return -(-(self.num_rows // self.num_processes) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The order of the rows is another one in each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index, rows in enumerate(self._batches()):
            if index % workers == number:
                yield self.collator([{"input_ids": row} for row in rows])

    def _batches(self) -> Iterator[list[Any]]:
        rows: list[Any] = []
        left = len(self) - 1  # the last batch takes whatever is left
        for row in self._rows():
            rows.append(row)
            if left and len(rows) == self.batch_size:
                yield rows
                rows, left = [], left - 1
        yield rows

    def _rows(self) -> Iterator[Any]:
        """This process's rows: row groups in random order, then shuffled buffer by buffer."""
        start, stop = (self.num_rows * process // self.num_processes for process in (self.process, self.process + 1))
        draw = np.random.default_rng([self.seed, self.epoch, self.process])
        buffer: list[Any] = []
        first = 0  # place of the piece's first row in the epoch
        for place, begins, stops in self._pieces():
            low, high = begins + max(start - first, 0), begins + min(stop - first, stops - begins)
            first += stops - begins
            if low >= high:
                continue
            tokens, starts, ends = self._windows(*self._groups[place])
            for begin, end in zip(starts[low:high], ends[low:high], strict=True):
                buffer.append(tokens[begin:end])
                if len(buffer) == self.buffer_size:
                    yield from (buffer[index] for index in draw.permutation(len(buffer)))
                    buffer = []
        yield from (buffer[index] for index in draw.permutation(len(buffer)))

    def _pieces(self) -> list[tuple[int, int, int]]:
        """Row groups of the epoch in random order, of each the first row and the one after the last."""
        whole = [(place, 0, int(count)) for place, count in enumerate(self._counts)]
        if self.temperature != 1.0:
            whole = self._drawn(whole)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(whole))
        return [whole[index] for index in order]

    def _drawn(self, whole: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """What each source has in the epoch: a piece of an endless sequence of passes over its row groups."""
        sources = list(dict.fromkeys(self.blocks))
        of_source = [[piece for piece in whole if self._block(piece[0]) == block] for block in sources]
        sizes = [sum(stop for _, _, stop in pieces) for pieces in of_source]
        drawn = []
        for source, (pieces, size, draws) in enumerate(
            zip(of_source, sizes, draws_of_sources(sizes, self.temperature), strict=True)
        ):
            low, high = self.epoch * draws, (self.epoch + 1) * draws
            for number in range(low // size, -(-high // size)):
                first = number * size
                for index in np.random.default_rng([self.seed, source, number]).permutation(len(pieces)):
                    place, _, count = pieces[index]
                    begins, stops = max(low - first, 0), min(high - first, count)
                    first += count
                    if begins < stops:
                        drawn.append((place, begins, stops))
        return drawn

    def _block(self, place: int) -> tuple[int, int]:
        return self.blocks[self._groups[place][0]]

    def _windows(self, number: int, group: int) -> tuple[Any, IntArray, IntArray]:
        """Tokens of a row group, and where its rows begin and end."""
        with pq.ParquetFile(self.files[number]) as file:
            lists = file.read_row_group(group, columns=["input_ids"])["input_ids"].combine_chunks()
        tokens, offsets = self._tokens(lists, number, group)
        starts, ends = offsets[:-1], offsets[1:]
        if self.windows == "newest":
            starts = np.maximum(starts, ends - self.max_length)
        else:
            _, starts, ends = overlapping_windows(starts, ends, max_length=self.max_length, stride=self.stride)
        long_enough = ends - starts >= self.min_length
        return tokens, starts[long_enough], ends[long_enough]

    def _tokens(self, lists: pa.ListArray, number: int, group: int) -> tuple[Any, IntArray]:
        tokens = lists.flatten()
        if lists.null_count or tokens.null_count:
            raise ValueError(f"{self.files[number]}, row group {group}: `input_ids` holds nulls. Drop unknown items.")
        values, (first, stop) = np.asarray(tokens), self.blocks[number]
        last = NUM_SPECIAL_TOKENS + stop - first - 1
        wrong = values[(values < NUM_SPECIAL_TOKENS) | (values > last)]
        if len(wrong):
            raise ValueError(
                f"{self.files[number]}, row group {group}: `input_ids` holds {wrong[0]}, "
                f"expected token ids of items in {NUM_SPECIAL_TOKENS}..{last}. Are the shards and items.parquet of one "
                "preparation?"
            )
        if first != NUM_SPECIAL_TOKENS:
            values = values + np.int32(first - NUM_SPECIAL_TOKENS)
        offsets = np.asarray(lists.offsets, dtype=np.int64)
        return values, offsets - offsets[0]


def _num_groups(file: Path) -> int:
    return int(_footer(file).num_row_groups)


def _footer(file: Path) -> Any:
    """The metadata of a Parquet file.

    Raises:
        ValueError: It is none, or not whole.
    """
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is no whole Parquet file ({error}). {_REMEDY}") from error
