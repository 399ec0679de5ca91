"""Recommenders without gradients: what is popular, what followed, and which items go together.

The names of the methods are read without loading them: each class is looked up in its file when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
_FILES = ("cooccurrence", "ease", "item_knn", "markov", "popularity")


def __getattr__(name: str) -> object:
    if name in __all__:
        for file in _FILES:
            module = import_module(f".{file}", __name__)
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
