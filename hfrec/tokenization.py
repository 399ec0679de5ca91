"""Raw item ids and token ids: a WordLevel vocabulary without a pre-tokenizer, so that an id may hold spaces."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils.hub import cached_file, extract_commit_hash

if TYPE_CHECKING:
    import pyarrow as pa

SPECIAL_TOKENS = ("[PAD]", "[MASK]", "[UNK]")
NUM_SPECIAL_TOKENS = len(SPECIAL_TOKENS)
IGNORED = -100  # as a label: nothing is to be predicted here
_ITEMS_PER_LOOKUP = 16  # Arrow hashes this many items of the vocabulary in the time that one look-up takes
# How much more than itself an items.parquet may unfold to, besides what is small anyway.
_LARGEST_RATIO = 100
_SMALL = 1 << 26
ITEMS_FILE = "items.parquet"
HUB_PARAMETERS = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "force_download")
UnknownPolicy = Literal["error", "drop", "unk"]


class ItemTokenizer(PreTrainedTokenizerFast):
    """Maps raw item ids to token ids: `[PAD]=0, [MASK]=1, [UNK]=2`, then one token an item.

    The saved folder is loaded by plain `AutoTokenizer` without this class; `items.parquet` beside it adds titles,
    metadata and training counts. Beside a model whose code transformers does not know, `AutoTokenizer` asks whether
    to run it; `trust_remote_code=False` answers, as the tokenizer needs none.

    Example:
        >>> tokenizer = ItemTokenizer.from_items(["b 1", "a"])
        >>> tokenizer.encode_column(["a", "b 1"]).to_pylist()
        [4, 3]
        >>> tokenizer.decode_items([3, 4])
        ['b 1', 'a']
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  # the parent declares it

    # Not set in an `__init__`: the parent reads tokenizer.json as it is only for classes without one.
    _items: pa.Table | None = None

    @classmethod
    def from_items(
        cls,
        items: Iterable[str] | pa.Array | pa.ChunkedArray,
        *,
        metadata: pa.Table | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> ItemTokenizer:
        """Build the vocabulary from item ids, in the order given.

        Args:
            items: Raw item ids, each once; anything but a string is turned into one.
            metadata: Table with `item_id` and further columns (`title`, …); rows of other items are left out.
            counts: Interactions of each item in the training data; 0 where an item is missing.

        Raises:
            ValueError: No item, an id twice, a null id, or the name of a special token as id.
        """
        import pyarrow as pa

        ids = items.to_pylist() if isinstance(items, (pa.Array, pa.ChunkedArray)) else list(items)
        _check_item_ids(ids)
        ids = [str(item) for item in ids]
        vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *ids])}
        if len(vocabulary) != len(ids) + NUM_SPECIAL_TOKENS:
            duplicate = next(item for index, item in enumerate(ids) if vocabulary[item] != index + NUM_SPECIAL_TOKENS)
            raise ValueError(f"`items` must hold each item id once, found {duplicate!r} twice: pass the unique ids.")
        pad, mask, unk = SPECIAL_TOKENS
        tokenizer = cls(
            tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=unk)),
            pad_token=pad,
            mask_token=mask,
            unk_token=unk,
            padding_side="left",
            truncation_side="left",
            clean_up_tokenization_spaces=False,
        )
        tokenizer._items = _items_table(ids, metadata, counts)
        return tokenizer

    @property
    def items(self) -> pa.Table:
        """Table whose row `i` is token id `i + 3`: `item_id`, metadata such as `title`, `count`."""
        if self._items is None:
            self._items = _items_table(self.decode_items(range(NUM_SPECIAL_TOKENS, len(self))), None, None)
        return self._items

    def encode_column(
        self, column: pa.Array | pa.ChunkedArray | Sequence[str], *, unknown: UnknownPolicy = "error"
    ) -> pa.Array | pa.ChunkedArray:
        """Token ids of a column of raw item ids, through Arrow.

        Args:
            column: Raw item ids `(n,)`.
            unknown: What becomes of an id outside the vocabulary: an error, a null (`drop`) or `[UNK]`.

        Returns:
            int32 token ids `(n,)`.

        Raises:
            ValueError: An unknown id under `unknown="error"`, or another policy's name.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if unknown not in ("error", "drop", "unk"):
            raise ValueError(f"`unknown` must be 'error', 'drop' or 'unk', found {unknown!r}.")
        values = column if isinstance(column, (pa.Array, pa.ChunkedArray)) else pa.array(list(column))
        values = values if pa.types.is_string(values.type) else values.cast(pa.string())
        if self.are_few(len(values)):
            tokens = pa.array(self.look_up(values.to_pylist()), pa.int32())
        else:
            index = pc.index_in(values, value_set=self.items["item_id"])
            tokens = pc.cast(pc.add(index, NUM_SPECIAL_TOKENS), pa.int32())
        if unknown == "error" and tokens.null_count:
            missing = pc.unique(values.filter(pc.is_null(tokens)))
            shown = ", ".join(repr(item) for item in missing[:5].to_pylist())
            raise ValueError(
                f"{len(missing)} item ids are not in the vocabulary of {len(self.items)} items: {shown}. "
                "Drop them (unknown='drop'), map them to [UNK] (unknown='unk') or add them to the model first."
            )
        return pc.fill_null(tokens, self.unk_token_id) if unknown == "unk" else tokens

    def are_few(self, num_ids: int) -> bool:
        """Whether so many ids are found sooner one by one than by hashing the whole vocabulary."""
        return num_ids * _ITEMS_PER_LOOKUP < len(self.items)

    def look_up(self, items: Iterable[str | None]) -> list[int | None]:
        """Token id of each raw item id, None where the vocabulary lacks it; for a few ids."""
        token_of = self.backend_tokenizer.token_to_id
        found = [None if item is None else token_of(item) for item in items]
        # The special tokens are in the vocabulary too.
        return [token if token is not None and token >= NUM_SPECIAL_TOKENS else None for token in found]

    def decode_items(self, token_ids: Iterable[int]) -> list[str]:
        """Raw item ids of token ids; a special token is given by its name."""
        item_of = self.backend_tokenizer.id_to_token
        return cast(list[str], [item_of(int(token)) for token in token_ids])

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> tuple[str, ...]:  # type: ignore[override]
        """Save `tokenizer.json`, `tokenizer_config.json` and `items.parquet`."""
        import pyarrow.parquet as pq

        os.makedirs(save_directory, exist_ok=True)
        Path(save_directory, "sha256.json").unlink(missing_ok=True)  # `data.files.SEAL_FILE`, of what lay there
        path = os.path.join(save_directory, ITEMS_FILE)
        pq.write_table(self.items, path)
        files = super().save_pretrained(save_directory, **kwargs)
        _name_stock_class(os.path.join(save_directory, "tokenizer_config.json"))
        return (*files, path)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> ItemTokenizer:  # type: ignore[override]
        """Load from a folder or hub id, `items.parquet` included.

        Raises:
            OSError: There is no tokenizer.json.
            ValueError: The tokenizer there is not an item tokenizer, or `items.parquet` does not fit it.
        """
        name = pretrained_model_name_or_path
        hub = {key: kwargs.pop(key) for key in HUB_PARAMETERS if key in kwargs}
        hub["_raise_exceptions_for_missing_entries"] = False
        path = cached_file(name, "tokenizer.json", **hub)
        if path is None:
            raise OSError(f"`{name}` has no tokenizer.json: without it nobody can tell its items.")
        hub["revision"] = extract_commit_hash(path, None) or hub.get("revision")
        cached_file(name, "tokenizer_config.json", **hub)  # laid beside it
        try:
            # From the folder in the cache: the parent asks a hub for chat templates, again and again while it is away.
            tokenizer: ItemTokenizer = super().from_pretrained(os.path.dirname(path), **kwargs)
        except OSError:
            raise
        except Exception as error:  # KeyError, TypeError or a plain Exception, by what is wrong with the file
            raise ValueError(
                f"The tokenizer.json of `{name}` is no tokenizer ({type(error).__name__}: {error}): pass a checkpoint "
                "written by hfrec, or save its tokenizer again."
            ) from error
        kind = type(tokenizer.backend_tokenizer.model).__name__
        specials = tuple(tokenizer.convert_ids_to_tokens(list(range(min(NUM_SPECIAL_TOKENS, len(tokenizer))))))
        if kind != "WordLevel" or specials != SPECIAL_TOKENS:
            raise ValueError(
                f"Expected an item tokenizer, a WordLevel vocabulary whose first tokens are {SPECIAL_TOKENS}, found a "
                f"{kind} that starts with {specials} in `{name}`: pass a checkpoint written by hfrec."
            )
        named = (tokenizer.pad_token, tokenizer.mask_token, tokenizer.unk_token)
        if named != SPECIAL_TOKENS:
            raise ValueError(
                f"The tokenizer_config.json of `{name}` names {named} for padding, mask and unknown items, expected "
                f"{SPECIAL_TOKENS}: it was changed. Copy it again, or save the tokenizer again."
            )
        tokenizer.name_or_path = str(name)
        items = cached_file(name, ITEMS_FILE, **hub)
        if items is not None:
            tokenizer._items = _checked_items(_read_items(items, tokenizer), tokenizer, items)
        return tokenizer


def check_pair(model: Any, tokenizer: ItemTokenizer) -> None:
    """Refuse a tokenizer of another size than the model."""
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"`tokenizer` must have the model's {model.config.vocab_size} tokens, found {len(tokenizer)}. Load both "
            "from the same checkpoint."
        )


def counts_of(items: pa.Table) -> dict[str, int] | None:
    """Interactions of each item, as `ItemTokenizer.items` holds them; None where it says nothing of them."""
    if "count" not in items.column_names:
        return None
    return dict(zip(items["item_id"].to_pylist(), items["count"].fill_null(0).to_pylist(), strict=True))


def _name_stock_class(path: str) -> None:
    """Let plain `AutoTokenizer` load the folder: it would look for a class of ours otherwise."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, ensure_ascii=False)
        file.write("\n")


