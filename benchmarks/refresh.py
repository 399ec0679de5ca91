"""What a refresh is worth, period by period: static, retrained from scratch, fine-tuned, fine-tuned with L2-SP.

python benchmarks/refresh.py --train_file online-retail.csv.gz --period month --start_periods 3 --output_dir outputs/or

The first periods train the static model. From then on, each period is trained on by every arm and the next one is the
test: the target is each user's first interaction in it, the history all before it. The fine-tuned arms go on from their
own model of the period before; the arm from scratch sees everything so far. Each result is written when it is there, so
that an interrupted study goes on. Needs matplotlib.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv

from hfrec import load_checkpoint
from hfrec.commands.parsing import parse_arguments
from hfrec.commands.refresh import train_on_period
from hfrec.data.files import write_json
from hfrec.data.interactions import Interactions, load_interactions, timestamps_to_numpy
from hfrec.data.periods import Periods, split_periods
from hfrec.evaluation.metrics.functions import metric_values, paired_bootstrap, ranking_metrics
from hfrec.training.arguments import DataArguments, ModelArguments, RefreshFinetuneArguments
from hfrec.training.fitting import cover_items
from hfrec.training.refresh import cohort_masks, rank_next
from hfrec.training.rows import build_tokenizer
from hfrec.training.run import save_checkpoint
from hfrec.training.trainer import build_model, seed_everything
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec.training.updates import Updates, build_callbacks

METRIC = "ndcg@10"
COHORTS = ("old users", "new users", "users without history")  # the last are some of the new ones


@dataclass
class StudyArguments:
    """The log, its periods and the cost of a run."""

    train_file: str = field(metadata={"help": "Log; times in seconds since 1970 or datetimes."})
    output_dir: str = field(metadata={"help": "Folder of models, results, table and plot."})
    period: Literal["month", "week"] = field(default="month", metadata={"help": "Calendar month, or 7 days."})
    every: int = field(default=1, metadata={"help": "Months or weeks that make one period."})
    start_periods: int = field(default=3, metadata={"help": "Months or weeks that train the static model."})
    filter_seen: bool = field(default=True, metadata={"help": "Leave out items that the user had before."})
    alphas: list[float] = field(default_factory=lambda: [1.0, 10.0], metadata={"help": "Strengths of L2-SP."})
    hidden_size: int = field(default=32, metadata={"help": "Width of the model."})
    max_length: int = field(default=50, metadata={"help": "Items that the model reads."})
    epochs: float = field(default=30, metadata={"help": "Most epochs from scratch; a third when fine-tuning."})
    batch_size: int = field(default=64, metadata={"help": "Rows of a training step."})
    patience: int = field(
        default=10, metadata={"help": "Epochs without a gain before a run from scratch ends, 0: never; a third after."}
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "Of every run."})
    seed: int = field(default=0, metadata={"help": "Of every run."})

    @property
    def arms(self) -> list[str]:
        """Names in the order of the table."""
        return ["static", "scratch", "finetune", *(f"l2sp {alpha:g}" for alpha in self.alphas)]


def boundaries(log: Interactions, arguments: StudyArguments) -> list[float]:
    """First time of each period after the first ones, and the end of the last."""
    column = log.table["timestamp"]
    scale = 1e6 if pa.types.is_timestamp(column.type) else 1.0
    times = timestamps_to_numpy(column) / scale
    first, last = times.min(), times.max()
    if arguments.period == "week":
        starts = np.arange(first, last, 7 * 86400.0)
    else:
        day = datetime.fromtimestamp(first, timezone.utc)
        months = range(day.year * 12 + day.month - 1, day.year * 12 + day.month - 1 + 1200)
        dates = (datetime(month // 12, month % 12 + 1, 1, tzinfo=timezone.utc).timestamp() for month in months)
        starts = np.array([start for start in dates if start <= last])
    if scale != 1.0:
        raise ValueError("Times must be seconds since 1970: write the log with `hfrec prepare` from such a column.")
    return [float(start) for start in starts[arguments.start_periods :: arguments.every]]


def train(arguments: StudyArguments, periods: Periods, arm: str, start: Path | None, folder: Path) -> tuple[float, int]:
    """Train one arm on one period into `folder`; returns CPU seconds and optimiser steps."""
    data = DataArguments(train_file=arguments.train_file, max_length=arguments.max_length)
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    training = RecommenderTrainingArguments(
        output_dir=str(draft),
        learning_rate=arguments.learning_rate,
        num_train_epochs=arguments.epochs if start is None else arguments.epochs / 3,
        per_device_train_batch_size=arguments.batch_size,
        early_stopping_patience=arguments.patience if start is None else arguments.patience // 3,
        save_total_limit=1,
        save_only_model=True,
        logging_strategy="no",
        warmup_steps=20,
        disable_tqdm=True,
        use_cpu=True,
        seed=arguments.seed,
    )
    seed_everything(training)
    began = time.process_time()
    if start is None:
        tokenizer = build_tokenizer(periods.known)
        model = build_model(ModelArguments(hidden_size=arguments.hidden_size), len(tokenizer), arguments.max_length)
        callbacks: list[Any] = []
    else:
        model, tokenizer = load_checkpoint(start)
        tokenizer = cover_items(model, tokenizer, periods.new)
        alpha = float(arm.split()[1]) if arm.startswith("l2sp") else 0.0
        callbacks = build_callbacks(RefreshFinetuneArguments(str(start), l2sp_alpha=alpha), tokenizer)
    with redirect_stdout(io.StringIO()):  # the figures of each evaluation would drown the study's own lines
        trainer = train_on_period(model, tokenizer, periods, data=data, training=training, updates=Updates(callbacks))
    seconds = time.process_time() - began
    save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder)
    shutil.rmtree(draft)
    return seconds, trainer.state.global_step


def run(arguments: StudyArguments) -> list[dict[str, Any]]:
    """One result for each arm and period, from its file where it was done before."""
    log = load_interactions(arguments.train_file)
    cuts = boundaries(log, arguments)
    folder = Path(arguments.output_dir)
    results = []
    if not (folder / "static" / "config.json").exists():
        whole = split_periods(log, test_start=cuts[0], refresh_start=None, test_end=cuts[1])
        seconds, steps = train(arguments, whole, "static", None, folder / "static")
        write_json(folder / "static.json", {"seconds": seconds, "steps": steps})
    last = {arm: folder / "static" for arm in arguments.arms}
    for number in range(1, len(cuts)):
        end = cuts[number + 1] if number + 1 < len(cuts) else None
        periods = split_periods(log, test_start=cuts[number], refresh_start=cuts[number - 1], test_end=end)
        everything = split_periods(log, test_start=cuts[number], refresh_start=None, test_end=end)
        for arm in arguments.arms:
            path, model = folder / "results" / f"{number:02d}-{arm}.json", folder / f"{number:02d}-{arm}"
            if not path.exists():
                seconds, steps = 0.0, 0
                if arm == "scratch":
                    seconds, steps = train(arguments, everything, arm, None, model)
                elif arm != "static":
                    seconds, steps = train(arguments, periods, arm, last[arm], model)
                used = folder / "static" if arm == "static" else model
                # The catalogue of all that was sold so far, the same candidates for every arm.
                candidates = build_tokenizer(periods.known).items["item_id"].to_pylist()
                tested, tokenizer = load_checkpoint(used)
                ranks = rank_next(tested, tokenizer, periods, candidates)
                chosen = ranks["filter_seen" if arguments.filter_seen else "unfiltered"]
                cohorts = cohort_masks(periods, tokenizer, tokenizer)
                write_json(
                    path,
                    {
                        "period": number,
                        "test_start": datetime.fromtimestamp(cuts[number], timezone.utc).date().isoformat(),
                        "arm": arm,
                        "seconds": seconds,
                        "steps": steps,
                        "ranks": chosen.tolist(),
                        **{name: cohorts[name].tolist() for name in COHORTS},
                    },
                )
            results.append(json.loads(path.read_text(encoding="utf-8")))
            if arm not in ("static", "scratch"):
                last[arm] = model
            done = results[-1]
            value = metric_values(np.array(done["ranks"]), METRIC).mean()
            print(f"{done['test_start']} {arm:<10} {METRIC} {value:.4f}  {done['seconds']:.0f} s", flush=True)
    return results


def tidy(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each arm and period, with the interval and the paired difference to the static model."""
    static = {row["period"]: np.array(row["ranks"]) for row in results if row["arm"] == "static"}
    rows = []
    for result in results:
        ranks = np.array(result["ranks"])
        metrics = ranking_metrics(ranks, ks=(10,))
        paired = paired_bootstrap(ranks, static[result["period"]], metric=METRIC)
        row = {name: result[name] for name in ("period", "test_start", "arm", "seconds", "steps")}
        row |= {"users": len(ranks), METRIC: metrics[METRIC], "hit_rate@10": metrics["hit_rate@10"]}
        row |= dict(zip((f"{METRIC}_low", f"{METRIC}_high"), metrics[f"{METRIC}_ci"], strict=True))
        row |= {"minus_static": paired["difference"]}
        row |= dict(zip(("minus_static_low", "minus_static_high"), paired["difference_ci"], strict=True))
        rows.append(row)
    return rows


