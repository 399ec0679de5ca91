"""One checkpoint under its label, and what the page asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.collators import objective_of
from ..data.inputs import refuse_inputs
from ..data.repeats import filters_seen
from ..data.titles import TitleIndex
from ..hub.checkpoint import load_checkpoint
from ..inference.explain import explain
from ..inference.prior import PopularityPrior, load_prior
from ..inference.recommend import recommend
from ..inference.rerank import pool_size, rerank
from ..inference.vectors import item_vectors
from ..tokenization import ItemTokenizer
from .catalogue import Catalogue, Item

TOP_K = 10
REASONS = 3
EXPLAINED_ITEMS = 50  # newest items of a history that are taken out in turn
LEAST_REASON = 0.02  # a reason makes an item at least 2 % more expected


@dataclass(frozen=True)
class Recommendation:
    """A recommended item with its score, and the past items that carried it with the factor by which each did."""

    item: Item
    rank: int
    score: float
    reasons: tuple[tuple[Item, float], ...]


class Recommender:
    """A checkpoint and its items.

    Args:
        label: Name on the page.
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend`.
        tokenizer: The tokenizer of this model.
        prior: Mixed into the scores of empty histories.
        category_column: As in `Catalogue`.
        separator: As in `Catalogue`.
    """

    def __init__(
        self,
        label: str,
        model: Any,
        tokenizer: ItemTokenizer,
        *,
        prior: PopularityPrior | None = None,
        category_column: str | None = None,
        separator: str = "|",
    ) -> None:
        self.label, self.model, self.tokenizer = label, model, tokenizer
        self.asked = model if prior is None else prior.over(model)
        self.catalogue = Catalogue(tokenizer, category_column=category_column, separator=separator)
        self.titles = TitleIndex.from_table(tokenizer.items)

    @classmethod
    def load(
        cls, name_or_path: str, *, label: str | None = None, revision: str | None = None, **options: Any
    ) -> Recommender:
        """From a folder or a hub.

        Args:
            name_or_path: Folder or hub id.
            label: Name on the page; the last part of `name_or_path` when None.
            revision: Branch, tag or commit on the hub.
            options: `category_column` and `separator`.
        """
        model, tokenizer = load_checkpoint(name_or_path, revision=revision)
        refuse_inputs(model, "the page")
        prior = load_prior(name_or_path, tokenizer, revision=revision)
        return cls(label or Path(name_or_path).name, model, tokenizer, prior=prior, **options)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Of all tokens, for diversity and the map."""
        return item_vectors(self.model)

    @property
    def relates(self) -> bool:
        """Whether it knows how alike items are; a blend of popularity alone does not."""
        if objective_of(self.model) != "blend":
            return True
        return any(entry["kind"] != "popularity" and entry["weight"] > 0 for entry in self.model.config.components)

    @property
    def description(self) -> str:
        """Kind of the model and size of the catalogue, in one line."""
        kinds = {"masked": "masked model", "causal": "causal model", "blend": "blend"}
        return f"{kinds[objective_of(self.model)]}, {len(self.catalogue.items):,} items"

    def known(self, history: Sequence[str]) -> list[str]:
        """The items of a history that this checkpoint knows."""
        return [item for item in history if item in self.catalogue.items]

    def recommend(
        self, history: Sequence[str], *, diversity: float = 0.0, popularity: float = 0.0
    ) -> list[Recommendation]:
        """Ten items for a history with a known item, and their reasons.

        Args:
            history: Raw ids, oldest first; unknown ones are left out.
            diversity: As in `rerank`.
            popularity: As in `rerank`.
        """
        history = self.known(history)
        number = len(self.catalogue.items)
        found = recommend(
            self.asked,
            self.tokenizer,
            [history],
            pool_size(TOP_K, number),
            filter_seen=filters_seen(self.model.config),
        )
        vectors = self.vectors if diversity else None
        (rows,) = rerank(
            found, self.tokenizer, min(TOP_K, number), diversity=diversity, popularity=popularity, vectors=vectors
        )
        reasons = self._reasons(history, [row["item_id"] for row in rows])
        items = self.catalogue.items
        return [
            Recommendation(items[row["item_id"]], row["rank"], row["score"], why)
            for row, why in zip(rows, reasons, strict=True)
        ]

    def _reasons(self, history: Sequence[str], items: Sequence[str]) -> list[tuple[tuple[Item, float], ...]]:
        found = explain(self.asked, self.tokenizer, history, items, REASONS, max_items=EXPLAINED_ITEMS)
        known = self.catalogue.items
        return [
            tuple(
                (known[reason["item_id"]], float(np.exp(reason["contribution"])))
                for reason in reasons
                if reason["contribution"] > LEAST_REASON
            )
            for reasons in found
        ]
