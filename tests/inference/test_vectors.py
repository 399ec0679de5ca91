"""Vectors of the items: their products are what `similar_items` says, whatever the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemKNNBaseline,
    ItemTokenizer,
    PopularityBaseline,
    similar_items,
)
from hfrec.blending.parts import make_blend
from hfrec.inference.vectors import item_vectors

ITEMS = [f"item {number}" for number in range(20)]
ROWS = [
    [3, 4, 5],
    [3, 4, 6],
    [4, 5, 3],
    [10, 11, 12],
    [11, 12, 10],
    [12, 10, 13],
    *([[place] * 2 for place in range(3, 23)]),
]
COUNTS = np.bincount(np.concatenate(ROWS), minlength=23)


def network(model_class: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return model_class(Bert4RecConfig(vocab_size=23, hidden_size=8, num_hidden_layers=1, initializer_range=0.5)).eval()


@pytest.mark.parametrize("kind", ["masked", "causal", "blend"])
def test_products_are_the_likeness_that_users_see(kind: str) -> None:
    """Diversity by another likeness than `hfrec similar` shows would push the wrong items away."""
    parts = {"masked": network(Bert4RecForMaskedLM, 0), "causal": network(Bert4RecForCausalLM, 1)}
    model = parts.get(kind) or make_blend(parts, [0.2, 0.8], counts=COUNTS)
    vectors = item_vectors(model)
    assert vectors.dtype == np.float32
    likeness = vectors[3:] @ vectors[3:].T
    found = similar_items(model, ItemTokenizer.from_items(ITEMS), ["item 4"], top_k=19)[0]
    assert {row["item_id"]: row["score"] for row in found} == pytest.approx(
        {item: likeness[4, place] for place, item in enumerate(ITEMS) if place != 4}, abs=1e-5
    )


def test_a_blend_of_tables_lays_what_was_seen_together_side_by_side() -> None:
    """Without a network there are no embeddings: two groups of items that never met must lie apart."""
    table = ItemKNNBaseline(k=10, decay=1.0).fit(ROWS, 23)
    model = make_blend({"item_knn": table}, [1.0], counts=COUNTS)
    vectors = item_vectors(model)
    likeness = vectors @ vectors.T
    assert likeness[3, 4] > 0.3
    assert abs(likeness[3, 11]) < 0.1
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all(np.isclose(lengths, 1.0, atol=1e-5) | (lengths == 0.0))
    again = item_vectors(model)
    assert np.allclose(again @ again.T, likeness, atol=1e-5), "the same likeness at every call"


def test_popularity_alone_has_no_vectors() -> None:
    popular = PopularityBaseline().fit(ROWS, 23)
    with pytest.raises(ValueError, match="popularity alone"):
        item_vectors(make_blend({"popularity": popular}, [1.0], counts=COUNTS))
