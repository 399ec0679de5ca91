"""Ranking evaluation over the whole catalogue: ranks, metrics with intervals, of models and baselines."""

from hfrec.evaluation.baseline_ranking import rank_baseline
from hfrec.evaluation.cohorts import history_masks, summarise_cohorts, target_masks
from hfrec.evaluation.metrics import coverage, mean_popularity, metric_values, paired_bootstrap, ranking_metrics
from hfrec.evaluation.ranking import make_compute_metrics, preprocess_ranks, rank_dataset, target_ranks

__all__ = [
    "coverage",
    "history_masks",
    "make_compute_metrics",
    "mean_popularity",
    "metric_values",
    "paired_bootstrap",
    "preprocess_ranks",
    "rank_baseline",
    "rank_dataset",
    "ranking_metrics",
    "summarise_cohorts",
    "target_masks",
    "target_ranks",
]
