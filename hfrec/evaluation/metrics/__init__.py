"""Metrics of ranks and lists: pure functions here; `metrics.py` wraps them for `evaluate.load` on this folder."""

from hfrec.evaluation.metrics.bootstrap import mean_interval
from hfrec.evaluation.metrics.functions import metric_values, paired_bootstrap, pooled_values, ranking_metrics
from hfrec.evaluation.metrics.lists import (
    calibration,
    coverage,
    gini_index,
    intra_list_diversity,
    list_popularity,
    mean_popularity,
    novelty,
    popularity_lift,
)

__all__ = [
    "calibration",
    "coverage",
    "gini_index",
    "intra_list_diversity",
    "list_popularity",
    "mean_interval",
    "mean_popularity",
    "metric_values",
    "novelty",
    "paired_bootstrap",
    "pooled_values",
    "popularity_lift",
    "ranking_metrics",
]
