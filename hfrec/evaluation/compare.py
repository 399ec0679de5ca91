"""Runs side by side on the same test users: paired differences, corrected for how many are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cohorts import fair_masks
from .metrics.bootstrap import mean_interval
from .metrics.functions import paired_bootstrap, pooled_values
from .ranking import PROTOCOLS
from .table import METRICS, SETTINGS, align, renamed, short_names
from .user_ranks import MODEL, UserRanks
from .verdict import with_ends

HEAD = ["", "users", "n", "metric", "difference [95 %]", "all at once [95 %]", "p", "p, Holm"]
Path = str | os.PathLike[str]
Pooled = dict[str, dict[str, NDArray[np.int64]]]  # arm -> protocol -> (num_seeds, n)
CORRECTION = (
    "p_holm: Holm's step-down over all pairs of one metric and protocol; in cohorts, over all pairs and cohorts. "
    "difference_ci: 95 % for each comparison alone. difference_ci_simultaneous: 95 % for all of such a family at once, "
    "by Bonferroni."
)


def compare_ranks(
    arms: Mapping[str, Sequence[Path]],
    *,
    metrics: Sequence[str] = tuple(METRICS),
    cohorts: bool = True,
    n_bootstrap: int = 10000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare runs pair by pair on the same test users, by a paired bootstrap over users.

    The runs of one arm are its seeds: the metric of a user is the mean over them, and users are resampled, so that the
    intervals are those of other users, not of other seeds. A single arm is compared with its own baselines.

    Args:
        arms: Name -> folders of runs that kept their `test_ranks.parquet`, or such files.
        metrics: The first one is compared in cohorts too.
        cohorts: Whether the cohorts of the first run are compared too, where it kept them.
        n_bootstrap: Resamples of users.
        seed: Seed of the resampling.

    Returns:
        `arms` (`runs` and, by protocol, each metric with its interval), `n_users`, `about` (the protocol and
        fingerprints), `correction`, `notes`, and `comparisons`: protocol -> rows with `a`, `b`, `cohort`, `n`,
        `metric`, `difference` (a - b), `difference_ci`, `difference_ci_simultaneous`, `p_value`, `p_holm` and
        `family`, the number of comparisons that they are corrected for.

    Raises:
        ValueError: No arm, nothing to compare with, or runs with other users, targets, histories or another protocol.
        FileNotFoundError: A run that kept no ranks.

    Example:
        >>> compare_ranks({"masked": ["out/m1", "out/m2"], "causal": ["out/c1", "out/c2"]})  # doctest: +SKIP

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics, 1979.
    """
    runs = {name: [(str(path), UserRanks.load(path)) for path in paths] for name, paths in arms.items()}
    if not runs or not all(runs.values()):
        raise ValueError("`arms` must name at least one run each, found none. Give the folders of finished runs.")
    every = [run for some in runs.values() for run in some]
    for path, ranks in every[1:]:
        _check_same_test(*every[0], path, ranks)
    pooled = _pool(runs)
    if len(pooled) < 2:
        raise ValueError(f"{every[0][0]} has no baseline to be compared with: give a second run.")
    first = every[0][1]
    sizes = {name: ", ".join(sorted({str(ranks.about.get("num_items")) for _, ranks in runs[name]})) for name in runs}
    listed = "; ".join(f"{name} {size}" for name, size in sizes.items())
    notes = [f"The catalogues differ in size: {listed}."] if len(set(sizes.values())) > 1 else []
    comparisons = {}
    for setting in PROTOCOLS:
        found = {name: ranks[setting] for name, ranks in pooled.items()}
        options = {"n_bootstrap": n_bootstrap, "seed": seed}
        rows = [row for metric in metrics for row in _compare(found, {"all": None}, metric, **options)]
        if cohorts:
            masks = {name: mask for name, mask in fair_masks(first.cohorts, setting).items() if mask.any()}
            rows += _compare(found, masks, metrics[0], **options)
        comparisons[setting] = rows
    return {
        "arms": {
            name: {
                "runs": [path for path, _ in runs.get(name, next(iter(runs.values())))],
                **{setting: _metrics(ranks[setting], metrics, n_bootstrap, seed) for setting in PROTOCOLS},
            }
            for name, ranks in pooled.items()
        },
        "n_users": len(first.user_ids),
        "about": {**first.about, "cohorts_of": every[0][0], "n_bootstrap": n_bootstrap, "seed": seed},
        "correction": CORRECTION,
        "notes": notes,
        "comparisons": comparisons,
    }


