"""What a small masked model recommends, read off its logits with NumPy: nothing of `hfrec`'s inference or serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from hfrec import Bert4RecForMaskedLM

List = list[tuple[str, float]]
MASK, UNK, SPECIALS = 1, 2, 3


class Reference:
    """A checkpoint, and the events that a service was told.

    Args:
        folder: Of a masked model whose items have counts.
    """

    def __init__(self, folder: Path) -> None:
        self.model = Bert4RecForMaskedLM.from_pretrained(folder).eval()
        table = pq.read_table(folder / "items.parquet")
        self.items: list[str] = table["item_id"].to_pylist()
        self.counts = np.array(table["count"].to_pylist(), dtype=np.float64)
        self.filter_seen = bool(json.loads((folder / "config.json").read_text())["filter_seen"])
        self.length = int(self.model.config.max_position_embeddings)
        self.events: dict[tuple[str, str], tuple[float, str]] = {}

    def keep(self, events: list[dict[str, Any]]) -> int:
        """Remember events by user and id, the first of each; the number of new ones."""
        new = 0
        for event in events:
            key = (str(event["user_id"]), str(event["event_id"]))
            if key not in self.events:
                self.events[key] = (float(event["timestamp"]), str(event["item_id"]))
                new += 1
        return new

    def history(self, user: str) -> list[str]:
        """A user's items by time, equal times by the ids of the events."""
        rows = [(moment, name, item) for (owner, name), (moment, item) in self.events.items() if owner == user]
        return [item for _, _, item in sorted(rows, key=lambda row: (row[0], row[1].encode()))]

    def recommend(self, history: list[str], body: dict[str, Any]) -> List:
        """Items and scores after a history."""
        places = {item: place for place, item in enumerate(self.items)}
        tokens = [places[item] + SPECIALS if item in places else UNK for item in history]
        if body.get("unknown_items", "drop") == "drop":
            tokens = [token for token in tokens if token != UNK]
        allowed = self._allowed(body)
        if not tokens:  # no history: what is popular, whose order is that of the file where counts are equal
            scores = np.log((self.counts + 1) / (self.counts + 1).sum())
        else:
            ids = torch.tensor([[*tokens, MASK][-self.length :]])
            with torch.inference_mode():
                scores = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, SPECIALS:].numpy()
            filter_seen = body.get("filter_seen")
            if self.filter_seen if filter_seen is None else filter_seen:
                allowed[[token - SPECIALS for token in tokens if token != UNK]] = False
        return self._best(scores, allowed, body["top_k"])

    def similar(self, item: str, body: dict[str, Any]) -> List:
        """Items and cosines."""
        vectors = self.model.get_input_embeddings().weight.detach()[SPECIALS:].numpy()
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        allowed = self._allowed(body)
        allowed[self.items.index(item)] = False
        return self._best(vectors @ vectors[self.items.index(item)], allowed, body["top_k"])

    def agree(self, found: list[dict[str, Any]], expected: List) -> bool:
        """Whether a list of the service is the expected one; items of nearly equal scores may change places."""
        if [one["rank"] for one in found] != list(range(1, len(expected) + 1)):
            return False
        known = dict(expected)
        scores = np.array([one["score"] for one in found])
        if not np.allclose(scores, [score for _, score in expected], atol=1e-4):
            return False
        if len({one["item_id"] for one in found}) != len(found):
            return False
        # An item that is not among the expected ones has the score of the last of them.
        last = scores[-1] if len(scores) else 0.0
        return all(abs(known.get(one["item_id"], last) - one["score"]) < 1e-4 for one in found)

    def _allowed(self, body: dict[str, Any]) -> NDArray[np.bool_]:
        allow, deny = body.get("allow"), body.get("deny") or []
        return np.array([(allow is None or item in allow) and item not in deny for item in self.items])

    def _best(self, scores: NDArray[Any], allowed: NDArray[np.bool_], top_k: int) -> List:
        order = [int(place) for place in np.argsort(-scores, kind="stable") if allowed[place]]
        return [(self.items[place], float(scores[place])) for place in order[:top_k]]
