"""The life of a catalogue: items come, go, get other ids, or give way to another catalogue.

In each of these, tokenizer, items table, embedding rows, head bias and optimiser moments move together, in memory; the
items that stay keep all of it to the bit. When anything fails, nothing has changed. The anchor of L2-SP stays where it
is: `L2SPCallback` matches rows by item id, and after a renaming takes `reference_tokenizer=renamed_vocabulary(...)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..tokenization import NUM_SPECIAL_TOKENS, SPECIAL_TOKENS, ItemTokenizer, check_pair, counts_of
from .matching import checked_ids, plan_catalogue, refuse_unknown
from .rows import ItemRows, move_rows

if TYPE_CHECKING:
    import pyarrow as pa


def add_items(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Iterable[Any],
    *,
    metadata: pa.Table | None = None,
    rows: ItemRows | None = None,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> ItemTokenizer:
    """Append new items to the vocabulary of a model.

    Old items keep their token ids and, to the bit, their embeddings and biases, so that their order in any ranking
    stays. `model` and `optimizer` are changed in place, `tokenizer` is not; when anything fails all are as they were.

    Args:
        model: Any Bert4Rec model.
        tokenizer: The tokenizer of this model.
        items: Raw ids of the new items, each once; anything but a string is turned into one.
        metadata: Table with `item_id` and further columns of the new items (`title`, …); rows of other items are left
            out. Columns that only one of old and new items have are null for the other.
        rows: Embeddings and biases of the new items, such as `content_rows` gives; None draws the embeddings from
            N(0, `initializer_range`²) and sets the biases to 0.
        generator: Source of drawn embeddings, on the model's device; torch's global one when None.
        optimizer: The optimiser of this model; the moments of new rows are 0.

    Returns:
        The tokenizer of the grown model; training counts are kept, 0 for new items.

    Raises:
        ValueError: No item, an item twice or already known, a null id or the name of a special token, a tokenizer of
            another size than the model, `rows` of another shape, or a metadata column whose type does not fit the old
            one.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> tokenizer = add_items(model, tokenizer, ["c"])
        >>> tokenizer.encode_column(["a", "c"]).to_pylist(), model.config.vocab_size
        ([3, 5], 6)
    """
    check_pair(model, tokenizer)
    new_items = checked_ids("items", items)
    vocabulary = tokenizer.get_vocab()
    known = [item for item in new_items if item in vocabulary]
    if known:
        raise ValueError(
            f"`items` must be new to the vocabulary, found {len(known)} known ones: {', '.join(known[:5])}. Leave them "
            "out."
        )
    table = tokenizer.items
    grown = ItemTokenizer.from_items(
        [*table["item_id"].to_pylist(), *new_items],
        metadata=_below(table, metadata, new_items),
        counts=counts_of(table),
    )
    sources = [*range(len(table)), *[None] * len(new_items)]
    move_rows(model, sources, rows=rows, generator=generator, optimizer=optimizer)
    return grown


def remove_items(
    model: Any, tokenizer: ItemTokenizer, items: Iterable[Any], *, optimizer: torch.optim.Optimizer | None = None
) -> ItemTokenizer:
    """Take items out of the vocabulary of a model; those that stay keep their order and, to the bit, their rows.

    Args:
        model: Any Bert4Rec model; changed in place.
        tokenizer: The tokenizer of this model; not changed.
        items: Raw ids of the items to remove, each once.
        optimizer: The optimiser of this model; changed in place.

    Returns:
        The tokenizer of the smaller model. Token ids behind a removed item are lower than before.

    Raises:
        ValueError: No item, an item twice or unknown, all items, or a tokenizer of another size than the model.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> tokenizer = remove_items(model, tokenizer, ["b"])
        >>> tokenizer.items["item_id"].to_pylist(), model.config.vocab_size
        (['a', 'c'], 5)
    """
    check_pair(model, tokenizer)
    removed = checked_ids("items", items)
    refuse_unknown("items", removed, tokenizer)
    table = tokenizer.items
    gone = set(removed)
    sources = [row for row, item in enumerate(table["item_id"].to_pylist()) if item not in gone]
    if not sources:
        raise ValueError(f"`items` holds all {len(table)} items: expected some that stay. Keep at least one.")
    left = table.take(sources)
    smaller = ItemTokenizer.from_items(left["item_id"], metadata=left, counts=counts_of(left))
    move_rows(model, sources, optimizer=optimizer)
    return smaller


def rename_items(model: Any, tokenizer: ItemTokenizer, mapping: Mapping[Any, Any]) -> ItemTokenizer:
    """Give items other ids. No row moves: model and optimiser stay as they are.

    Args:
        model: The model, which is only compared with the tokenizer.
        tokenizer: The tokenizer of this model; not changed.
        mapping: Old id to new id; items that it does not name keep theirs. Two items may swap their ids.

    Returns:
        The tokenizer with the new ids, the same token ids, metadata and counts.

    Raises:
        ValueError: An empty mapping, an unknown old id, two items onto one id, or a tokenizer of another size.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> rename_items(model, tokenizer, {"a": "A"}).items["item_id"].to_pylist()
        ['A', 'b']
    """
    check_pair(model, tokenizer)
    new_names = {str(old): new for old, new in mapping.items()}
    checked_ids("mapping", new_names)
    checked_ids("mapping", new_names.values(), once=False)
    refuse_unknown("mapping", list(new_names), tokenizer)
    table = tokenizer.items
    ids = [str(new_names.get(item, item)) for item in table["item_id"].to_pylist()]
    double = next((item for item in ids if ids.count(item) > 1), None) if len(set(ids)) < len(ids) else None
    if double is not None:
        sources = [old for old, new in zip(table["item_id"].to_pylist(), ids, strict=True) if new == double]
        raise ValueError(
            f"`mapping` gives {', '.join(sources)} the one id {double!r}. Each item needs an id of its own."
        )
    renamed = table.set_column(table.column_names.index("item_id"), "item_id", [ids])
    return ItemTokenizer.from_items(ids, metadata=renamed, counts=counts_of(renamed))


def align_catalogue(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Iterable[Any],
    mapping: Mapping[Any, Any] | None = None,
    *,
    metadata: pa.Table | None = None,
    rows: ItemRows | None = None,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> ItemTokenizer:
    """Take a model to another catalogue: items in common keep their rows to the bit, others come new or are dropped.

    `plan_catalogue` with the same `tokenizer`, `items` and `mapping` says beforehand what will be matched, new and
    dropped.

    Args:
        model: Any Bert4Rec model; changed in place.
        tokenizer: The tokenizer of this model; not changed.
        items: Raw ids of the other catalogue, each once, in the order of the new vocabulary.
        mapping: Old id to the id in `items`. None matches by equal ids; with a mapping only the items that it names
            are matched, as equal ids of two catalogues may be different things.
        metadata: Table with `item_id` and further columns by the ids in `items`; where it is silent, matched items
            keep what they had.
        rows: Embeddings and biases of the new items in the order of `plan_catalogue(...).new`.
        generator: Source of drawn embeddings, on the model's device; torch's global one when None.
        optimizer: The optimiser of this model; changed in place.

    Returns:
        The tokenizer of the other catalogue; matched items keep their counts, new ones have 0.

    Raises:
        ValueError: What `plan_catalogue` refuses, no item in common, `rows` of another shape, or metadata whose types
            do not fit.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> old = model.decoder.weight[4].clone()
        >>> tokenizer = align_catalogue(model, tokenizer, ["x", "y", "z"], {"b": "z"})
        >>> torch.equal(model.decoder.weight[5], old), tokenizer.items["item_id"].to_pylist()
        (True, ['x', 'y', 'z'])
    """
    check_pair(model, tokenizer)
    plan = plan_catalogue(tokenizer, items, mapping)
    if not plan.matched:
        raise ValueError(
            f"None of the {len(plan.items)} `items` is known to the model: expected a shared catalogue. Check the ids, "
            "or pass `mapping`."
        )
    vocabulary = tokenizer.get_vocab()
    old_items = [plan.sources.get(item) for item in plan.items]
    sources = [None if old is None else vocabulary[old] - NUM_SPECIAL_TOKENS for old in old_items]
    kept = _renamed_rows(tokenizer.items, plan.matched)
    aligned = ItemTokenizer.from_items(
        plan.items, metadata=_laid_over(kept, metadata, plan.items), counts=counts_of(kept)
    )
    move_rows(model, sources, rows=rows, generator=generator, optimizer=optimizer)
    return aligned


def renamed_vocabulary(
    tokenizer: ItemTokenizer, mapping: Mapping[Any, Any], *, keep_others: bool = True
) -> dict[str, int]:
    """The rows of a tokenizer under new item ids: the `reference_tokenizer` of L2-SP after a renaming or an alignment.

    Args:
        tokenizer: The tokenizer of the reference.
        mapping: Old id to new id; old ids that the tokenizer does not have are left out.
        keep_others: Whether other items keep their ids, as in `rename_items`, or have none, as in `align_catalogue`
            with a mapping.

    Returns:
        Token id by new item id, special tokens included.

    Raises:
        ValueError: Two rows under one id.

    Example:
        >>> renamed_vocabulary(ItemTokenizer.from_items(["a", "b"]), {"a": "x"}, keep_others=False)
        {'[PAD]': 0, '[MASK]': 1, '[UNK]': 2, 'x': 3}
    """
    new_names = {str(old): str(new) for old, new in mapping.items()}
    rows = {name: row for row, name in enumerate(SPECIAL_TOKENS)}
    for row, item in enumerate(tokenizer.items["item_id"].to_pylist(), start=NUM_SPECIAL_TOKENS):
        if item not in new_names and not keep_others:
            continue
        if rows.setdefault(new_names.get(item, item), row) != row:
            raise ValueError(
                f"`mapping` gives two items the id {new_names.get(item, item)!r}. Make the new ids unique."
            )
    return rows


def _renamed_rows(table: pa.Table, matched: Mapping[str, str]) -> pa.Table:
    """The rows of the matched items under their new ids."""
    import pyarrow as pa

    old = table["item_id"].to_pylist()
    kept = [row for row, item in enumerate(old) if item in matched]
    ids = pa.array([matched[old[row]] for row in kept], pa.string())
    return table.take(kept).set_column(table.column_names.index("item_id"), "item_id", ids)


def _checked_metadata(old: pa.Table, new: pa.Table, items: list[str]) -> pa.Table:
    """The rows of `items`, ids as strings, in types that fit the old table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "item_id" not in new.column_names:
        raise ValueError(f"`metadata` needs a column 'item_id', found {new.column_names}. Rename the id column.")
    new = new.set_column(new.column_names.index("item_id"), "item_id", new["item_id"].cast(pa.string()))
    new = new.filter(pc.is_in(new["item_id"], value_set=pa.array(items, pa.string())))
    new = new.drop_columns([name for name in new.column_names if name == "count"])  # of another training
    for index, name in enumerate(new.column_names):
        if name in old.column_names and new.schema.field(name).type != old.schema.field(name).type:
            new = new.set_column(index, name, _cast_like(new[name], old[name], name))
    return new


def _below(old: pa.Table, new: pa.Table | None, new_items: list[str]) -> pa.Table:
    """Old metadata and the new items' below one another; the tokenizer takes what it needs by id."""
    import pyarrow as pa

    if new is None:
        return old
    return pa.concat_tables([old, _checked_metadata(old, new, new_items)], promote_options="default")


def _laid_over(old: pa.Table, new: pa.Table | None, items: list[str]) -> pa.Table:
    """Metadata of `items`: the new value where there is one, else the old."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.array(items, pa.string())
    table = old.take(pc.index_in(ids, value_set=old["item_id"])).set_column(
        old.column_names.index("item_id"), "item_id", ids
    )
    if new is None:
        return table
    new = _checked_metadata(old, new, items)
    rows = pc.index_in(ids, value_set=new["item_id"])
    for name in new.column_names:
        if name == "item_id":
            continue
        values = new[name].take(rows)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, pc.coalesce(values, table[name]))
        else:
            table = table.append_column(name, values)
    return table


def _cast_like(column: pa.ChunkedArray, like: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(like.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"`metadata` must have {like.type} in column {name!r} as the known items have, found {column.type}: {error}"
        ) from error
