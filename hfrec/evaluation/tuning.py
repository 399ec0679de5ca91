"""Settings of the classical baselines, chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from transformers.utils import logging

from ..classical.cooccurrence import CostError, training_matrix
from ..classical.ease import EASEBaseline, ease_table, gram_matrix
from ..classical.histories import flatten
from ..classical.item_knn import ItemKNNBaseline, cosine_tables
from ..classical.markov import MarkovBaseline, item_shares, smoothed_table, transitions
from ..classical.names import METHODS, Method
from ..classical.popularity import PopularityBaseline, RecentPopularityBaseline
from .baseline_ranking import Baseline, rank_baseline
from .metrics.functions import METRIC, ranking_metrics

logger = logging.get_logger(__name__)
Settings = dict[str, float]
Grid = Mapping[str, Sequence[float]]
Build = Callable[[Settings], Baseline]
MAX_USERS = 4000
MIN_USERS = 200
MAX_SCORES = 200_000_000  # of one trial: at a million items ten seconds, and there are some twenty trials
LARGE_CATALOGUE = 8000  # tokens from which on the inverse of EASE takes so long that only two are tried
MAX_TRANSITIONS = 100_000_000  # pairs of items at a distance of at most `skips`, 12 bytes each

# In the order in which they are tried; the values that a class has by default are where the search starts.
GRIDS: dict[Method, Grid] = {
    "popularity": {},
    "recent_popularity": {"half_life": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
    "markov": {
        "decay": (0.0, 0.2, 0.4, 0.6, 0.8),
        "skips": (1, 2, 3, 5, 10, 20),
        "smoothing": (0.0, 1.0, 10.0),
        "k": (200,),
    },
    "item_knn": {"decay": (0.2, 0.35, 0.5, 0.65, 0.8, 0.9), "shrinkage": (0.0, 5.0, 20.0), "k": (50, 200, 1000, 3000)},
    "ease": {"decay": (0.35, 0.5, 0.65, 0.8, 0.9), "l2": (20.0, 50.0, 200.0, 500.0, 1000.0, 2000.0), "k": (500,)},
}
CLASSES: dict[Method, type[Any]] = {
    "popularity": PopularityBaseline,
    "recent_popularity": RecentPopularityBaseline,
    "markov": MarkovBaseline,
    "item_knn": ItemKNNBaseline,
    "ease": EASEBaseline,
}


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """What baselines are fitted on; what several of them need is computed once.

    Args:
        sequences: training histories of token ids, oldest first, as lists or an Arrow list array.
        vocab_size: size of the vocabulary, special tokens included.
        times: (num_interactions,) time of each, in the order of the flattened `sequences`; for recent popularity.
    """

    sequences: Any
    vocab_size: int
    times: ArrayLike | None = None

    @cached_property
    def matrix(self) -> Any:
        """Users by items."""
        return training_matrix(self.sequences, self.vocab_size)


@dataclass(frozen=True, eq=False)
class TunedBaseline:
    """A fitted baseline and how its settings came about.

    Args:
        baseline: the fitted baseline.
        settings: its settings.
        validation: NDCG@10 of those settings on the validation users; None if they are the defaults, untested.
        num_users: validation users that it was measured on.
        num_trials: settings that were compared.
    """

    baseline: Any
    settings: Settings
    validation: float | None = None
    num_users: int = 0
    num_trials: int = 0


def tune(
    method: Method,
    sequences: Any,
    *,
    histories: Any,
    targets: ArrayLike,
    vocab_size: int,
    times: ArrayLike | None = None,
    max_users: int = MAX_USERS,
    seed: int = 0,
) -> TunedBaseline:
    """Fit a classical baseline with the settings that are best on validation.

    One setting after the other is moved up or down its grid as long as NDCG@10, seen items filtered, grows, until no
    move helps. What trials have in common is computed once.

    Args:
        method: One of `METHODS`.
        sequences: training histories of token ids, oldest first, as lists or an Arrow list array.
        histories: n validation histories; they may be the training histories.
        targets: (n,) validation targets, one for each history.
        vocab_size: size of the vocabulary, special tokens included.
        times: (num_interactions,) time of each training interaction, in the order of the flattened `sequences`;
            recent popularity needs them.
        max_users: validation users that the trials are measured on, drawn at random if there are more.
        seed: seed of that draw.

    Returns:
        The fitted baseline, its settings, and their NDCG@10.

    Raises:
        ValueError: if `method` is none of them, `times` are missing, or lengths or ids do not fit.
        CostError: if the method would take more time or memory than its limits allow.

    Example:
        >>> histories, targets = [[3, 4], [3, 4], [4, 5]] * 4, [5, 5, 3] * 4
        >>> tuned = tune("item_knn", [[3, 4, 5], [4, 5, 3]] * 4, histories=histories, targets=targets, vocab_size=6)
        >>> tuned.settings, tuned.num_users
        ({'decay': 0.5, 'shrinkage': 0.0, 'k': 1000}, 12)
    """
    _check_method(method)
    return _tune(method, TrainingLog(sequences, vocab_size, times), _sample(histories, targets, max_users, seed))


def tuned_baselines(
    log: TrainingLog,
    histories: Any = None,
    targets: ArrayLike | None = None,
    *,
    methods: Sequence[Method] = METHODS,
) -> tuple[dict[str, TunedBaseline], dict[str, str]]:
    """Every method that the log allows, tuned on validation if there is one and with the defaults otherwise.

    Args:
        log: what they are fitted on; without times there is no recent popularity.
        histories: n validation histories, or None.
        targets: (n,) validation targets, or None.
        methods: which ones.

    Returns:
        The fitted baselines by method, and the reasons of those that are left out, which are also logged.
    """
    rows = None if targets is None else _sample(histories, targets, trial_users(log.vocab_size), seed=0)
    fitted, skipped = {}, {}
    for method in methods:
        if method == "recent_popularity" and log.times is None:
            continue
        try:
            fitted[str(method)] = _default(method, log) if rows is None else _tune(method, log, rows)
        except CostError as error:
            skipped[str(method)] = str(error)
            logger.warning(f"baseline {method} is left out: {error}")
    return fitted, skipped


def fit_baseline(method: Method, settings: Settings, log: TrainingLog) -> Any:
    """A baseline fitted with settings that were chosen already.

    Args:
        method: Which one.
        settings: As those of [`TunedBaseline`].
        log: What it is fitted on.

    Raises:
        CostError: It would take more time or memory than its limits allow.
    """
    grid = {name: (value,) for name, value in settings.items()}
    return _builder(method, log, grid)(settings)


def trial_users(vocab_size: int) -> int:
    """Validation users that settings are compared on: fewer where each has a large catalogue to rank.

    Example:
        >>> trial_users(20_000), trial_users(100_000), trial_users(1_000_000)
        (4000, 2000, 200)
    """
    return max(MIN_USERS, min(MAX_USERS, MAX_SCORES // vocab_size))


def batch_rows(vocab_size: int) -> int:
    """Rows scored at a time, so that their scores, which ranking holds three times, take some 100 MB at most."""
    return max(1, min(256, 10_000_000 // vocab_size))


def _tune(method: Method, log: TrainingLog, rows: tuple[Any, NDArray[np.int64]]) -> TunedBaseline:
    grid = _grid(method, log)
    build = _builder(method, log, grid)
    tried: dict[tuple[float, ...], float] = {}

    def measure(settings: Settings) -> float:
        key = tuple(settings.values())
        if key not in tried:
            ranks = rank_baseline(build(settings), *rows, batch_size=batch_rows(log.vocab_size))["filter_seen"]
            tried[key] = ranking_metrics(ranks, ks=(10,), n_bootstrap=0)[METRIC]
        return tried[key]

    best = _search(grid, _defaults(method), measure) if grid else {}
    return TunedBaseline(build(best), best, measure(best), len(rows[1]), len(tried))


def _grid(method: Method, log: TrainingLog) -> Grid:
    """The grid, less what a large log makes slow."""
    grid = dict(GRIDS[method])
    if method == "ease" and log.vocab_size > LARGE_CATALOGUE:
        grid["l2"] = (50.0, 500.0)
    if method == "markov":
        size = len(flatten(log.sequences, log.vocab_size)[0])
        grid["skips"] = [skips for skips in grid["skips"] if skips == 1 or skips * size <= MAX_TRANSITIONS]
    return grid


def _search(grid: Grid, start: Settings, measure: Callable[[Settings], float]) -> Settings:
    """Walk along one setting after the other while the measure grows, until it grows nowhere."""
    best, moved = start, True
    while moved:
        moved = False
        for name, values in grid.items():
            for step in (1, -1):
                place = values.index(best[name]) + step
                while 0 <= place < len(values) and measure({**best, name: values[place]}) > measure(best):
                    best, moved, place = {**best, name: values[place]}, True, place + step
    return best


def _default(method: Method, log: TrainingLog) -> TunedBaseline:
    settings = _defaults(method)
    return TunedBaseline(fit_baseline(method, settings, log), settings)


def _defaults(method: Method) -> Settings:
    plain = CLASSES[method]()
    return {name: getattr(plain, name) for name in GRIDS[method]}


def _builder(method: Method, log: TrainingLog, grid: Grid) -> Build:
    """How a method is fitted with settings of the grid; what does not depend on them is computed here, once."""
    if method == "markov":
        return _markov_builder(log)
    if method == "item_knn":
        tables = cosine_tables(log.matrix, grid["shrinkage"], k=int(max(grid["k"])))
        by_shrinkage = dict(zip(grid["shrinkage"], tables, strict=True))
        return lambda chosen: ItemKNNBaseline(**_typed(chosen)).with_table(by_shrinkage[chosen["shrinkage"]])
    if method == "ease":
        items, gram = gram_matrix(log.matrix)
        solve = cache(lambda l2: ease_table(items, gram, vocab_size=log.vocab_size, l2=l2, k=int(max(grid["k"]))))
        return lambda chosen: EASEBaseline(**_typed(chosen)).with_table(solve(chosen["l2"]))
    if method == "recent_popularity":
        return lambda chosen: RecentPopularityBaseline(**chosen).fit(log.sequences, log.vocab_size, times=log.times)
    return lambda chosen: PopularityBaseline().fit(log.sequences, log.vocab_size)


def _markov_builder(log: TrainingLog) -> Build:
    shares = item_shares(log.sequences, log.vocab_size)
    count = _newest(lambda skips: transitions(log.sequences, log.vocab_size, skips=skips))
    table = _newest(lambda skips, smoothing, k: smoothed_table(count(skips), smoothing, shares, k=k))

    def build(chosen: Settings) -> Baseline:
        baseline = MarkovBaseline(**_typed(chosen))
        return baseline.with_table(table(baseline.skips, baseline.smoothing, baseline.k))

    return build


def _newest(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, whose newest result is kept; `lru_cache` would hold it until the next one is made, and both then."""
    found: dict[tuple[Any, ...], Any] = {}

    def get(*key: Any) -> Any:
        if key not in found:
            found.clear()
            found[key] = make(*key)
        return found[key]

    return get


def _typed(settings: Settings) -> dict[str, Any]:
    return {name: int(value) if name in ("k", "skips") else value for name, value in settings.items()}


def _sample(histories: Any, targets: ArrayLike, max_users: int, seed: int) -> tuple[Any, NDArray[np.int64]]:
    """At most `max_users` of the rows, in their order."""
    wanted = np.asarray(targets, dtype=np.int64)
    if len(histories) != len(wanted):
        raise ValueError(
            f"`histories` and `targets` must have the same length, found {len(histories)} and {len(wanted)}. "
            "Give one target for each history."
        )
    if len(wanted) <= max_users:
        return histories, wanted
    chosen = np.sort(np.random.default_rng(seed).choice(len(wanted), size=max_users, replace=False))
    if isinstance(histories, (pa.Array, pa.ChunkedArray)):
        return histories.take(pa.array(chosen)), wanted[chosen]
    return [histories[row] for row in chosen], wanted[chosen]


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, found {method!r}.")
