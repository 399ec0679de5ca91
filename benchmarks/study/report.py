"""From the runs of a study to a table, paired intervals and plots."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfrec.evaluation.metrics.bootstrap import mean_interval
from hfrec.evaluation.metrics.functions import paired_bootstrap, pooled_values
from hfrec.evaluation.table import estimate, markdown_row

METRIC = "ndcg@10"
N_BOOTSTRAP = 2000
Runs = dict[tuple[str, float], list[dict[str, Any]]]


def grouped(finals: list[dict[str, Any]]) -> Runs:
    """Runs by arm and share."""
    groups: Runs = defaultdict(list)
    for run in finals:
        groups[run["arm"], run["fraction"]].append(run)
    return dict(groups)


def per_user(runs: list[dict[str, Any]], ranks: str = "ranks") -> NDArray[np.float64]:
    """Mean NDCG@10 of each test user over the seeds `(num_test_users,)`; of source users by `ranks="source_ranks"`."""
    return pooled_values([run[ranks] for run in runs], METRIC)


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean over users with its 95 % bootstrap interval."""
    return mean_interval(values, n_bootstrap=N_BOOTSTRAP)


def gain(runs: list[dict[str, Any]], others: list[dict[str, Any]], ranks: str = "ranks") -> tuple[float, float, float]:
    """Paired difference in NDCG@10 over the same users, seeds pooled, with its 95 % interval."""
    pooled = ([run[ranks] for run in some] for some in (runs, others))
    found = paired_bootstrap(*pooled, metric=METRIC, n_bootstrap=N_BOOTSTRAP)
    low, high = found["difference_ci"]
    return found["difference"], low, high


def difference(groups: Runs, arm: str, other: str, fraction: float, ranks: str = "ranks") -> tuple[float, float, float]:
    """Paired difference `arm - other` at a share of the users."""
    return gain(groups[arm, fraction], groups[other, fraction], ranks)


PAIRS = (
    ("finetune", "scratch"),
    ("l2sp_coupled", "finetune"),
    ("l2sp_decoupled", "finetune"),
    ("finetune", "shuffled_source"),
    ("finetune", "item_knn"),
)


def markdown(finals: list[dict[str, Any]]) -> str:
    """NDCG@10 by arm and share with intervals, and the paired differences that the study is about."""
    groups = grouped(finals)
    shares = sorted({share for _, share in groups})
    arms = list(dict.fromkeys(arm for arm, _ in groups))
    pairs = [pair for pair in PAIRS if set(pair) <= set(arms)]
    kept = [arm for arm in arms if all("source_ranks" in run for share in shares for run in groups[arm, share])]
    of_source = [pair for pair in pairs if set(pair) <= set(kept) and "shuffled_source" not in pair]

    def table(title: str, names: list[str], cells: list[list[str]]) -> str:
        head = [markdown_row(title, *(f"{share:.0%}" for share in shares)), markdown_row(*["---"] * (len(shares) + 1))]
        return "\n".join([*head, *(markdown_row(name, *line) for name, line in zip(names, cells, strict=True))]) + "\n"

    def means(names: list[str], ranks: str) -> list[list[str]]:
        return [[estimate(interval(per_user(groups[arm, share], ranks))) for share in shares] for arm in names]

    def differences(pairs: list[tuple[str, str]], ranks: str) -> list[list[str]]:
        return [[estimate(difference(groups, *pair, share, ranks), sign="+") for share in shares] for pair in pairs]

    names, source_names = ([f"{arm} − {other}" for arm, other in chosen] for chosen in (pairs, of_source))
    tables = [
        table("NDCG@10", arms, means(arms, "ranks")),
        table("paired difference", names, differences(pairs, "ranks")),
        table("source NDCG@10 after", kept, means(kept, "source_ranks")),
        table("paired difference on the source", source_names, differences(of_source, "source_ranks")),
    ]
    return "\n".join(tables)


def tradeoff_markdown(runs: list[dict[str, Any]]) -> str:
    """Target and source by strength of L2-SP, with paired differences from plain fine-tuning."""
    groups = by_strength(runs)
    (plain,) = (group for (arm, _), group in groups.items() if arm == "finetune")
    titles = ("L2-SP", "strength", "target NDCG@10", "source NDCG@10", "target − plain", "source − plain")
    lines = [markdown_row(*titles), markdown_row(*["---"] * len(titles))]
    for (arm, strength), group in groups.items():
        cells = [estimate(interval(per_user(group, ranks))) for ranks in ("ranks", "source_ranks")]
        for ranks in ("ranks", "source_ranks"):
            cells.append("" if group is plain else estimate(gain(group, plain, ranks), sign="+"))
        lines.append(markdown_row("none" if group is plain else arm.removeprefix("l2sp_"), f"{strength:g}", *cells))
    return "\n".join(lines) + "\n"


def by_strength(runs: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Runs of the trade-off by arm and strength."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        groups[run["arm"], run.get("alpha", 0.0)].append(run)
    return dict(groups)


def write_csv(finals: list[dict[str, Any]], path: Path) -> None:
    """One tidy row a run, without the ranks."""
    import pyarrow as pa
    import pyarrow.csv

    names = list(dict.fromkeys(name for run in finals for name in run if not name.endswith("ranks")))
    pyarrow.csv.write_csv(pa.table({name: [run.get(name) for run in finals] for name in names}), path)
