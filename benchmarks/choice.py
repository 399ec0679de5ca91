"""What it costs to choose a checkpoint by some of the users: NDCG@10 on the test items of what they choose.

OMP_NUM_THREADS=1 python benchmarks/choice.py --data interactions.csv --output_dir outputs/choice --epochs 40 --seed 1

A model is trained, and all users are ranked after each epoch, on validation and test items; then samples of users are
drawn many times, and each chooses the epoch that is best on its own validation items.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from train_speed import load_split, timed_training
from transformers import TrainerCallback

from hfrec import rank_dataset
from hfrec.evaluation.protocol import evaluation_collator, rows_to_rank
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer, seed_everything

LENGTH, DRAWS = 50, 2000


def curves(options: argparse.Namespace, folder: Path) -> dict[str, NDArray[np.float64]]:
    """NDCG@10 of each epoch and user `(epochs, users)`, on validation and test items."""
    split = load_split(options.data)
    tokenizer = build_tokenizer(split.train)
    data = DataArguments(train_file="unused", max_length=LENGTH, windows="newest")
    settings = {"seed": options.seed, "learning_rate": 0.002, "per_device_train_batch_size": 64}
    training = timed_training(str(folder / "run"), options.epochs, **settings)
    seed_everything(training)
    model = build_model(ModelArguments(objective=options.objective, item_start="random"), len(tokenizer), LENGTH)
    train = training_sequences(split.train, tokenizer, options.objective, data, LENGTH)
    rows = {part: rows_to_rank(model, tokenizer, split, part) for part in ("validation", "test")}
    found: dict[str, list[NDArray[np.float64]]] = {part: [] for part in rows}

    class Ranks(TrainerCallback):
        """Ranks all users after each epoch."""

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            for part, tested in rows.items():
                ranks = rank_dataset(model, tested, evaluation_collator(model, tokenizer))["filter_seen"]
                gains = 1 / np.log2(np.maximum(ranks, 1) + 1)
                found[part].append(np.where((ranks > 0) & (ranks <= 10), gains, 0.0))

    build_trainer(model, tokenizer, train, None, data=data, training=training, callbacks=[Ranks()]).train()
    return {part: np.array(values) for part, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("HFREC_BENCH_DATA"), help="Log with user, item and time.")
    parser.add_argument("--output_dir", default="outputs/choice")
    parser.add_argument("--objective", choices=("masked", "causal"), default="masked")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, nargs="+", default=[100, 200, 235, 400])
    options = parser.parse_args()
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    found = curves(options, folder)
    test, draw = found["test"].mean(axis=1), np.random.default_rng(0)
    rows = {"all": {"test": float(test[found["validation"].mean(axis=1).argmax()]), "spread": 0.0}}
    for users in options.users:
        samples = (draw.choice(found["validation"].shape[1], users, replace=False) for _ in range(DRAWS))
        chosen = np.array([found["validation"][:, sample].mean(axis=1).argmax() for sample in samples])
        rows[str(users)] = {"test": float(test[chosen].mean()), "spread": float(test[chosen].std())}
    (folder / "choice.json").write_text(json.dumps({**vars(options), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