def markdown(results: list[dict[str, Any]], arms: list[str]) -> str:
    """NDCG@10 by period and arm, then all periods together with paired differences and the cost."""
    rows = tidy(results)
    lines = ["| next period from | users | " + " | ".join(arms) + " |", "|---" * (len(arms) + 2) + "|"]
    for number in sorted({row["period"] for row in rows}):
        found = {row["arm"]: row for row in rows if row["period"] == number}
        cells = [
            f"{found[arm][METRIC]:.4f} [{found[arm][f'{METRIC}_low']:.4f}, {found[arm][f'{METRIC}_high']:.4f}]"
            for arm in arms
        ]
        lines.append(f"| {found[arms[0]]['test_start']} | {found[arms[0]]['users']:,} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| all periods together | users | arm | NDCG@10 | − static | − scratch | − finetune |",
        "|---" * 7 + "|",
    ]
    pooled = {arm: np.concatenate([np.array(row["ranks"]) for row in results if row["arm"] == arm]) for arm in arms}
    masks = {name: np.concatenate([row[name] for row in results if row["arm"] == arms[0]]) for name in COHORTS}
    without = masks["users without history"]
    groups = {
        "all": without | ~without,
        "old users": masks["old users"],
        "new, with a history": masks["new users"] & ~without,
        "new, without": without,
    }
    for name, mask in groups.items():
        lines += [pooled_line(name, arm, {other: ranks[mask] for other, ranks in pooled.items()}) for arm in arms]
    lines += ["", "| cost of all periods | CPU s | steps |", "|---|---|---|"]
    for arm in arms:
        seconds, steps = (sum(row[name] for row in rows if row["arm"] == arm) for name in ("seconds", "steps"))
        lines.append(f"| {arm} | {seconds:.0f} | {steps:,} |")
    return "\n".join(lines) + "\n"


