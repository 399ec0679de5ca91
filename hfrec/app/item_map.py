"""A map of the items: neighbours on it are neighbours in the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tokenization import NUM_SPECIAL_TOKENS
from .catalogue import OTHERS, Catalogue, Item

MOST_ITEMS = 2000  # on the map, the most popular ones: a browser draws them at once, and t-SNE takes seconds
CATEGORIES = 8
WIDTH, HEIGHT, MARGIN = 1000, 520, 14
_FEWEST_FOR_TSNE = 10


def item_map(catalogue: Catalogue, vectors: NDArray[np.float32]) -> dict[str, Any]:
    """Places, titles and categories of the items, as `item_map.js` draws them.

    Args:
        catalogue: The items.
        vectors: Of all tokens `(vocab_size, width)`, as `item_vectors` gives them.

    Returns:
        `items` (`item_id`, `title`, `note`, `x`, `y`, `category`), `categories` and a `note` for readers.
    """
    places = {item_id: place for place, item_id in enumerate(catalogue.items, start=NUM_SPECIAL_TOKENS)}
    shown = catalogue.popular(MOST_ITEMS)
    spots = to_canvas(project(vectors[[places[item.item_id] for item in shown]]))  # (num_shown, 2)
    names = catalogue.leading_categories(CATEGORIES)
    items = [
        {
            "item_id": item.item_id,
            "title": item.title,
            "note": " · ".join(text for text in (item.detail, item.popularity) if text),
            "x": round(float(x), 1),
            "y": round(float(y), 1),
            "category": _category(item, names),
        }
        for item, (x, y) in zip(shown, spots, strict=True)
    ]
    total = len(catalogue.items)
    which = f"The {len(shown):,} most popular of {total:,} items" if len(shown) < total else f"All {total:,} items"
    note = f"{which}; neighbours are alike to the model. Numbers are recommendations, rings the newest of the history."
    return {"items": items, "categories": names, "note": note}


def project(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Two coordinates an item by t-SNE of the cosine (van der Maaten and Hinton, JMLR 2008), `(n, 2)`.

    Args:
        vectors: `(n, width)`; a map of fewer than ten is no map, and their first principal components are given.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(vectors) < _FEWEST_FOR_TSNE:
        flat = PCA(n_components=min(2, *vectors.shape), random_state=0).fit_transform(vectors)
        return np.asarray(np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))), dtype=np.float64)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    method = TSNE(metric="cosine", init="pca", perplexity=perplexity, max_iter=500, random_state=0)
    return np.asarray(method.fit_transform(vectors), dtype=np.float64)


def to_canvas(spots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates that fill the canvas, `(n, 2)` to `(n, 2)`."""
    low, high = spots.min(axis=0), spots.max(axis=0)
    share = (spots - low) / np.maximum(high - low, 1e-12)
    return np.asarray(MARGIN + share * (np.array([WIDTH, HEIGHT]) - 2 * MARGIN))


def _category(item: Item, names: list[str]) -> int:
    """Place of the leading category among the names; that of `other`, or 0 where nothing has a category."""
    if item.categories and item.categories[0] in names:
        return names.index(item.categories[0])
    return names.index(OTHERS) if OTHERS in names else 0
