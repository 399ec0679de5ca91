"""What the items of a checkpoint are made of, so that the features of any other catalogue can be computed alike.

A specification is saved in the checkpoint's config (`Bert4RecConfig.item_content`). Whatever was learnt from the
source's items to describe content (mean and spread of numbers) is part of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .content import given_vectors, split_categories, text_vectors
from .encoding import encoder_fingerprint, encoder_pooling
from .hashing import HASHED_WIDTH, hashed_rows, words_of

if TYPE_CHECKING:
    import pyarrow as pa

PLACES = tuple(range(-3, 4))  # of a number, in standard deviations from the mean; what lies farther out counts as 3


class ContentError(ValueError):
    """The table of the items does not have the content that it is asked for."""


@contextmanager
def content_of(files: str | Sequence[str] | None) -> Iterator[None]:
    """In the block, what is wrong with the content of items is said of the files that their table was read from.

    Args:
        files: Their names; None where the table comes with the log.

    Example:
        >>> with content_of("items.csv"):
        ...     raise ContentError("Column 'title' is empty.")
        Traceback (most recent call last):
            ...
        ValueError: items.csv: Column 'title' is empty.
    """
    try:
        yield
    except ContentError as error:
        if not files:
            raise
        raise ValueError(f"{files if isinstance(files, str) else ', '.join(files)}: {error}") from error


@dataclass(frozen=True)
class ContentBlock:
    """One column of the items and how it becomes numbers; a row of zeros is an item without content in it.

    Args:
        kind: `text` through an encoder, the `words` of a text, `categories` that stand joined in one text, a `number`,
            or `vectors` that come with the items. Words and categories are hashed, so that no list of them is kept and
            a catalogue may bring others.
        column: Name of the column.
        width: Columns of features.
        encoder: Folder or hub id of the text encoder.
        revision: Commit of the encoder on the hub, where it came from there.
        fingerprint: SHA-256 of the encoder's files, by which it is known wherever it lies.
        pooling: How its tokens become one vector.
        separator: What joins categories.
        log: Whether the logarithm of the number counts, as for prices.
        mean: Mean of the number, or of its logarithm, among the source's items.
        spread: Its standard deviation there.
    """

    kind: Literal["text", "words", "categories", "number", "vectors"]
    column: str
    width: int
    encoder: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    pooling: str | None = None
    separator: str | None = None
    log: bool = False
    mean: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True)
class ContentSpecification:
    """The blocks of content of a checkpoint's items, in the order of their features.

    Args:
        blocks: One for each column.
    """

    blocks: tuple[ContentBlock, ...]

    @property
    def widths(self) -> list[int]:
        """Columns of features of each block."""
        return [block.width for block in self.blocks]

    @property
    def columns(self) -> list[str]:
        """Columns of the items, each once: of a text, its vector and its words are two blocks."""
        return list(dict.fromkeys(block.column for block in self.blocks))

    def to_dict(self) -> dict[str, Any]:
        """What the config holds: only JSON's types, without what a block has no use for."""
        plain = {field.name: field.default for field in fields(ContentBlock)}
        kept = [{key: value for key, value in asdict(block).items() if value != plain[key]} for block in self.blocks]
        return {"blocks": kept}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> ContentSpecification:
        """The specification that a config holds.

        Raises:
            ValueError: There is none, or it is damaged.
        """
        try:
            return cls(tuple(ContentBlock(**block) for block in (stored or {})["blocks"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"`item_content` of the config must say what the items are made of, found {stored!r} ({error}). Is it "
                "a checkpoint that was trained with `--item_representation content` or `content+id`?"
            ) from error


def describe_content(
    items: pa.Table,
    *,
    encoder: str | os.PathLike[str] | None = None,
    text_column: str | None = None,
    category_column: str | None = None,
    category_separator: str = "|",
    number_columns: Sequence[str] = (),
    vector_column: str | None = None,
) -> ContentSpecification:
    """Say how the content of items becomes features, from the items of the source or of all sources together.

    Args:
        items: Table of the items with the columns that are named.
        encoder: Folder or hub id of any `AutoModel` text encoder, for `text_column`; without one, a text is its words.
        text_column: Column of the texts; `title` where an encoder is given alone.
        category_column: Column of the categories.
        category_separator: What joins the categories of an item.
        number_columns: Columns of numbers; `log:price` takes the logarithm of the price.
        vector_column: Column of given vectors.

    Raises:
        ValueError: No content is named, a column is missing or empty, or the encoder is not to be had.

    Example:
        >>> import pyarrow as pa
        >>> items = pa.table({"item_id": ["1", "2"], "kind": ["a|b", "b"], "price": [1.0, 100.0]})
        >>> found = describe_content(items, category_column="kind", number_columns=["log:price"])
        >>> [block.kind for block in found.blocks], found.widths
        (['categories', 'number'], [128, 7])
    """
    blocks = []
    if encoder is not None:
        text_column = "title" if text_column is None else text_column
        blocks.append(_text_block(items, os.fspath(encoder), text_column))
    if text_column is not None:
        blocks.append(_hashed_block(items, ContentBlock("words", text_column, HASHED_WIDTH)))
    if category_column is not None:
        separated = ContentBlock("categories", category_column, HASHED_WIDTH, separator=category_separator)
        blocks.append(_hashed_block(items, separated))
    blocks += [_number_block(items, column) for column in number_columns]
    if vector_column is not None:
        given = _given(vector_column, _values(items, vector_column))
        blocks.append(ContentBlock("vectors", vector_column, given.shape[1]))
    if not blocks:
        raise ValueError(
            "Items need content: expected `text_column`, `encoder`, `category_column`, `number_columns` or "
            "`vector_column`, found none of them."
        )
    return ContentSpecification(tuple(blocks))


def content_features(
    specification: ContentSpecification, items: pa.Table, *, encoder: str | os.PathLike[str] | None = None
) -> Tensor:
    """Features of any catalogue as those of the checkpoint's own items were made.

    Args:
        specification: What `describe_content` gave, or `ContentSpecification.from_dict(config.item_content)`.
        items: Table with the columns of the specification.
        encoder: Where the text encoder lies on this machine, when it is not where the specification found it.

    Returns:
        float32 `(num_items, sum of the widths)`; in each block, a row of zeros is an item without content.

    Raises:
        ValueError: A column is missing or empty, vectors have another width or are not finite, or the encoder is
            another one or is not to be had; the message names both sides.

    Example:
        >>> import pyarrow as pa
        >>> specification = describe_content(pa.table({"kind": ["a|b", "b"]}), category_column="kind")
        >>> content_features(specification, pa.table({"kind": ["b", None, "c"]})).norm(dim=1).round().tolist()
        [1.0, 0.0, 1.0]
    """
    missing = [column for column in specification.columns if column not in items.column_names]
    if missing:
        raise ContentError(
            f"The checkpoint's items are made of {', '.join(specification.columns)}; these "
            f"items have no column {', '.join(missing)}, found {', '.join(items.column_names)}. Rename your columns or "
            f"say what one is called: `--content_columns {missing[0]}=yours`."
        )
    if encoder is not None and all(block.kind != "text" for block in specification.blocks):
        raise ValueError(
            f"`encoder` {os.fspath(encoder)!r} has nothing to read: the checkpoint's items are made of "
            f"{', '.join(f'{block.column} ({block.kind})' for block in specification.blocks)}. Leave it out."
        )
    parts = [_block_features(block, _values(items, block.column), encoder) for block in specification.blocks]
    for block, part in zip(specification.blocks, parts, strict=True):
        if part.shape[1] != block.width:
            raise ValueError(
                f"Column {block.column!r} must have vectors of width {block.width}, as the checkpoint's items have, "
                f"found {part.shape[1]}."
            )
    return torch.cat(parts, dim=1)


def _values(items: pa.Table, column: str) -> list[Any]:
    if column not in items.column_names:
        raise ContentError(
            f"The items have no column {column!r}, found {', '.join(items.column_names)}. Give their table as "
            f"`--items_file`; `--content_columns {column}=yours` says what it calls that column."
        )
    found: list[Any] = items[column].to_pylist()
    return found


def _empty(items: pa.Table, column: str, what: str) -> ContentError:
    return ContentError(
        f"Column {column!r} must hold at least one {what}, found none in {len(items):,} items. Fill it, name another "
        "column of content, or leave this one out."
    )


def _text_block(items: pa.Table, encoder: str, column: str) -> ContentBlock:
    if not any(_text(value) for value in _values(items, column)):
        raise _empty(items, column, "text")
    fingerprint, revision = encoder_fingerprint(encoder)
    width = text_vectors(["width"], encoder).shape[1]
    pooling = encoder_pooling(encoder)
    return ContentBlock(
        "text", column, width, encoder=encoder, revision=revision, fingerprint=fingerprint, pooling=pooling
    )


def _hashed_block(items: pa.Table, block: ContentBlock) -> ContentBlock:
    """The block itself, where its column holds anything."""
    if not any(_names(block, _values(items, block.column))):
        what = "word" if block.kind == "words" else "category"
        raise _empty(items, block.column, what)
    return block


def _names(block: ContentBlock, values: Sequence[Any]) -> list[list[str]]:
    """What is hashed of each item."""
    if block.kind == "words":
        return [words_of(_text(value)) for value in values]
    return split_categories(values, separator=block.separator or "|")


def _number_block(items: pa.Table, name: str) -> ContentBlock:
    column, log = name.removeprefix("log:"), name.startswith("log:")
    block = ContentBlock("number", column, len(PLACES), log=log)
    numbers = [value for value in _numbers(block, _values(items, column)) if value is not None]
    if not numbers:
        what = "number above 0, whose logarithm is taken" if log else "number"
        raise _empty(items, column, what)
    mean = math.fsum(numbers) / len(numbers)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / len(numbers))
    return ContentBlock("number", column, len(PLACES), log=log, mean=mean, spread=spread or 1.0)


def _numbers(block: ContentBlock, values: Sequence[Any]) -> list[float | None]:
    """The numbers of a column, or their logarithms; None where there is none, or no logarithm."""
    found: list[float | None] = []
    for row, value in enumerate(values):
        try:
            number = None if value is None or value == "" else float(value)
        except (TypeError, ValueError) as error:
            raise ContentError(f"Column {block.column!r} must hold numbers, found {value!r} in row {row}.") from error
        known = number is not None and math.isfinite(number) and not (block.log and number <= 0)
        found.append((math.log(number) if block.log else number) if known and number is not None else None)
    return found


def _block_features(block: ContentBlock, values: list[Any], encoder: str | os.PathLike[str] | None) -> Tensor:
    if block.kind == "text":
        name = os.fspath(encoder) if encoder is not None else str(block.encoder)
        found, _ = encoder_fingerprint(name)
        if found != block.fingerprint:
            raise ValueError(
                f"The checkpoint's texts went through {block.encoder} (SHA-256 {str(block.fingerprint)[:12]}…), found "
                f"{name} ({found[:12]}…), whose vectors mean something else. Give that encoder as `encoder`."
            )
        return text_vectors([_text(value) for value in values], name)
    if block.kind in ("words", "categories"):
        return hashed_rows(_names(block, values), block.width)
    if block.kind == "number":
        return _number_features(block, values)
    return F.normalize(_given(block.column, values), dim=1)


def _given(column: str, values: list[Any]) -> Tensor:
    try:
        return given_vectors(values)
    except ValueError as error:
        raise ContentError(f"Column {column!r}: {error}") from error


def _number_features(block: ContentBlock, values: list[Any]) -> Tensor:
    """Unit vectors that say how near a number lies to each place: near numbers have a high cosine, far ones none."""
    numbers = _numbers(block, values)
    known = torch.tensor([number is not None for number in numbers])
    scaled = torch.tensor([((number or 0.0) - block.mean) / block.spread for number in numbers]).clamp(-3, 3)
    near = torch.exp(-(scaled[:, None] - torch.tensor(PLACES)).square())  # (num_items, num_places)
    return F.normalize(near, dim=1).masked_fill(~known[:, None], 0.0)


def _text(value: Any) -> str | None:
    """A text, None where there is none; a column of numbers is read as texts."""
    return None if value is None or not str(value).strip() else str(value)
