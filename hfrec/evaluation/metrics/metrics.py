"""`evaluate` module of the ranking metrics: `evaluate.load("<this folder>")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from .bootstrap import mean_interval
from .functions import ranking_metrics
from .lists import coverage, gini_index, mean_popularity, novelty

# `evaluate` copies the files that are imported above, not what these import in their turn: `bootstrap` is for them.
__all__ = ["RankingMetrics", "mean_interval"]

_DESCRIPTION = """
Hit rate, NDCG, MRR, recall, precision and MAP at k over the ranks of held-out items, with bootstrap intervals over
rows; coverage, Gini index, mean popularity and novelty if the recommended items are given.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: ranks of the held-out items, 1 is best and 0 a miss.
    ks: cut-offs, 5, 10 and 20 if left out.
    n_bootstrap: resamples for the intervals, 0 for none.
    seed: seed of the resampling.
    confidence: mass inside an interval.
    recommended: (n, top_k) recommended token ids, for what follows.
    num_items: size of the catalogue, for `coverage` and `gini_index`.
    item_counts: training interactions by token id, for `mean_popularity` and `novelty`.
Returns:
    flat dictionary with `ndcg@10`, `ndcg@10_ci` and so on.
"""

_CITATION = """
@article{jarvelin2002cumulated,
  title={Cumulated gain-based evaluation of {IR} techniques},
  author={J{\\"a}rvelin, Kalervo and Kek{\\"a}l{\\"a}inen, Jaana},
  journal={ACM Transactions on Information Systems}, volume={20}, number={4}, year={2002}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class RankingMetrics(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """The functions of `hfrec.evaluation.metrics` behind the interface of `evaluate`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("int64")}),
        )

    def _compute(
        self,
        predictions: Sequence[int],
        *,
        recommended: Sequence[Sequence[int]] | None = None,
        num_items: int | None = None,
        item_counts: Sequence[int] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Metrics of the collected ranks; `options` are those of `ranking_metrics`."""
        if recommended is None and (num_items is not None or item_counts is not None):
            raise ValueError("`num_items` and `item_counts` need `recommended`, found none. Pass the recommended ids.")
        result = ranking_metrics(predictions, **options)
        if recommended is not None and num_items is not None:
            result["coverage"] = coverage(recommended, num_items=num_items)
            result["gini_index"] = gini_index(recommended, num_items=num_items)
        if recommended is not None and item_counts is not None:
            result["mean_popularity"] = mean_popularity(recommended, item_counts=item_counts)
            result["novelty"] = float(novelty(recommended, item_counts=item_counts).mean())
        return result
