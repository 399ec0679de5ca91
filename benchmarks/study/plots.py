"""Pictures of a study: learning curves, what is kept of the source, the way from the checkpoint, the trade-off.

They are drawn from the tables that `report` writes, so that a picture cannot say what its table does not; the distances
alone come from the runs. Learning curves show some of the arms: all of them stand in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .report import grouped

Point = tuple[float, float, float]  # mean, and its interval
COLORS = {"scratch": "#7f7f7f", "item_knn": "#c98a1b", "finetune": "#2f7fbf", "l2sp_coupled": "#b5235f"}
COLORS |= {"l2sp_decoupled": "#2a9d6f"}
NAMES = {"item_knn": "item-kNN", "finetune": "fine-tuned", "scratch": "from scratch"}
NAMES |= {"l2sp_coupled": "fine-tuned + L2-SP", "l2sp_decoupled": "+ decoupled L2-SP"}
LEARNING = ["scratch", "item_knn", "finetune", "l2sp_coupled"]
COLORS |= {"ids from scratch": COLORS["scratch"], "item-kNN": COLORS["item_knn"], "fine-tuned": COLORS["finetune"]}
COLORS |= {"content+id from scratch": "#2a9d6f", "fine-tuned, L2-SP": COLORS["l2sp_coupled"]}
LEARNING += ["ids from scratch", "item-kNN", "content+id from scratch", "fine-tuned", "fine-tuned, L2-SP"]
FORGETTING = ("finetune", "l2sp_coupled", "l2sp_decoupled")


def plot(text: str, finals: list[dict[str, Any]], folder: Path) -> None:
    """Write the pictures of `plot_tables` and, where the runs say it, `distance.png`."""
    plot_tables(text, folder)
    if any(name.startswith("distance/") for run in finals for name in run):
        with figure(folder / "distance.png") as axes:
            plot_distance(finals, axes)


def plot_tables(text: str, folder: Path, prefix: str = "") -> None:
    """Write `learning-curves.png`, and `forgetting.png` and `tradeoff.png` where their tables are there.

    Args:
        text: Markdown with the tables of `report.markdown` and `report.tradeoff_markdown`.
        folder: Where the pictures go.
        prefix: Of their names.
    """
    found = tables(text)
    target, source = found["NDCG@10"], found.get("source NDCG@10 after", [])
    with figure(folder / f"{prefix}learning-curves.png") as axes:
        plot_learning_curves(by_arm(target), axes)
    if source:
        with figure(folder / f"{prefix}forgetting.png") as axes:
            plot_forgetting(by_arm(target), by_arm(source), axes)
    if "L2-SP" in found:
        with figure(folder / f"{prefix}tradeoff.png") as axes:
            plot_tradeoff(found["L2-SP"], axes)


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The tables of a text, by the title of their first column: a dictionary a row. The first of a title counts."""
    found: dict[str, list[dict[str, str]]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.setdefault(lines[0][0], [dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def by_arm(rows: list[dict[str, str]]) -> dict[str, dict[float, Point]]:
    """What a table by share says: for each arm its point at each percentage."""
    shares = {name: float(found[1]) for name in rows[0] if (found := re.match(r"([0-9.]+) ?%", name))}
    return {
        next(iter(row.values())).strip("*"): {share: point(row[name]) for name, share in shares.items() if row[name]}
        for row in rows
    }


def point(cell: str) -> Point:
    """The numbers of a cell such as `0.0304 [0.0176, 0.0442]`."""
    mean, low, high = map(float, re.findall(r"[-+]?[0-9.]+", cell))
    return mean, low, high


@contextmanager
def figure(path: Path) -> Iterator[Any]:
    """Axes of a picture, which is written when the block ends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(figsize=(7.5, 4.5))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    drawn.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(drawn)


def plot_learning_curves(curves: dict[str, dict[float, Point]], axes: Any) -> None:
    """NDCG@10 against the share of users, with 95 % bands."""
    shares = sorted({share for curve in curves.values() for share in curve})
    for arm in (arm for arm in LEARNING if curves.get(arm)):
        xs = sorted(curves[arm])
        means, lows, highs = np.array([curves[arm][share] for share in xs]).T
        axes.plot(xs, means, marker="o", color=COLORS[arm], label=NAMES.get(arm, arm))
        axes.fill_between(xs, lows, highs, alpha=0.08, color=COLORS[arm], linewidth=0)
    axes.set(xscale="log", xlabel="share of the target's training users (log scale)", ylabel="NDCG@10 on test users")
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title("What a checkpoint is worth, by the size of the target", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def plot_forgetting(target: dict[str, dict[float, Point]], source: dict[str, dict[float, Point]], axes: Any) -> None:
    """Target against what is kept of the source, a line an arm from the smallest share to the largest."""
    for arm in (arm for arm in FORGETTING if arm in target and arm in source):
        shares = sorted(target[arm])
        xs, ys = ([values[arm][share][0] for share in shares] for values in (source, target))
        axes.plot(xs, ys, color=COLORS[arm], alpha=0.6, linewidth=1)
        axes.scatter(xs, ys, s=[18 + 14 * place for place in range(len(xs))], color=COLORS[arm], label=NAMES[arm])
        axes.annotate(f"{shares[-1]:g} %", (xs[-1], ys[-1]), textcoords="offset points", xytext=(7, 5), fontsize=8)
    axes.set(xlabel="NDCG@10 on the source after fine-tuning", ylabel="NDCG@10 on the target")
    axes.set_xlim(left=0)
    axes.set_title("Learning the target, keeping the source (larger dots: more users)", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


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
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def plot_tradeoff(rows: list[dict[str, str]], axes: Any) -> None:
    """Target against source by strength of L2-SP, with 95 % intervals of the target."""
    plain = next(row for row in rows if row["L2-SP"] == "none")
    for mode, below in (("coupled", False), ("decoupled", True)):
        chosen = [plain, *(row for row in rows if row["L2-SP"] == mode)]
        ys = np.array([point(row["target NDCG@10"]) for row in chosen])  # (num_strengths, 3)
        xs = [point(row["source NDCG@10"])[0] for row in chosen]
        color = COLORS[f"l2sp_{mode}"]
        axes.errorbar(
            xs, ys[:, 0], np.abs(ys[:, 1:] - ys[:, :1]).T, color=color, marker="o", elinewidth=0.4, label=mode
        )
        for row, x, y in zip(chosen[1:], xs[1:], ys[1:, 0], strict=True):
            place = {"xytext": (0, -13 if below else 7), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(row["strength"], (x, y), color=color, **place)
    x, y = (point(plain[f"{name} NDCG@10"])[0] for name in ("source", "target"))
    axes.scatter([x], [y], color="#2f7fbf", s=70, zorder=5, label="no L2-SP")
    axes.set(xlabel="NDCG@10 on the source after fine-tuning", ylabel="NDCG@10 on the target")
    axes.set_title("The strength of L2-SP moves along this line", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
