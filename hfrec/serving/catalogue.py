"""The items of a served model: names, filters and what is popular, in NumPy alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.titles import CATEGORY_COLUMNS, TitleIndex

UNK = 2  # token id of [UNK]
NUM_SPECIAL = 3  # [PAD] [MASK] [UNK]: `hfrec.tokenization` has them too, and loads transformers
UnknownItems = Literal["drop", "error", "unk"]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of the items; all lists are in their order.

    Args:
        item_ids: Raw ids; item `i` has the token id `i + 3`.
        titles: Titles, or None where there are none.
        counts: Training interactions `(n,)`, or None.
        metadata: Further columns of text, or of lists of texts.
    """

    item_ids: Sequence[str]
    titles: Sequence[str | None] | None = None
    counts: NDArray[np.int64] | None = None
    metadata: dict[str, Sequence[Any]] = field(default_factory=dict)

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Token id of each item."""
        return {item: token for token, item in enumerate(self.item_ids, start=NUM_SPECIAL)}

    @cached_property
    def title_index(self) -> TitleIndex:
        """Search by title; made when it is first asked for."""
        return TitleIndex(self.item_ids, self.titles, counts=self.counts)

    def encode(self, history: Sequence[str], unknown: UnknownItems) -> tuple[list[int], int]:
        """Token ids of a history, and how many of its items are not in the catalogue.

        Raises:
            ValueError: An unknown item under `error`.
        """
        known = self.tokens
        tokens = [known.get(item, UNK) for item in history]
        missing = tokens.count(UNK)
        if missing and unknown == "error":
            item = history[tokens.index(UNK)]
            raise ValueError(
                f"expected items of the catalogue, found {item!r}. Leave such items out, or ask with "
                "`unknown_items` = 'drop' or 'unk'."
            )
        return (tokens if not missing or unknown == "unk" else [token for token in tokens if token != UNK]), missing

    def encode_items(self, items: Iterable[str]) -> list[int]:
        """Token ids of items that must be known.

        Raises:
            ValueError: With the first one that is not.
        """
        found = []
        for item in items:
            if item not in self.tokens:
                raise ValueError(
                    f"expected items of the catalogue, found {item!r}. `GET /items?q=` finds ids by title."
                )
            found.append(self.tokens[item])
        return found

    def allowed(
        self,
        allow: Sequence[str] | None,
        deny: Sequence[str] | None,
        categories: Sequence[str] | None,
        category_column: str | None,
    ) -> NDArray[np.bool_] | None:
        """Which tokens may be recommended `(vocab_size,)`, None for all; ids that are not in the catalogue do nothing.

        Raises:
            ValueError: Categories that no item has, or a catalogue without categories.
        """
        if allow is None and deny is None and categories is None:
            return None
        mask = np.full(len(self.item_ids) + NUM_SPECIAL, allow is None)
        mask[[self.tokens[item] for item in allow or () if item in self.tokens]] = True
        mask[[self.tokens[item] for item in deny or () if item in self.tokens]] = False
        mask[:NUM_SPECIAL] = False
        if categories is not None:
            places = self._places_of(category_column)
            unknown = [name for name in categories if name not in places]
            if unknown:
                raise ValueError(
                    f"`categories` must be of the catalogue, found {unknown[0]!r}. Known: "
                    f"{', '.join(sorted(places)[:20])}."
                )
            inside = np.zeros_like(mask)
            for name in categories:
                inside[places[name]] = True
            mask &= inside
        return mask

    def popular(self, allowed: NDArray[np.bool_] | None, top_k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Tokens of the most popular items and the logarithms of their shares; equal ones by token id.

        Raises:
            ValueError: The catalogue has no counts.
        """
        if self.counts is None:
            raise ValueError(
                "the model knows no training counts of its items, so that none is known to be popular: give a history "
                "with at least one item of the catalogue."
            )
        order, shares = self._by_popularity
        chosen = order if allowed is None else order[allowed[order]]
        return chosen[:top_k], shares[chosen[:top_k]]

    def named(self, tokens: Iterable[int], scores: Iterable[float]) -> list[dict[str, Any]]:
        """Recommendations in words."""
        found: list[dict[str, Any]] = []
        ids, titles = self.item_ids, self.titles
        for rank, (token, score) in enumerate(zip(tokens, scores, strict=True), start=1):
            place = token - NUM_SPECIAL
            item = {"item_id": ids[place], "score": score, "rank": rank}
            if titles is not None:
                item["title"] = titles[place]
            found.append(item)
        return found

    @cached_property
    def _by_popularity(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Tokens by count, and of each token the logarithm of its share."""
        counts = np.zeros(NUM_SPECIAL) if self.counts is None else np.concatenate([np.zeros(NUM_SPECIAL), self.counts])
        shares = np.log((counts + 1.0) / (counts[NUM_SPECIAL:] + 1.0).sum())
        order = np.argsort(-counts[NUM_SPECIAL:], kind="stable") + NUM_SPECIAL
        return order, shares

    def _places_of(self, named: str | None) -> dict[str, list[int]]:
        """Tokens of each category."""
        column = named or next((name for name in CATEGORY_COLUMNS if name in self.metadata), CATEGORY_COLUMNS[0])
        if column not in self.metadata:
            raise ValueError(
                f"the catalogue has no column {column!r} of categories, only {', '.join(self.metadata) or 'none'}: "
                "start the service with another `--category_column`."
            )
        return self._categories(column)

    def _categories(self, column: str) -> dict[str, list[int]]:
        if column not in self._category_tokens:
            places: dict[str, list[int]] = {}
            for token, value in enumerate(self.metadata[column], start=NUM_SPECIAL):
                names = value if isinstance(value, (list, tuple)) else (value or "").split("|")
                for name in names:
                    if name and name.strip():
                        places.setdefault(name.strip(), []).append(token)
            self._category_tokens[column] = places
        return self._category_tokens[column]

    @cached_property
    def _category_tokens(self) -> dict[str, dict[str, list[int]]]:
        return {}
