"""The flags of commands that read the content of items, and the features that come of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from ..data.columns import CONTENT_COLUMNS, content_columns


@dataclass
class ContentArguments:
    """What the content of an item is."""

    encoder: str | None = field(default=None, metadata={"help": "Text encoder: a folder or a hub id."})
    text_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the texts: their words and, with --encoder, what it makes of them. (--encoder: title)"
        },
    )
    category_column: str | None = field(default=None, metadata={"help": "Column of the categories."})
    category_separator: str = field(default="|", metadata={"help": "What joins the categories of an item."})
    vector_column: str | None = field(default=None, metadata={"help": "Column of given vectors (Parquet, JSON lines)."})

    number_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns of numbers; log:price takes the logarithm of the price."}
    )

    @property
    def given(self) -> bool:
        """Whether any content is named."""
        return any((self.encoder, self.text_column, self.category_column, self.number_columns, self.vector_column))

    def columns(self) -> dict[str, Any]:
        """The arguments of `describe_content`."""
        return {item.name: getattr(self, item.name) for item in fields(ContentArguments)}


@dataclass(kw_only=True)
class OtherItemsFlags:
    """Another catalogue than the checkpoint's, by the content of its items."""

    items_file: str | None = field(
        default=None, metadata={"help": "Rank these items instead of the checkpoint's, by their content (zero-shot)."}
    )
    content_columns: list[str] = field(default_factory=list, metadata=CONTENT_COLUMNS)
    encoder: str | None = field(
        default=None, metadata={"help": "Where the checkpoint's text encoder lies on this machine (with --items_file)."}
    )


def read_content(items: Any, content: ContentArguments) -> dict[str, Any]:
    """Features `(num_items, width)` by kind: text, categories, vectors; a row of zeros is an item without.

    Raises:
        ValueError: No content is named, or a column is missing or empty.
    """
    from ..transfer.content import category_vectors, given_vectors, text_vectors
    from ..transfer.specification import ContentError

    asked = {
        "text": (content.text_column or "title") if content.encoder is not None else None,
        "categories": content.category_column,
        "vectors": content.vector_column,
    }
    columns = {kind: column for kind, column in asked.items() if column is not None}
    if not columns:
        raise ValueError(
            "Items need content to start from: expected `--encoder`, `--category_column` or `--vector_column`."
        )
    blocks = {}
    for kind, column in columns.items():
        if column not in items.column_names:
            raise ContentError(f"The items have no column {column!r}, found {', '.join(items.column_names)}.")
        values = items[column].to_pylist()
        try:
            if kind == "text":
                blocks[kind] = text_vectors(values, str(content.encoder))
            elif kind == "categories":
                blocks[kind] = category_vectors(values, separator=content.category_separator)
            else:
                blocks[kind] = given_vectors(values)
        except ValueError as error:
            raise ContentError(f"Column {column!r}: {error}") from error
    return blocks


def each_and_all(blocks: dict[str, Any], join: Callable[..., Any]) -> dict[str, Any]:
    """`join` of each block and, where there are several, of all of them together (the last one)."""
    single = {kind: join(block) for kind, block in blocks.items()}
    return {**single, " + ".join(blocks): join(*blocks.values())} if len(blocks) > 1 else single


def over_to_items(model: Any, tokenizer: Any, arguments: OtherItemsFlags, *, item_column: str) -> Any:
    """Take the model to the catalogue of `--items_file`, where it is given; returns the tokenizer.

    Args:
        model: The checkpoint's, changed in place.
        tokenizer: Its tokenizer.
        arguments: The file, and how it is read.
        item_column: Column of the item ids.

    Raises:
        ValueError: The checkpoint knows its items by their ids, or the file does not fit it.
    """
    from ..data.item_tables import read_items, with_content_columns
    from ..transfer.adoption import adopt
    from ..transfer.specification import content_of

    columns = content_columns(arguments.content_columns)
    if arguments.items_file is None:
        for name in ("encoder", "content_columns"):
            if getattr(arguments, name):
                raise ValueError(f"`--{name}` is for the content of `--items_file`: give that too, or leave it out.")
        return tokenizer
    if model.config.model_type != "bert4rec":
        raise ValueError(
            "`--items_file` is for a masked or causal model, found a blend, whose tables hold items of its own."
        )
    table = with_content_columns(read_items(arguments.items_file, item_column, "item_id", name="items_file"), columns)
    with content_of(arguments.items_file):
        adoption = adopt(model, tokenizer, table, encoder=arguments.encoder)
    print(adoption, file=sys.stderr)
    return adoption.tokenizer
