"""Pictures of a study: learning curves, what is kept of the source, the way from the checkpoint, the trade-off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .report import METRIC, by_strength, grouped, interval, per_user


def plot(finals: list[dict[str, Any]], tradeoff: list[dict[str, Any]], folder: Path) -> None:
    """Write `learning_curves.png`, `forgetting.png`, `distance.png` and, where it was run, `tradeoff.png`."""
    with figure(folder / "learning_curves.png") as axes:
        plot_learning_curves(finals, axes)
    with figure(folder / "forgetting.png") as axes:
        plot_forgetting(finals, axes)
    if any(name.startswith("distance/") for run in finals for name in run):
        with figure(folder / "distance.png") as axes:
            plot_distance(finals, axes)
    if tradeoff:
        with figure(folder / "tradeoff.png") as axes:
            plot_tradeoff(tradeoff, axes)


@contextmanager
def figure(path: Path) -> Iterator[Any]:
    """Axes of a picture, which is written when the block ends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(8, 5))
    palette = plt.get_cmap("tab20")
    axes.set_prop_cycle(color=[palette(place) for place in (*range(0, 20, 2), *range(1, 20, 2))])  # one an arm
    yield axes
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    drawn.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(drawn)


def plot_learning_curves(finals: list[dict[str, Any]], axes: Any) -> None:
    """NDCG@10 against the share of users, with 95 % bands."""
    groups = grouped(finals)
    for arm in dict.fromkeys(arm for arm, _ in groups):
        shares = sorted(share for name, share in groups if name == arm)
        means, lows, highs = np.array([interval(per_user(groups[arm, share])) for share in shares]).T
        (line,) = axes.plot([100 * share for share in shares], means, marker="o", label=arm)
        axes.fill_between([100 * share for share in shares], lows, highs, alpha=0.1, color=line.get_color())
    axes.set(xscale="log", xlabel="training users of the target, %", ylabel="NDCG@10 on the target's test users")


def plot_forgetting(finals: list[dict[str, Any]], axes: Any) -> None:
    """Target against what is kept of the source, a line an arm, a point a share."""
    groups = grouped(finals)
    for arm in dict.fromkeys(arm for arm, _ in groups):
        points = [
            (np.mean([run[f"source_{METRIC}"] for run in runs]), np.mean([run[METRIC] for run in runs]))
            for (name, _), runs in sorted(groups.items())
            if name == arm and all(run.get(f"source_{METRIC}") is not None for run in runs)
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=arm)
    axes.set(xlabel="NDCG@10 on the source after fine-tuning", ylabel="NDCG@10 on the target")


def plot_distance(finals: list[dict[str, Any]], axes: Any) -> None:
    """Distance of each block from the checkpoint at the largest share, a group of bars an arm."""
    groups = grouped(finals)
    largest = max(share for _, share in groups)
    drawn = {
        arm: {name: np.mean([run[name] for run in runs]) for name in runs[0] if name.startswith("distance/")}
        for (arm, share), runs in groups.items()
        if share == largest and arm != "shuffled_source"  # its start is not the checkpoint
    }
    drawn = {arm: blocks for arm, blocks in drawn.items() if blocks}
    blocks = sorted({block for found in drawn.values() for block in found})
    width = 0.8 / len(drawn)
    for place, (arm, found) in enumerate(drawn.items()):
        axes.bar(np.arange(len(blocks)) + place * width, [found.get(block, 0.0) for block in blocks], width, label=arm)
    names = [block.removeprefix("distance/") for block in blocks]
    axes.set_xticks(np.arange(len(blocks)) + 0.4 - width / 2, names, rotation=15)
    axes.set(ylabel="distance from the checkpoint", title=f"{largest:.0%} of the target's training users")


def plot_tradeoff(runs: list[dict[str, Any]], axes: Any) -> None:
    """Target against source by strength of L2-SP, with 95 % intervals."""
    lines: dict[str, list[Any]] = {}
    for (arm, strength), group in by_strength(runs).items():
        point = [interval(per_user(group, ranks)) for ranks in ("source_ranks", "ranks")]
        lines.setdefault(arm, []).append((strength, *point))
    start = lines["finetune"][0]
    for arm, points in lines.items():
        every = points if arm == "finetune" else [start, *points]
        strengths, source, target = zip(*every, strict=True)
        xs, ys = np.array(source), np.array(target)  # (num_strengths, 3): mean, low, high
        spread = [np.abs(values[:, 1:] - values[:, :1]).T for values in (xs, ys)]
        axes.errorbar(xs[:, 0], ys[:, 0], spread[1], spread[0], marker="o", capsize=2, elinewidth=0.5, label=arm)
        for strength, x, y in zip(strengths, xs[:, 0], ys[:, 0], strict=True):
            if arm != "finetune" and strength:
                axes.annotate(f"{strength:g}", (x, y), textcoords="offset points", xytext=(3, 4), fontsize=7)
    axes.set(xlabel="NDCG@10 on the source after fine-tuning", ylabel="NDCG@10 on the target")
