"""Ranking metrics: pure functions here; `metrics.py` wraps them as a module for `evaluate.load` on this folder."""

from hfrec.evaluation.metrics.functions import (
    coverage,
    mean_popularity,
    metric_values,
    paired_bootstrap,
    ranking_metrics,
)

__all__ = ["coverage", "mean_popularity", "metric_values", "paired_bootstrap", "ranking_metrics"]
