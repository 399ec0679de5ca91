"""New items for a trained model: vocabulary, embeddings and output bias grow together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..tokenization import ItemTokenizer

if TYPE_CHECKING:
    import pyarrow as pa


def add_items(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Iterable[Any],
    *,
    metadata: pa.Table | None = None,
    generator: torch.Generator | None = None,
) -> ItemTokenizer:
    """Append new items to the vocabulary of a model.

    Old items keep their token ids and, to the bit, their embeddings and biases. A new item's embedding is drawn from
    N(0, `initializer_range`²), its output bias is 0. `model` is changed in place, `tokenizer` is not; when anything
    fails both are as they were.

    Args:
        model: Any Bert4Rec model.
        tokenizer: The tokenizer of this model.
        items: Raw ids of the new items, each once; anything but a string is turned into one.
        metadata: Table with `item_id` and further columns of the new items (`title`, …); rows of other items are left
            out. Columns that only one of old and new items have are null for the other.
        generator: Source of the new embeddings, on the model's device; torch's global one when None.

    Returns:
        The tokenizer of the grown model; training counts are kept, 0 for new items.

    Raises:
        ValueError: No item, an item twice or already known, a null id or the name of a special token, a tokenizer of
            another size than the model, or a metadata column whose type does not fit the old one.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> tokenizer = add_items(model, tokenizer, ["c"])
        >>> tokenizer.encode_column(["a", "c"]).to_pylist(), model.config.vocab_size
        ([3, 5], 6)
    """
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"`tokenizer` must have the model's {model.config.vocab_size} tokens, found {len(tokenizer)}. Load both "
            "from the same checkpoint."
        )
    new_items = _new_items(tokenizer, items)
    table = tokenizer.items
    grown = ItemTokenizer.from_items(
        [*table["item_id"].to_pylist(), *new_items],
        metadata=_joined_metadata(table, metadata, new_items),
        counts=_counts(table),
    )
    _grow(model, len(grown), generator)
    return grown


def _new_items(tokenizer: ItemTokenizer, items: Iterable[Any]) -> list[str]:
    new_items = list(items)
    if not new_items:
        raise ValueError("`items` must hold at least one new item, found none.")
    if any(item is None for item in new_items):
        raise ValueError("`items` must not hold a null id. Leave it out.")
    new_items = [str(item) for item in new_items]
    vocabulary = tokenizer.get_vocab()
    known = [item for item in new_items if item in vocabulary]
    if known:
        raise ValueError(
            f"`items` must be new to the vocabulary, found {len(known)} known ones: {', '.join(known[:5])}. Leave them "
            "out."
        )
    return new_items


def _counts(table: pa.Table) -> dict[str, int] | None:
    if "count" not in table.column_names:
        return None
    return dict(zip(table["item_id"].to_pylist(), table["count"].to_pylist(), strict=True))


def _joined_metadata(old: pa.Table, new: pa.Table | None, new_items: list[str]) -> pa.Table | None:
    """Old metadata and the new items' below one another; the tokenizer takes what it needs by id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if new is None:
        return old
    if "item_id" not in new.column_names:
        raise ValueError(f"`metadata` needs a column 'item_id', found {new.column_names}. Rename the id column.")
    new = new.set_column(new.column_names.index("item_id"), "item_id", new["item_id"].cast(pa.string()))
    new = new.filter(pc.is_in(new["item_id"], value_set=pa.array(new_items, pa.string())))
    for index, name in enumerate(new.column_names):
        if name in old.column_names and new.schema.field(name).type != old.schema.field(name).type:
            new = new.set_column(index, name, _cast_like(new[name], old[name], name))
    return pa.concat_tables([old, new], promote_options="default")


def _cast_like(column: pa.ChunkedArray, like: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(like.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"`metadata` must have {like.type} in column {name!r} as the known items have, found {column.type}: {error}"
        ) from error


def _grow(model: Any, vocab_size: int, generator: torch.Generator | None) -> None:
    """Append rows to embeddings, decoder and bias; put the old modules back when that fails."""
    old_size = model.config.vocab_size
    embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    weights = embeddings.weight.detach()  # transformers grows the module itself, by giving it other data
    bias = None if decoder is None or decoder.bias is None else decoder.bias.detach()
    try:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
        with torch.no_grad():
            fresh = model.get_input_embeddings().weight[old_size:]
            fresh.normal_(std=model.config.initializer_range, generator=generator)
            grown = model.get_output_embeddings()
            if grown is not None and grown.bias is not None:
                grown.bias[old_size:] = 0.0
    except Exception:
        embeddings.weight.data, embeddings.num_embeddings = weights, old_size
        model.set_input_embeddings(embeddings)
        if decoder is not None:
            decoder.out_features = old_size
            if bias is not None:
                decoder.bias.data = bias
            model.set_output_embeddings(decoder)
        model.config.vocab_size = old_size
        model.tie_weights()
        raise
