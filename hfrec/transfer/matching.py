"""Which item of one catalogue is which of another: by id, by a mapping, or by title and year."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.readers import read_table
from ..data.titles import plain_letters, plain_words
from ..tokenization import SPECIAL_TOKENS, ItemTokenizer

if TYPE_CHECKING:
    import pyarrow as pa

_ARTICLES = ("the", "a", "an", "le", "la", "les", "l", "il", "el", "der", "die", "das")


@dataclass(frozen=True)
class CataloguePlan:
    """What `align_catalogue` would do.

    Args:
        items: The other catalogue, in its order.
        matched: Old id to new id of the items in common.
        new: Items without a predecessor, in the order of `items`.
        dropped: Old ids without a successor.
        unused: Pairs of the mapping of which either end is in neither catalogue.
    """

    items: list[str]
    matched: dict[str, str]
    new: list[str]
    dropped: list[str]
    unused: int

    @property
    def sources(self) -> dict[str, str]:
        """New id to old id of the items in common."""
        return {new: old for old, new in self.matched.items()}

    def __str__(self) -> str:
        share = len(self.matched) / len(self.items)
        text = (
            f"{len(self.matched):,} of {len(self.items):,} items matched ({share:.1%}), {len(self.new):,} new, "
            f"{len(self.dropped):,} dropped"
        )
        return text + (f"; {self.unused:,} pairs of the mapping not used" if self.unused else "")

    def to_dict(self) -> dict[str, Any]:
        """The plan in full, for a JSON file."""
        return {
            "num_matched": len(self.matched),
            "num_new": len(self.new),
            "num_dropped": len(self.dropped),
            "num_unused_pairs": self.unused,
            "matched": self.matched,
            "new": self.new,
            "dropped": self.dropped,
        }


def plan_catalogue(
    tokenizer: ItemTokenizer, items: Iterable[Any], mapping: Mapping[Any, Any] | None = None
) -> CataloguePlan:
    """Say what an alignment would match, add and drop, without doing it.

    Args:
        tokenizer: The tokenizer of the model.
        items: Raw ids of the other catalogue, each once.
        mapping: Old id to the id in `items`; None matches by equal ids.

    Raises:
        ValueError: No item, an item twice, an empty mapping, or two old items onto one.

    Example:
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> print(plan_catalogue(tokenizer, ["b", "c", "d", "e"]))
        2 of 4 items matched (50.0%), 2 new, 1 dropped
    """
    other = checked_ids("items", items)
    old_items = tokenizer.items["item_id"].to_pylist()
    known, wanted = set(old_items), set(other)
    pairs = {item: item for item in old_items} if mapping is None else _checked_mapping(mapping)
    matched = {old: pairs[old] for old in old_items if pairs.get(old) in wanted}
    targets = set(matched.values())
    return CataloguePlan(
        items=other,
        matched=matched,
        new=[item for item in other if item not in targets],
        dropped=[item for item in old_items if item not in matched],
        unused=0 if mapping is None else sum(old not in known or new not in wanted for old, new in pairs.items()),
    )


def read_mapping(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a mapping: a table whose first column holds old ids and whose second holds new ids.

    Raises:
        ValueError: Fewer than two columns, no row, an empty cell, an old id twice, or two old ids onto one.
    """
    part = read_table(path, name="mapping_file")
    names = part.table.column_names[:2]
    if len(names) < 2:
        raise ValueError(f"{path}: a mapping needs two columns, old id and new id, found {names}.")
    part = read_table(path, name="mapping_file", string_columns=tuple(names))
    old, new = ([None if value is None else str(value) for value in part.table[name].to_pylist()] for name in names)
    for name, column in zip(names, (old, new), strict=True):
        if None in column:
            raise ValueError(f"{path}: row {column.index(None) + 1} has no {name!r}. Fill it in or leave the row out.")
    double = _double(old)
    if double is not None:
        raise ValueError(f"{path}: the old id {double!r} has more than one row. Keep one.")
    return _checked_mapping(dict(zip(old, new, strict=True)))


