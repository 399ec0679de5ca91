"""Seconds of CPU that an epoch of training takes, masked and causal, through the stock Trainer.

python benchmarks/train_speed.py --data interactions.csv --output_dir outputs/bench

Without `--data` a synthetic log of the size of MovieLens-100K is taken. One thread; a matrix product is timed before
and after each run, so that runs on machines of another speed, or a busy one, can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # threads are counted when it is imported
from transformers import TrainerCallback

from hfrec.data.catalogs import synthetic_tables
from hfrec.data.interactions import load_interactions
from hfrec.data.splits import Split, leave_one_out
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer, seed_everything
from hfrec.training.trainer_arguments import RecommenderTrainingArguments


class EpochTimer(TrainerCallback):
    """CPU seconds of this process from the beginning of an epoch to its end; the first epoch warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.process_time()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.process_time() - self.start)


def calibrate(size: int = 1024, repeats: int = 5) -> float:
    """GFLOP/s of a float32 matrix product, the best of some."""
    left = torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        left @ left
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best / 1e9


def load_split(log: str | None) -> Split:
    """Leave-one-out of a log; of a synthetic one of the size of MovieLens-100K without."""
    sizes = {"num_users": 943, "num_items": 1350, "num_groups": 20, "min_length": 18, "max_length": 220}
    return leave_one_out(load_interactions(log or synthetic_tables(**sizes)[0]))


def timed_training(folder: str, epochs: int, **settings: Any) -> RecommenderTrainingArguments:
    """Training alone, on the CPU; further `settings` of the Trainer."""
    return RecommenderTrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=0,
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )


def measure(split: Split, objective: str, length: int, epochs: int, loss: str) -> dict[str, Any]:
    """Train a new model and time its epochs."""
    tokenizer = build_tokenizer(split.train)
    data = DataArguments(train_file="unused", max_length=length, windows="newest")
    with tempfile.TemporaryDirectory() as folder:
        training = timed_training(folder, epochs + 1)  # one to warm up
        seed_everything(training)
        model = build_model(ModelArguments(objective=objective, loss=loss), len(tokenizer), length)  # type: ignore[arg-type]
        rows = training_sequences(split.train, tokenizer, objective, data, length)  # type: ignore[arg-type]
        timer, before = EpochTimer(), calibrate()
        build_trainer(model, tokenizer, rows, None, data=data, training=training, callbacks=[timer]).train()
    seconds = timer.seconds[1:]
    return {
        "objective": objective,
        "length": length,
        "loss": loss,
        "rows": len(rows),
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "gflops_before": round(before, 1),
        "gflops_after": round(calibrate(), 1),
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    names = list(results[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in results])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("HFREC_BENCH_DATA"), help="Log with user, item and time.")
    parser.add_argument("--output_dir", default="outputs/bench")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--loss", default="chunked")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split(options.data)
    cases = [(objective, length) for length in options.lengths for objective in ("masked", "causal")]
    results = [measure(split, *case, options.epochs, options.loss) for case in cases]
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_speed.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "train_speed.md").write_text(table(results) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
