"""From the runs of a study to a table, paired intervals and plots."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.metrics.functions import metric_values

METRIC = "ndcg@10"
Runs = dict[tuple[str, float], list[dict[str, Any]]]


def grouped(finals: list[dict[str, Any]]) -> Runs:
    """Runs by arm and share."""
    groups: Runs = defaultdict(list)
    for run in finals:
        groups[run["arm"], run["fraction"]].append(run)
    return dict(groups)


def per_user(runs: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Mean NDCG@10 of each test user over the seeds `(num_test_users,)`."""
    values = np.array([metric_values(np.array(run["ranks"]), METRIC) for run in runs])  # (num_seeds, num_test_users)
    return np.asarray(values.mean(axis=0))


def interval(values: NDArray[np.float64], *, n_bootstrap: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over users with its 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), n_bootstrap)
    means = draws @ values / len(values)  # (n_bootstrap,)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def difference(groups: Runs, arm: str, other: str, fraction: float) -> tuple[float, float, float]:
    """Paired difference `arm - other` in NDCG@10 over the same test users, with its 95 % interval."""
    return interval(per_user(groups[arm, fraction]) - per_user(groups[other, fraction]))


def markdown(finals: list[dict[str, Any]]) -> str:
    """NDCG@10 by arm and share with intervals, and the paired differences that the study is about."""
    groups = grouped(finals)
    fractions = sorted({fraction for _, fraction in groups})
    arms = list(dict.fromkeys(arm for arm, _ in groups))
    lines = [row("NDCG@10", *(f"{fraction:.0%}" for fraction in fractions)), row(*["---"] * (len(fractions) + 1))]
    for arm in arms:
        lines.append(row(arm, *(shown(interval(per_user(groups[arm, share]))) for share in fractions)))
    pairs = [("finetune", "scratch"), ("l2sp_coupled", "finetune"), ("l2sp_decoupled", "finetune")]
    pairs += [("finetune", "shuffled_source"), ("finetune", "item_knn")]
    lines += ["", row("paired difference", *(f"{fraction:.0%}" for fraction in fractions))]
    lines.append(row(*["---"] * (len(fractions) + 1)))
    for arm, other in pairs:
        if arm in arms and other in arms:
            cells = (shown(difference(groups, arm, other, share), sign="+") for share in fractions)
            lines.append(row(f"{arm} − {other}", *cells))
    lines += ["", row("source NDCG@10 after", *(f"{fraction:.0%}" for fraction in fractions))]
    lines.append(row(*["---"] * (len(fractions) + 1)))
    for arm in arms:
        kept = [[run.get(f"source_{METRIC}") for run in groups[arm, share]] for share in fractions]
        if all(value is not None for values in kept for value in values):
            lines.append(row(arm, *(f"{np.mean(values):.4f}" for values in kept)))  # type: ignore[arg-type]
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    """A line of a markdown table."""
    return "| " + " | ".join(cells) + " |"


def shown(values: tuple[float, float, float], sign: str = "") -> str:
    """A number with its interval."""
    mean, low, high = (f"{value:{sign}.4f}" for value in values)
    return f"{mean} [{low}, {high}]"


def write_csv(finals: list[dict[str, Any]], path: Path) -> None:
    """One tidy row a run, without the ranks."""
    import pyarrow as pa
    import pyarrow.csv

    names = list(dict.fromkeys(name for run in finals for name in run if name != "ranks"))
    pyarrow.csv.write_csv(pa.table({name: [run.get(name) for run in finals] for name in names}), path)


def plot(finals: list[dict[str, Any]], folder: Path) -> None:
    """`learning_curves.png`: NDCG@10 against the share of users; `forgetting.png`: gain against what is kept."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = grouped(finals)
    arms = list(dict.fromkeys(arm for arm, _ in groups))
    figure, axes = plt.subplots(figsize=(8, 5))
    for arm in arms:
        shares = sorted(share for name, share in groups if name == arm)
        means, lows, highs = np.array([interval(per_user(groups[arm, share])) for share in shares]).T
        (line,) = axes.plot([100 * share for share in shares], means, marker="o", label=arm)
        axes.fill_between([100 * share for share in shares], lows, highs, alpha=0.1, color=line.get_color())
    axes.set(xscale="log", xlabel="training users of the target, %", ylabel="NDCG@10 on the target's test users")
    axes.legend(fontsize=8)
    figure.savefig(folder / "learning_curves.png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(8, 5))
    for arm in arms:
        points = [
            (np.mean([run[f"source_{METRIC}"] for run in runs]), np.mean([run[METRIC] for run in runs]))
            for (name, _), runs in sorted(groups.items())
            if name == arm and all(run.get(f"source_{METRIC}") is not None for run in runs)
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=arm)
    axes.set(xlabel="NDCG@10 on the source after fine-tuning", ylabel="NDCG@10 on the target")
    axes.legend(fontsize=8)
    figure.savefig(folder / "forgetting.png", dpi=120, bbox_inches="tight")
    plt.close(figure)