def _check_item_ids(ids: Sequence[object]) -> None:
    if not ids:
        raise ValueError("`items` is empty: expected at least one item id.")
    if any(item is None for item in ids):
        raise ValueError("`items` holds a null id: drop the rows without an item first.")
    clash = [token for token in SPECIAL_TOKENS if token in set(ids)]
    if clash:
        raise ValueError(f"`items` holds {clash}, the names of special tokens: rename these items.")


def _items_table(ids: list[str], metadata: pa.Table | None, counts: Mapping[str, int] | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.table({"item_id": pa.array(ids, pa.string())})
    if metadata is not None:
        if "item_id" not in metadata.column_names:
            raise ValueError(
                f"`metadata` needs a column 'item_id', found {metadata.column_names}: rename the id column."
            )
        keys = metadata["item_id"].cast(pa.string())
        rows = pc.index_in(table["item_id"], value_set=keys)
        for name in metadata.column_names:
            if name not in ("item_id", "count"):
                table = table.append_column(name, metadata[name].take(rows))
    if counts is not None:
        table = table.append_column("count", pa.array([int(counts.get(item, 0)) for item in ids], pa.int64()))
    return table


def _read_items(path: str, tokenizer: ItemTokenizer) -> pa.Table:
    """Read `items.parquet` after its metadata: some kilobytes may unfold to more than all memory.

    Text is looked at as a dictionary first, in which a value that repeats stands once.
    """
    import pyarrow as pa

    try:
        return _small_items(path, tokenizer)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole Parquet file ({error}): save the tokenizer again.") from error


def _small_items(path: str, tokenizer: ItemTokenizer) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    if schema.names.count("item_id") != 1 or metadata.num_rows != len(tokenizer) - NUM_SPECIAL_TOKENS:
        raise ValueError(
            f"{path} lists {metadata.num_rows} items in the columns {', '.join(schema.names[:5])}, expected "
            f"`item_id` with the {len(tokenizer) - NUM_SPECIAL_TOKENS} items of tokenizer.json: the folder mixes two "
            "checkpoints. Save model and tokenizer again."
        )
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    allowed = _LARGEST_RATIO * os.path.getsize(path) + _SMALL
    values = sum(8 * chunk.num_values for chunk in chunks)
    size = max(values, sum(chunk.total_uncompressed_size for chunk in chunks))
    texts = sorted({chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"})
    if size <= allowed:
        for column in pq.read_table(path, read_dictionary=texts).columns:
            while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                column = pc.list_flatten(column)
            for part in column.chunks if pa.types.is_dictionary(column.type) else ():
                lengths = pc.binary_length(part.dictionary)
                size += pc.sum(lengths.take(part.indices)).as_py() or 0
    if size > allowed:
        raise ValueError(
            f"{path} unfolds to {size:,} bytes, {_LARGEST_RATIO} times and more than what is stored: it is refused. "
            "Ask its author to save the tokenizer again."
        )
    return pq.read_table(path)


def _checked_items(table: pa.Table, tokenizer: ItemTokenizer, path: str) -> pa.Table:
    expected = tokenizer.convert_ids_to_tokens(list(range(NUM_SPECIAL_TOKENS, len(tokenizer))))
    if table["item_id"].to_pylist() != expected:
        raise ValueError(
            f"{path} lists {len(table)} items that are not the {len(expected)} items of tokenizer.json in their order: "
            "the folder mixes two checkpoints; save model and tokenizer again."
        )
    return table
