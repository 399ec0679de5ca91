"""RecTools 0.19: `SASRecModel` for causal, `BERT4RecModel` for masked, both with the softmax loss over all items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import common
import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel

for name in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Clock(Callback):
    """Epochs of Lightning to the clocks of the run."""

    run: common.Run

    def __deepcopy__(self, memo: Any) -> Clock:
        return self  # RecTools trains with a copy of the trainer

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.run.start_epoch()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.should_stop = self.run.end_epoch()
        module.torch_model.train()


def dataset(log: common.Log, sequences: dict[int, list[int]]) -> Dataset:
    frame = pd.DataFrame(log.columns(sequences))
    frame = frame.rename(columns={"user_id": Columns.User, "item_id": Columns.Item})
    frame[Columns.Datetime] = pd.to_datetime(frame.pop("timestamp"), unit="s")
    frame[Columns.Weight] = 1.0
    return Dataset.construct(frame)


def main() -> None:
    options = common.parse_options(__doc__.splitlines()[0])
    log = common.Log(options.data)
    seed_everything(options.seed, workers=False)
    clock = Clock()

    def trainer() -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        return Trainer(
            max_epochs=options.epochs,
            accelerator="cpu",
            devices=1,
            enable_checkpointing=False,
            callbacks=[clock],
            **quiet,
        )

    kind, special = (SASRecModel, {}) if options.model == "causal" else (BERT4RecModel, {"mask_prob": 0.2})
    model = kind(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=options.length,
        dropout_rate=options.dropout,
        loss="softmax",
        lr=options.lr,
        batch_size=options.batch,
        epochs=options.epochs,
        get_trainer_func=trainer,
        recommend_batch_size=common.BATCH_OF_USERS,
        recommend_torch_device="cpu",
        **special,
    )
    sets = {part: dataset(log, histories) for part, histories in log.histories.items()}
    internal: dict[str, Any] = {}

    def public(part: str, users: Sequence[int]) -> dict[int, list[int]]:
        found = model.recommend(users=np.array(users), dataset=sets[part], k=common.TOP_K, filter_viewed=True)
        return {int(user): items.tolist() for user, items in found.groupby(Columns.User, sort=False)[Columns.Item]}

    @torch.no_grad()
    def bare(part: str, users: Sequence[int]) -> dict[int, list[int]]:
        """The network on prompts of its own data preparation, made by hand."""
        if "number" not in internal:
            names = model.data_preparator.item_id_map.external_ids  # special tokens first
            internal["names"] = names
            internal["number"] = {item: place for place, item in enumerate(names)}
        number, names = internal["number"], internal["names"]
        network = model.torch_model
        network.eval()
        first = model.data_preparator.n_item_extra_tokens
        mask = model.data_preparator.extra_token_ids.get("MASK")
        width = options.length

        def score(some: Sequence[int]) -> list[list[int]]:
            seen = [[number[item] for item in log.histories[part][user] if item in number] for user in some]
            tokens = torch.zeros((len(some), width), dtype=torch.long)
            for row, items in enumerate(seen):
                prompt = items if mask is None else [*items, mask]
                tokens[row, width - len(prompt[-width:]) :] = torch.tensor(prompt[-width:], dtype=torch.long)
            item_embeddings = network.item_model.get_all_embeddings()
            sessions = network.encode_sessions({"x": tokens}, item_embeddings)[:, -1]
            scores = sessions @ item_embeddings.T
            scores[:, :first] = -torch.inf
            return [[names[item] for item in items] for items in common.top_items(scores, seen)]

        return common.in_batches(users, score)

    run = common.Run("rectools", options, log, public)
    clock.run = run
    model.is_fitted = True  # else it would refuse to recommend between epochs
    model._fit(dataset(log, log.train))
    some = list(log.targets["test"])[:40]
    found, made = public("test", some), bare("test", some)
    run.bare, run.public = bare, public
    run.finish(sequences=len(log.train), public_equals_bare=sum(found[user] == made[user] for user in some) / 40)


if __name__ == "__main__":
    main()
