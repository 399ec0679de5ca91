"""The arms of `content_transfer.py` on a share of the target's users, and three settings of each where it is tuned."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from hfrec import EASEBaseline, ItemKNNBaseline, PopularityBaseline, ranking_metrics
from hfrec.data.files import write_json
from hfrec.models.content import FIRST_DECAY

Ranks = dict[str, Any]
Tried = TypeVar("Tried")
RATES = (0.3, 1.0, 3.0)  # of the learning rate
STRENGTHS = (0.01, 0.1, 1.0)  # of L2-SP
SCRATCH = "content+id from scratch"


@dataclass(frozen=True)
class Network:
    """A network and how it is trained on the share.

    Args:
        start: Where it comes from: `source`, `shuffled`, or nowhere.
        of_content: Whether its items are made of content.
        alpha: Strength of L2-SP, a tenth on residuals.
        freeze: What keeps its weights.
        rate: Share of the learning rate.
    """

    start: str | None = None
    of_content: bool = True
    alpha: float = 0.0
    freeze: str = "none"
    rate: float = 1.0

    def trials(self) -> list[Network]:
        """The settings that are tried: strengths of L2-SP where it pulls, else rates."""
        if self.alpha:
            return [replace(self, alpha=alpha) for alpha in STRENGTHS]
        return [replace(self, rate=rate) for rate in RATES]


NETWORKS = {
    "ids from scratch": Network(of_content=False),
    SCRATCH: Network(),
    "fine-tuned": Network("source"),
    "fine-tuned, L2-SP": Network("source", alpha=0.1),
    "fine-tuned, body frozen": Network("source", freeze="backbone"),
    "fine-tuned, shuffled source": Network("shuffled"),
}


class ContentCosine:
    """The cosine between an item's content and the mean content of the newest items; no model at all."""

    def __init__(self, features: torch.Tensor, max_length: int, decay: float = FIRST_DECAY) -> None:
        self.table = F.pad(F.normalize(features, dim=1), (0, 0, 3, 0))  # (vocab_size, width)
        self.max_length, self.decay = max_length, decay

    def score(self, histories: Any) -> Any:
        lists = [history.as_py() for history in histories]
        newest = [torch.tensor(history[-self.max_length :], dtype=torch.long) for history in lists]
        ages = [self.decay ** torch.arange(len(history) - 1, -1, -1) for history in newest]
        profiles = [age @ self.table[history] for age, history in zip(ages, newest, strict=True)]
        return (F.normalize(torch.stack(profiles), dim=1) @ self.table.T).numpy()


class Mixed:
    """Two methods' scores, each divided by its largest of a user, added with the weights `share` and `1 - share`."""

    def __init__(self, one: Any, other: Any, share: float = 0.5) -> None:
        self.parts = ((share, one), (1 - share, other))

    def score(self, histories: Any) -> Any:
        total = 0.0
        for share, method in self.parts:
            found = np.nan_to_num(np.asarray(method.score(histories)), neginf=0.0)
            total = total + share * found / np.maximum(np.abs(found).max(axis=1, keepdims=True), 1e-9)
        return total


def classical(
    histories: Any, vocab_size: int, cosine: ContentCosine, *, ease: bool, tune: bool
) -> dict[str, list[tuple[str, Any]]]:
    """The classical methods, with recency, fitted on the users that a network gets: names of settings, and methods."""
    decays, shares, penalties = (0.5, 0.3, 0.8), (0.5, 0.25, 0.75), (500.0, 50.0, 2000.0)
    if not tune:
        decays, shares, penalties = decays[:1], shares[:1], penalties[:1]
    knn = {decay: ItemKNNBaseline(decay=decay).fit(histories, vocab_size) for decay in decays}
    made = {
        "popularity": [("", PopularityBaseline().fit(histories, vocab_size))],
        "item-kNN": [(f"decay {decay}", one) for decay, one in knn.items()],
        "item-kNN + cosine of content": [(f"share {share}", Mixed(knn[0.5], cosine, share)) for share in shares],
    }
    if ease:
        made["EASE"] = [(f"l2 {l2:g}", EASEBaseline(l2=l2).fit(histories, vocab_size)) for l2 in penalties]
    return made


def best_of(trials: Sequence[Tried], rank: Callable[[Tried], Ranks]) -> Tried:
    """The one with the highest NDCG@10."""
    if len(trials) == 1:
        return trials[0]
    found = [ranking_metrics(np.asarray(rank(trial)), ks=(10,))["ndcg@10"] for trial in trials]
    return trials[int(np.argmax(found))]


class Settled:
    """Settings that were chosen, kept in a file: those of a share are chosen once, with the first seed's draw."""

    def __init__(self, path: Path, rank: Callable[[Any], Ranks]) -> None:
        self.path, self.rank = path, rank
        self.chosen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def network(self, where: str, name: str, fit: Callable[[Network], Any]) -> Network:
        """The network with the settings that are best on validation."""
        place = f"{where}: {name}"
        if place not in self.chosen:
            best = best_of(NETWORKS[name].trials(), lambda tried: self.rank(fit(tried)))
            self.chosen[place] = asdict(best)
            write_json(self.path, self.chosen)
        print(place, self.chosen[place], flush=True)
        return Network(**self.chosen[place])
