"""Search the items of a catalogue by title, as somebody types it."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

# Names that item tables give their categories, the first one found being taken.
CATEGORY_COLUMNS = ("category", "categories", "genre", "genres")
# How well a word of the query fits a word of a title; the weakest word of a query decides.
_WHOLE, _BEGINNING, _INSIDE = 3, 2, 1
_SHORTEST_INSIDE = 2  # one letter stands inside nearly every word


def plain_letters(text: str) -> str:
    """Lower case, without accents.

    Example:
        >>> plain_letters("Amélie")
        'amelie'
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def plain_words(text: str) -> list[str]:
    """Words in lower case, without accents and punctuation.

    Example:
        >>> plain_words("Schindler's List (1993)")
        ['schindlers', 'list', '1993']
    """
    return re.sub(r"[^\w]+", " ", plain_letters(text).replace("'", "").replace("’", "").replace("&", " and ")).split()


class TitleIndex:
    """Finds items by words of their titles; each word may be whole, a beginning or a part of a word.

    Best first: the title itself, titles that begin with the query, those with its words in whole, as beginnings, as
    parts; within each the more popular items first, then the shorter titles. An item's id finds it too.

    Args:
        item_ids: Ids of the catalogue `(n,)`.
        titles: Their titles, None where there is none `(n,)`; when None, the ids are searched.
        counts: Interactions of each item in the training data `(n,)`.

    Raises:
        ValueError: Titles or counts of another number than the ids.

    Example:
        >>> index = TitleIndex(["1", "2", "3"], ["Amélie (2001)", "The Matrix", "Mat's Race"], counts=[5, 3, 9])
        >>> [hit["title"] for hit in index.search("mat")]
        ["Mat's Race", 'The Matrix']
        >>> [hit["item_id"] for hit in index.search("AMELIE 2001")]
        ['1']
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        titles: Sequence[str | None] | None = None,
        *,
        counts: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        self.item_ids = list(item_ids)
        self.titles: list[str | None] = [None] * len(self.item_ids) if titles is None else list(titles)
        for name, found in (("titles", self.titles), ("counts", counts)):
            if found is not None and len(found) != len(self.item_ids):
                raise ValueError(f"`{name}` must be one for each of {len(self.item_ids)} items, found {len(found)}.")
        self._places = {item: place for place, item in enumerate(self.item_ids)}
        searched = self.item_ids if titles is None else self.titles
        words = [[] if text is None else plain_words(text) for text in searched]
        plain = [" ".join(row) for row in words]
        popular = np.zeros(len(words), np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        lengths = np.array([len(text) for text in plain], dtype=np.int64)
        # Place of each item in the order of ties: popular, then short, then as in the catalogue.
        self._order = np.empty(len(words), dtype=np.int64)
        self._order[np.lexsort((lengths, -popular))] = np.arange(len(words))
        self._alphabetical = sorted(range(len(plain)), key=plain.__getitem__)
        self._plain = [plain[place] for place in self._alphabetical]
        self._fill(words)

    @classmethod
    def from_table(cls, items: pa.Table, title_column: str = "title") -> TitleIndex:
        """Of a table such as `tokenizer.items`; without titles the ids are searched.

        Args:
            items: `item_id` and, where known, titles and `count`.
            title_column: Column of the titles.
        """
        names = items.column_names
        titles = items[title_column].to_pylist() if title_column in names else None
        counts = items["count"].fill_null(0).to_numpy() if "count" in names else None
        return cls(items["item_id"].to_pylist(), titles, counts=counts)

    def title_of(self, item_id: str) -> str | None:
        """Title of an item; None where it has none or is not known."""
        place = self._places.get(item_id)
        return None if place is None else self.titles[place]

    def search(self, query: str, limit: int = 10) -> list[dict[str, Any]]:
        """The items that fit the query best.

        Args:
            query: What was typed; all of its words must fit.
            limit: Most items.

        Returns:
            `item_id` and `title` of each, best first; nothing where nothing fits or nothing was typed.

        Raises:
            ValueError: `limit` below 1.
        """
        if limit < 1:
            raise ValueError(f"`limit` must be at least 1, found {limit}.")
        fits = self._fits(plain_words(query))
        places = np.flatnonzero(fits)
        best = places[np.lexsort((self._order[places], -fits[places]))[:limit]].tolist()
        own = self._places.get(query.strip())
        if own is not None:
            best = [own, *(place for place in best if place != own)][:limit]
        return [{"item_id": self.item_ids[place], "title": self.titles[place]} for place in best]

    def _fill(self, rows: list[list[str]]) -> None:
        """Words in alphabetical order, and after each other the items that each stands in."""
        numbers: dict[str, int] = {}
        pairs = [(numbers.setdefault(word, len(numbers)), place) for place, row in enumerate(rows) for word in set(row)]
        self._words = sorted(numbers)
        rank = np.empty(len(numbers), dtype=np.int64)
        rank[[numbers[word] for word in self._words]] = np.arange(len(numbers))
        word_of, item_of = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        word_of = rank[word_of]
        order = np.argsort(word_of, kind="stable")
        self._items, self._word_of = item_of[order], word_of[order]
        self._bounds = np.searchsorted(self._word_of, np.arange(len(numbers) + 1))
        # All words as one text, a line each: a part of a word is found by one pass of `str.find`.
        self._text = "\n".join(["", *self._words, ""])
        self._starts = np.cumsum([1, *(len(word) + 1 for word in self._words)])

    def _fits(self, words: list[str]) -> NDArray[np.int64]:
        """How well a query fits each item, by its weakest word; 0 where it does not."""
        if not words:
            return np.zeros(len(self.item_ids), dtype=np.int64)
        fits: NDArray[np.int64] = np.minimum.reduce([self._fit_of(word) for word in words])
        typed = " ".join(words)
        first, last = _beginning_with(self._plain, typed)
        places = self._alphabetical[first:last]
        fits[places] = _WHOLE + 1
        whole = bisect_right(self._plain, typed, first, last)
        fits[places[: whole - first]] = _WHOLE + 2
        return fits

    def _fit_of(self, word: str) -> NDArray[np.int64]:
        """How well a word fits each item, 0 where it does not."""
        fits = np.zeros(len(self.item_ids), dtype=np.int64)
        if len(word) >= _SHORTEST_INSIDE:
            found = [match.start() for match in re.finditer(re.escape(word), self._text)]
            inside = np.zeros(len(self._words), dtype=bool)
            inside[np.searchsorted(self._starts, found, side="right") - 1] = True
            fits[self._items[inside[self._word_of]]] = _INSIDE
        first, last = _beginning_with(self._words, word)
        fits[self._items[self._bounds[first] : self._bounds[last]]] = _BEGINNING
        if first < last and self._words[first] == word:
            fits[self._items[self._bounds[first] : self._bounds[first + 1]]] = _WHOLE
        return fits


def _beginning_with(texts: list[str], beginning: str) -> tuple[int, int]:
    """First place and the one after the last in a sorted list."""
    return bisect_left(texts, beginning), bisect_left(texts, beginning + chr(0x10FFFF))
