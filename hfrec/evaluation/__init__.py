"""Ranking evaluation over the whole catalogue: ranks, metrics with intervals, of models and baselines."""

from hfrec.evaluation.baseline_ranking import rank_baseline
from hfrec.evaluation.cohorts import history_masks, summarise_cohorts, target_masks
from hfrec.evaluation.metrics import (
    calibration,
    coverage,
    gini_index,
    intra_list_diversity,
    list_popularity,
    mean_popularity,
    metric_values,
    novelty,
    paired_bootstrap,
    popularity_lift,
    ranking_metrics,
)
from hfrec.evaluation.ranking import make_compute_metrics, preprocess_ranks, rank_dataset, target_ranks

__all__ = [
    "calibration",
    "coverage",
    "gini_index",
    "history_masks",
    "intra_list_diversity",
    "list_popularity",
    "make_compute_metrics",
    "mean_popularity",
    "metric_values",
    "novelty",
    "paired_bootstrap",
    "popularity_lift",
    "preprocess_ranks",
    "rank_baseline",
    "rank_dataset",
    "ranking_metrics",
    "summarise_cohorts",
    "target_masks",
    "target_ranks",
]
