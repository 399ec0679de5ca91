"""The names of the classical methods. Nothing heavy is imported here: the command line reads them too."""

from typing import Literal, get_args

Method = Literal["popularity", "recent_popularity", "markov", "item_knn", "ease"]
METHODS: tuple[Method, ...] = get_args(Method)