def holm(p_values: Iterable[float]) -> list[float]:
    """P-values corrected for their number: at most a share alpha of such families has a false one below alpha.

    The smallest of m is taken m times, the next m - 1 times and so on, none below the one before it.

    Example:
        >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(list(p_values), dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def comparison_table(compared: Mapping[str, Any], setting: str = "filter_seen") -> str:
    """The arms with their metrics, and every paired difference, as text.

    Args:
        compared: What `compare_ranks` returns.
        setting: The protocol shown.
    """
    rows = compared["comparisons"][setting]
    called = dict(zip(compared["arms"], short_names(list(compared["arms"])), strict=True))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    arms = [
        [
            called[name],
            str(len(arm["runs"])),
            *(with_ends(arm[setting][metric], arm[setting][f"{metric}_ci"]) for metric in metrics),
        ]
        for name, arm in compared["arms"].items()
    ]
    body = [
        [
            f"{called[row['a']]} − {called[row['b']]}",
            *(row["cohort"], f"{row['n']:,}", row["metric"]),
            with_ends(row["difference"], row["difference_ci"], "+"),
            with_ends(None, row["difference_ci_simultaneous"], "+"),
            *(f"{row[name]:.4f}" for name in ("p_value", "p_holm")),
        ]
        for row in rows
    ]
    notes = [renamed(note, called) for note in compared["notes"]]
    return "\n\n".join([align([[SETTINGS[setting], "seeds", *metrics], *arms]), align([HEAD, *body]), *notes])


def _pool(runs: Mapping[str, list[tuple[str, UserRanks]]]) -> Pooled:
    """The models of the arms; of a single arm its model and the baselines that all of its runs have."""
    if len(runs) > 1:
        parts = {name: [ranks.ranks[MODEL] for _, ranks in some] for name, some in runs.items()}
    else:
        ((_, some),) = runs.items()
        shared = [name for name in some[0][1].ranks if all(name in ranks.ranks for _, ranks in some)]
        parts = {name: [ranks.ranks[name] for _, ranks in some] for name in shared}
    return {
        name: {setting: np.stack([one[setting] for one in found]) for setting in PROTOCOLS}
        for name, found in parts.items()
    }


def _compare(
    found: Mapping[str, NDArray[np.int64]],
    masks: Mapping[str, NDArray[np.bool_] | None],
    metric: str,
    **options: int,
) -> list[dict[str, Any]]:
    """All pairs in all cohorts, corrected together."""
    wanted = [(pair, cohort) for cohort in masks for pair in combinations(found, 2)]
    rows = []
    for (a, b), cohort in wanted:
        mask = masks[cohort]
        ranks = [found[name] if mask is None else found[name][:, mask] for name in (a, b)]
        paired = paired_bootstrap(*ranks, metric=metric, comparisons=len(wanted), **options)
        paired.setdefault("difference_ci_simultaneous", paired["difference_ci"])
        rows.append({"a": a, "b": b, "cohort": cohort, "n": ranks[0].shape[1], "metric": metric, **paired})
    corrected = holm(row["p_value"] for row in rows)
    return [{**row, "p_holm": p, "family": len(rows)} for row, p in zip(rows, corrected, strict=True)]


def _metrics(ranks: NDArray[np.int64], metrics: Sequence[str], n_bootstrap: int, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in metrics:
        mean, low, high = mean_interval(pooled_values(ranks, metric), n_bootstrap=n_bootstrap, seed=seed)
        found |= {metric: mean, f"{metric}_ci": [low, high]}
    return found


def _check_same_test(path_a: str, a: UserRanks, path_b: str, b: UserRanks) -> None:
    """Refuse two runs whose numbers are not of the same test.

    Raises:
        ValueError: With both names and the first thing that differs.
    """
    remedy = "Evaluate both checkpoints with `hfrec evaluate` on one log, and compare these."
    for name in ("protocol", "test_fingerprint", "history_fingerprint"):
        if a.about.get(name) != b.about.get(name):
            raise ValueError(
                f"{path_a} and {path_b} are not of the same test: `{name}` is {_difference(a.about.get(name))} in the "
                f"first, {_difference(b.about.get(name))} in the second. {remedy}"
            )
    users_a, users_b = set(a.user_ids), set(b.user_ids)
    if users_a != users_b:
        raise ValueError(
            f"{path_a} and {path_b} have different test users: {len(users_a - users_b):,} only in the first, "
            f"{len(users_b - users_a):,} only in the second. {remedy}"
        )
    if list(a.item_ids) != list(b.item_ids):
        raise ValueError(f"{path_a} and {path_b} have different targets for the same users. {remedy}")


def _difference(value: Any) -> str:
    return str(value)[:200]
