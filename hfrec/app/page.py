"""What the page says: the contents of its parts for a history and the position of the controls. No Gradio here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from . import cards
from .catalogue import Item
from .item_map import item_map
from .recommender import Recommendation, Recommender

SIDE_BY_SIDE = "Side by side"
SUGGESTIONS = 8  # of a search field
EXAMPLES = 6
MARKED = 30  # newest items of a history that the map marks


class Page:
    """What the parts of the page show for a history and the position of the controls.

    Args:
        recommenders: One or two checkpoints, with labels of their own.
        users: Histories of a log by user id, oldest item first.
    """

    def __init__(self, recommenders: Sequence[Recommender], users: Mapping[str, Sequence[str]] | None = None) -> None:
        labels = [recommender.label for recommender in recommenders]
        if not 1 <= len(labels) <= 2 or len({*labels, SIDE_BY_SIDE}) <= len(labels):
            raise ValueError(
                f"Expected one or two checkpoints with labels of their own, none {SIDE_BY_SIDE!r}, found {labels}. "
                "Give them others (`--labels`)."
            )
        self.recommenders = {recommender.label: recommender for recommender in recommenders}
        self.users = dict(users or {})
        self._maps: dict[str, dict[str, Any]] = {}
        self._lock = Lock()

    @property
    def counted(self) -> bool:
        """Whether every checkpoint knows how popular its items are."""
        return all(recommender.catalogue.counted for recommender in self.recommenders.values())

    @property
    def related(self) -> bool:
        """Whether every checkpoint knows how alike its items are, which diversity and the map need."""
        return all(recommender.relates for recommender in self.recommenders.values())

    @property
    def first(self) -> Recommender:
        return next(iter(self.recommenders.values()))

    @property
    def choices(self) -> list[str]:
        """What can be shown: each checkpoint, or both."""
        labels = list(self.recommenders)
        return [SIDE_BY_SIDE, *labels] if len(labels) > 1 else labels

    def knows(self, item_id: str) -> bool:
        """Whether a checkpoint has the item."""
        return any(item_id in recommender.catalogue.items for recommender in self.recommenders.values())

    def item(self, item_id: str) -> Item:
        """As the first checkpoint that knows it describes it."""
        known = (recommender.catalogue.items.get(item_id) for recommender in self.recommenders.values())
        return next((item for item in known if item is not None), Item(item_id, item_id))

    def find_titles(self, query: str) -> list[dict[str, str]]:
        """Items for the search field."""
        hits = self.first.titles.search(query, SUGGESTIONS)
        found = [self.item(hit["item_id"]) for hit in hits]
        return [{"item_id": item.item_id, "title": item.title, "note": item.detail} for item in found]

    def find_users(self, query: str) -> list[dict[str, str]]:
        """Users whose id begins with what was typed, for the search field; a whole id comes first, then all others."""
        wanted = query.strip()
        names = [name for name in self.users if name.startswith(wanted)]
        if wanted in self.users:
            names = [wanted, *(name for name in self.users if name != wanted)]
        names = names[:SUGGESTIONS]
        return [{"item_id": name, "title": name, "note": f"{len(self.users[name]):,} items"} for name in names]

    def answer(self, history: list[str], shown: str, diversity: float, popularity: float) -> tuple[str, ...]:
        """Contents of the history, the examples, the lists and the map."""
        past = [self.item(item_id) for item_id in history]
        wanted = list(self.recommenders) if shown == SIDE_BY_SIDE else [shown]
        lists = {label: self._recommend(label, history, diversity, popularity) for label in wanted}
        marks = {
            "label": wanted[0],
            "history": history[-MARKED:],
            "recommended": [row.item.item_id for row in lists[wanted[0]]],
        }
        examples = "" if history else cards.example_buttons(self.first.catalogue.popular(EXAMPLES))
        return cards.history_cards(past), examples, self._lists(lists, history), json.dumps(marks)

    def item_map(self, label: str) -> dict[str, Any]:
        """Of one checkpoint, made once."""
        with self._lock:  # one projection at a time: each takes seconds
            if label not in self._maps:
                recommender = self.recommenders[label]
                self._maps[label] = item_map(recommender.catalogue, recommender.vectors)
            return self._maps[label]

    def _recommend(self, label: str, history: list[str], diversity: float, popularity: float) -> list[Recommendation]:
        recommender = self.recommenders[label]
        if not recommender.known(history):
            return []
        return recommender.recommend(history, diversity=diversity, popularity=popularity)

    def _lists(self, lists: dict[str, list[Recommendation]], history: list[str]) -> str:
        if not history:
            return '<p class="empty">Ten recommendations appear here as soon as the history has an item.</p>'
        ids = [{row.item.item_id for row in rows} for rows in lists.values()]
        shared = set.intersection(*ids) if len(ids) > 1 else set()
        parts = []
        for label, rows in lists.items():
            recommender = self.recommenders[label]
            missing = len(history) - len(recommender.known(history))
            note = f"{missing} of {len(history)} items of the history are unknown to this model." if missing else ""
            scale = cards.popularity_scale([row.item for row in rows], [self.item(item_id) for item_id in history])
            parts.append(cards.recommendation_list(label, rows, scale=scale, shared=shared, note=note))
        return f'<div class="lists n{len(parts)}">{"".join(parts)}</div>'
