"""From parts to a blend: the fit ranks as the blend will."""

from __future__ import annotations

import datasets

from hfrec import ItemKNNBaseline, ItemTokenizer, MarkovBaseline, PopularityBaseline
from hfrec.blending.run import BlendParts, mix


def test_where_items_are_taken_again_the_weights_are_fitted_on_that() -> None:
    """Weights fitted with the history filtered know nothing of the repeats that decide the ranking."""
    rows = [[3, 4, 5, 3], [4, 5, 6, 4], [6, 7, 3, 6]] * 4
    counts = PopularityBaseline().fit(rows, 8).counts
    parts = {"item_knn": ItemKNNBaseline(k=5).fit(rows, 8), "markov": MarkovBaseline(k=5).fit(rows, 8)}
    tokenizer = ItemTokenizer.from_items([f"item {number}" for number in range(5)])
    validation = datasets.Dataset.from_dict({"input_ids": rows, "target": [row[1] for row in rows[:10]] + [7, 7]})
    found = BlendParts(parts, {}, {}, counts)
    for filter_seen, num_users in ((False, 12), (True, 1)):
        blend, fit = mix(found, tokenizer, validation, filter_seen=filter_seen)
        assert blend.config.filter_seen == filter_seen
        assert fit is not None and fit.num_users == num_users
