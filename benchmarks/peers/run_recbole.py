"""RecBole 1.2.1: `SASRec` for causal, `BERT4Rec` for masked. It makes a sample of every prefix of every history.

An epoch is hundreds of seconds long, so `--batches` of it are one epoch here, and the whole is extrapolated.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import torch


class Some:
    """So many batches at a time from RecBole's own loader, which goes on where it stopped."""

    def __init__(self, loader: Any, count: int) -> None:
        self.loader, self.count = loader, count
        self.batches: Iterator[Any] = iter(loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.count):
            batch = next(self.batches, None)
            if batch is None:
                self.batches = iter(self.loader)
                batch = next(self.batches)
            yield batch


def settings(options: Any, folder: str) -> dict[str, Any]:
    return {
        "data_path": folder,
        "checkpoint_dir": f"{folder}/checkpoints",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "use_gpu": False,
        "MAX_ITEM_LIST_LENGTH": options.length,
        "train_neg_sample_args": None,
        "train_batch_size": options.batch,
        "eval_batch_size": common.BATCH_OF_USERS,
        "epochs": options.epochs,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "mode": "full",
            "group_by": "user",
        },
        "seed": options.seed,
        "learning_rate": options.lr,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_size": 64,
        "inner_size": 256,
        "hidden_dropout_prob": options.dropout,
        "attn_dropout_prob": options.dropout,
        "loss_type": "CE",
        "show_progress": False,
        "state": "WARNING",
        **({"mask_ratio": 0.2} if options.model == "masked" else {}),
    }


def main() -> None:
    options = common.parse_options(__doc__.splitlines()[0], batches=12)
    sys.argv = sys.argv[:1]  # RecBole reads it too
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    log = common.Log(options.data)
    name = "SASRec" if options.model == "causal" else "BERT4Rec"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.mkdir()
        frame = pd.DataFrame(log.columns(log.sequences))
        frame.columns = ["user_id:token", "item_id:token", "timestamp:float"]
        frame.to_csv(path / "log.inter", sep="\t", index=False)
        config = Config(model=name, dataset="log", config_dict=settings(options, folder))
        init_seed(options.seed, True)
        data = create_dataset(config)
        train, *evaluated = data_preparation(config, data)
        init_seed(options.seed, True)
        model = get_model(name)(config, train._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    torch.autograd.set_detect_anomaly(False)  # importing RecBole switches it on: 1.5 times the seconds
    features = {
        part: loader._dataset.inter_feat for part, loader in zip(("validation", "test"), evaluated, strict=True)
    }
    places = {part: {int(user): row for row, user in enumerate(rows["user_id"])} for part, rows in features.items()}
    items = np.array([-1, *map(int, data.field2id_token["item_id"][1:])])
    number = {int(item): place for place, item in enumerate(items)}
    users_number = {int(user): place for place, user in enumerate(data.field2id_token["user_id"][1:], start=1)}

    @torch.no_grad()
    def bare(part: str, users: Sequence[int]) -> dict[int, list[int]]:
        model.eval()

        def score(some: Sequence[int]) -> list[list[int]]:
            rows = features[part][torch.tensor([places[part][users_number[user]] for user in some])]
            scores = model.full_sort_predict(rows).view(len(some), len(items))
            scores[:, 0] = -torch.inf
            seen = [[number[item] for item in log.histories[part][user]] for user in some]
            return items[common.top_items(scores, seen)].tolist()  # type: ignore[no-any-return]

        return common.in_batches(users, score)

    for part, targets in log.targets.items():  # its split must be ours
        rows = features[part]["item_id"].tolist()
        wrong = [user for user, item in targets.items() if items[rows[places[part][users_number[user]]]] != item]
        if wrong:
            raise ValueError(f"Expected RecBole to hold out the same items, found another for the users {wrong[:5]}.")
    run = common.Run("recbole", options, log, bare)
    loader = Some(train, options.batches) if options.batches else train
    for epoch in range(options.epochs):
        run.start_epoch()
        trainer._train_epoch(loader, epoch, show_progress=False)
        if run.end_epoch():
            break
    share = len(train) / options.batches if options.batches else 1.0
    prefixes = sum(min(place, options.length) for items in log.train.values() for place in range(1, len(items)))
    run.finish(sequences=len(train._dataset), tokens=prefixes, epoch_factor=share)


if __name__ == "__main__":
    main()
