"""What the page knows of the items of a checkpoint: titles, categories and how popular each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.titles import CATEGORY_COLUMNS
from ..tokenization import ItemTokenizer

OTHERS = "other"


@dataclass(frozen=True)
class Item:
    """One item as the page shows it.

    Args:
        item_id: Raw id.
        title: Title, or the id where there is none.
        year: Year, where the items have one.
        categories: Its categories, the leading one first.
        count: Training interactions; None where the checkpoint counts none.
        top_share: Share of the catalogue that is at least as popular, in (0, 1]; None without counts.
    """

    item_id: str
    title: str
    year: int | None = None
    categories: tuple[str, ...] = ()
    count: int | None = None
    top_share: float | None = None

    @property
    def detail(self) -> str:
        """Year and up to three categories, in one line."""
        return " · ".join([*([str(self.year)] if self.year else []), *self.categories[:3]])

    @property
    def popularity(self) -> str:
        """How popular it is, in words."""
        if self.count is None or self.top_share is None:
            return ""
        times = "interaction" if self.count == 1 else "interactions"
        return f"{self.count:,} {times} · top {max(1, round(100 * self.top_share))} %"


class Catalogue:
    """The items of a checkpoint by id, in the order of the tokens.

    Args:
        tokenizer: With titles, categories and counts where it has them.
        category_column: Column of the categories; when None the first of `CATEGORY_COLUMNS` that there is, if any.
        separator: What joins the categories of an item.

    Raises:
        ValueError: No column of this name.
    """

    def __init__(self, tokenizer: ItemTokenizer, *, category_column: str | None = None, separator: str = "|") -> None:
        names = tokenizer.items.column_names
        if category_column is not None and category_column not in names:
            raise ValueError(
                f"`category_column` {category_column!r} is not among the items' columns: {', '.join(names)}. Name one "
                "of these, or leave it out."
            )
        column = category_column or next((name for name in CATEGORY_COLUMNS if name in names), None)
        columns = {
            name: tokenizer.items[name].to_pylist() for name in ("item_id", "title", "year", "count") if name in names
        }
        groups = [_split(value, separator) for value in tokenizer.items[column].to_pylist()] if column else None
        shares = _top_shares(columns["count"]) if "count" in columns else None
        self.items: dict[str, Item] = {}
        for place, item_id in enumerate(columns["item_id"]):
            self.items[item_id] = Item(
                item_id=item_id,
                title=str(columns["title"][place] or item_id) if "title" in columns else item_id,
                year=_year(columns["year"][place]) if "year" in columns else None,
                categories=groups[place] if groups else (),
                count=columns["count"][place] or 0 if shares is not None else None,
                top_share=float(shares[place]) if shares is not None else None,
            )

    @property
    def counted(self) -> bool:
        """Whether training interactions are known, without which nothing can be told of popularity."""
        return any(item.count is not None for item in self.items.values())

    def popular(self, number: int) -> list[Item]:
        """The most popular items; the first of the catalogue where nothing is counted."""
        return sorted(self.items.values(), key=lambda item: -(item.count or 0))[:number]

    def leading_categories(self, number: int) -> list[str]:
        """The most common leading categories, at most `number`; further ones are `other`."""
        common = Counter(item.categories[0] for item in self.items.values() if item.categories)
        names = [name for name, _ in sorted(common.items(), key=lambda pair: (-pair[1], pair[0]))[:number]]
        covered = sum(common[name] for name in names)
        return [*names, OTHERS] if names and covered < len(self.items) else names


def _split(value: Any, separator: str) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value or "").split(separator)
    return tuple(name for name in (str(part).strip() for part in parts) if name)


def _year(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value == value and value else None


def _top_shares(counts: Sequence[int | None]) -> Any:
    """Share of the items that have at least as many interactions, `(num_items,)`."""
    values = np.array([count or 0 for count in counts], dtype=np.int64)
    ordered = np.sort(values)
    return (len(values) - np.searchsorted(ordered, values, side="left")) / max(1, len(values))