def match_titles(
    old: pa.Table, new: pa.Table, *, title_column: str = "title", year_column: str | None = "year"
) -> dict[str, str]:
    """Match items by title and year: equal after `normalised_title`, and the only ones of that name on both sides.

    Args:
        old: Table with `item_id`, the title and the year, such as `tokenizer.items`.
        new: The same of the other catalogue.
        title_column: Column of the titles; "Title (1995)" gives its year where the year column has none.
        year_column: Column of the years; None, or where a table lacks it, leaves what the titles say.

    Returns:
        Old id to new id. What is ambiguous on either side is left out.

    Raises:
        ValueError: A table without the column of ids or titles.

    Example:
        >>> import pyarrow as pa
        >>> old = pa.table({"item_id": ["7"], "title": ["Matrix, The"], "year": [1999]})
        >>> match_titles(old, pa.table({"item_id": ["m"], "title": ["The Matrix (1999)"]}))
        {'7': 'm'}
    """
    keys = [_keys(table, name, title_column, year_column) for table, name in ((old, "old"), (new, "new"))]
    return {ids[0]: keys[1][key][0] for key, ids in keys[0].items() if len(ids) == 1 and len(keys[1].get(key, ())) == 1}


def normalised_title(title: str) -> str:
    """A title in lower case, without accents, punctuation and brackets, its article in front.

    Example:
        >>> normalised_title("Cité des enfants perdus, La (City of Lost Children, The)")
        'la cite des enfants perdus'
    """
    plain = plain_letters(title)
    plain = re.sub(r"\([^)]*\)", " ", plain).strip() or plain
    before, comma, last = plain.rpartition(",")
    if comma and last.strip().rstrip("'") in _ARTICLES:
        plain = f"{last.strip()} {before}"
    return " ".join(plain_words(plain))


def checked_ids(name: str, ids: Iterable[Any], *, once: bool = True) -> list[str]:
    """Ids as strings; an empty list, a null, a special token's name and, with `once`, an id twice are refused."""
    found = list(ids)
    if not found:
        raise ValueError(f"`{name}` must hold at least one item, found none.")
    if any(item is None for item in found):
        raise ValueError(f"`{name}` must not hold a null id. Leave it out.")
    found = [str(item) for item in found]
    special = [item for item in found if item in SPECIAL_TOKENS]
    if special:
        raise ValueError(f"`{name}` holds {special[0]}, the name of a special token. Rename this item.")
    double = _double(found) if once else None
    if double is not None:
        raise ValueError(f"`{name}` must hold each id once, found {double!r} twice. Pass the unique ids.")
    return found


def refuse_unknown(name: str, ids: Sequence[str], tokenizer: ItemTokenizer) -> None:
    """Raise when an id is not in the vocabulary."""
    known = tokenizer.get_vocab()
    unknown = [item for item in ids if item not in known]
    if unknown:
        raise ValueError(
            f"`{name}` must hold known items, found {len(unknown)} unknown ones: {', '.join(unknown[:5])}. Leave them "
            "out."
        )


def _checked_mapping(mapping: Mapping[Any, Any]) -> dict[str, str]:
    old = checked_ids("mapping", mapping)
    new = checked_ids("mapping", mapping.values(), once=False)
    double = _double(new)
    if double is not None:
        sources = [item for item, target in zip(old, new, strict=True) if target == double]
        raise ValueError(
            f"`mapping` leads {', '.join(sources[:5])} onto the one item {double!r}. Decide which of them it is."
        )
    return dict(zip(old, new, strict=True))


def _double(ids: Iterable[str | None]) -> str | None:
    seen: set[str | None] = set()
    for item in ids:
        if item in seen:
            return item
        seen.add(item)
    return None


def _keys(table: pa.Table, name: str, title_column: str, year_column: str | None) -> dict[tuple[str, str], list[str]]:
    """Ids by normalised title and year; an item without a title has no key."""
    missing = [column for column in ("item_id", title_column) if column not in table.column_names]
    if missing:
        raise ValueError(f"`{name}` needs the columns 'item_id' and {title_column!r}, found {table.column_names}.")
    years = table[year_column].to_pylist() if year_column in table.column_names else [None] * len(table)
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item, title, year in zip(table["item_id"].to_pylist(), table[title_column].to_pylist(), years, strict=True):
        if not title:
            continue
        keys[normalised_title(title), _year(year, title)].append(str(item))
    return keys


def _year(year: Any, title: str) -> str:
    """Four digits out of the year, else out of the end of the title, else nothing."""
    found = re.match(r"\s*(\d{4})\b", "" if year is None else str(year)) or re.search(r"\((\d{4})\)\s*$", title)
    return found.group(1) if found else ""