def pooled_line(name: str, arm: str, ranks: dict[str, Any]) -> str:
    """NDCG@10 of an arm in a group of targets, and the paired differences to three arms."""
    number = len(ranks[arm])
    if number == 0:
        return f"| {name} | 0 | {arm} | | | | |"
    metrics = ranking_metrics(ranks[arm], ks=(10,))
    low, high = metrics[f"{METRIC}_ci"]
    cells = [name, f"{number:,}", arm, f"{metrics[METRIC]:.4f} [{low:.4f}, {high:.4f}]"]
    for other in ("static", "scratch", "finetune"):
        paired = paired_bootstrap(ranks[arm], ranks[other], metric=METRIC)
        low, high = paired["difference_ci"]
        cells.append("" if arm == other else f"{paired['difference']:+.4f} [{low:+.4f}, {high:+.4f}]")
    return "| " + " | ".join(cells) + " |"


def plot(results: list[dict[str, Any]], arms: list[str], path: Path) -> None:
    """NDCG@10 with intervals by period, and the CPU seconds spent so far."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = tidy(results)
    figure, (quality, cost) = plt.subplots(1, 2, figsize=(10, 4))
    for place, arm in enumerate(arms):
        mine = [row for row in rows if row["arm"] == arm]
        where = np.arange(len(mine))
        values = np.array([row[METRIC] for row in mine])
        errors = [values - [row[f"{METRIC}_low"] for row in mine], [row[f"{METRIC}_high"] for row in mine] - values]
        shift = 0.12 * (place - (len(arms) - 1) / 2)
        quality.errorbar(
            where + shift, values, yerr=errors, marker="o", markersize=3, linewidth=1, elinewidth=0.6, label=arm
        )
        cost.plot(where, np.cumsum([row["seconds"] for row in mine]), marker="o", markersize=3, linewidth=1, label=arm)
    for axes, label in (
        (quality, "NDCG@10 on the next period, 95 % intervals"),
        (cost, "CPU seconds of training so far"),
    ):
        axes.set_xticks(where, [row["test_start"] for row in mine], rotation=45, ha="right", fontsize=7)
        axes.set_ylabel(label, fontsize=8)
    cost.legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(words: list[str]) -> None:
    """Run what is not done yet, then write `refresh.csv`, `refresh.md` and `refresh.png`."""
    (arguments,) = parse_arguments("refresh_study", (StudyArguments,), words)
    results = run(arguments)
    folder = Path(arguments.output_dir)
    rows = tidy(results)
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), folder / "refresh.csv")
    table = markdown(results, arguments.arms)
    (folder / "refresh.md").write_text(table, encoding="utf-8")
    plot(results, arguments.arms, folder / "refresh.png")
    print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
