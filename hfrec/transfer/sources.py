"""One source of a checkpoint that was trained on several."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from ..data.sources import SOURCE_COLUMN, SOURCE_ITEM_COLUMN
from ..tokenization import ItemTokenizer
from .vocabulary import remove_items, rename_items

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def take_source(model: PreTrainedModel, tokenizer: ItemTokenizer, name: str) -> tuple[PreTrainedModel, ItemTokenizer]:
    """The model and the tokenizer of one source's catalogue, with the item ids that its log has.

    Args:
        model: A model that was pretrained on several sources; not changed.
        tokenizer: Its tokenizer; not changed.
        name: The source.

    Returns:
        A model with the same body and the rows of the source's items to the bit, and its tokenizer.

    Raises:
        ValueError: The checkpoint is of one source, or has none of this name.

    Example:
        >>> import pyarrow as pa
        >>> from hfrec import Bert4RecConfig, Bert4RecForCausalLM
        >>> ids = ["beauty:7", "toys:7"]
        >>> table = pa.table({"item_id": ids, "source": ["beauty", "toys"], "source_item_id": ["7", "7"]})
        >>> tokenizer = ItemTokenizer.from_items(ids, metadata=table)
        >>> model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> toys, tokenizer = take_source(model, tokenizer, "toys")
        >>> toys.config.vocab_size, tokenizer.items["item_id"].to_pylist()
        (4, ['7'])
    """
    table = tokenizer.items
    if SOURCE_COLUMN not in table.column_names or SOURCE_ITEM_COLUMN not in table.column_names:
        raise ValueError(
            f"The items of this checkpoint have no columns {SOURCE_COLUMN!r} and {SOURCE_ITEM_COLUMN!r}: expected one "
            "that `hfrec pretrain` trained on several sources."
        )
    ids, sources, raw = (table[column].to_pylist() for column in ("item_id", SOURCE_COLUMN, SOURCE_ITEM_COLUMN))
    if name not in sources:
        known = ", ".join(dict.fromkeys(filter(None, sources)))
        raise ValueError(f"`name`: the checkpoint has no source {name!r}, expected one of {known}.")
    own: Any = deepcopy(model)
    own.compete_within(None)
    others = [item for item, source in zip(ids, sources, strict=True) if source != name]
    smaller = remove_items(own, tokenizer, others) if others else tokenizer
    own_ids = {item: old for item, source, old in zip(ids, sources, raw, strict=True) if source == name}
    return own, rename_items(own, smaller, own_ids)
