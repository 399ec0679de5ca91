"""Recommendations from raw item ids, as a function and as a transformers pipeline."""

from .pipeline import CheckpointLoader, RecommendationPipeline
from .recommend import recommend

__all__ = ["CheckpointLoader", "RecommendationPipeline", "recommend"]
