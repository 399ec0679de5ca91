"""Recommenders without gradients: what is popular, what followed, and which items go together."""

from .cooccurrence import CostError
from .ease import EASEBaseline
from .item_knn import ItemKNNBaseline
from .markov import MarkovBaseline
from .popularity import PopularityBaseline, RecentPopularityBaseline

__all__ = [
    "CostError",
    "EASEBaseline",
    "ItemKNNBaseline",
    "MarkovBaseline",
    "PopularityBaseline",
    "RecentPopularityBaseline",
]
