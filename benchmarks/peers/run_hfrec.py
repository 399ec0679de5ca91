"""hfrec through the stock `Trainer`, recommendations through `recommend`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import torch
from transformers import TrainerCallback

from hfrec import recommend
from hfrec.data.interactions import load_interactions
from hfrec.data.splits import leave_one_out
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer, seed_everything

sys.path.append(str(Path(__file__).parents[1]))

from train_speed import timed_training


class Clock(TrainerCallback):
    """Epochs of the Trainer to the clocks of the run."""

    run: common.Run

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.run.start_epoch()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self.run.end_epoch()


def make_plain(model: Any) -> None:
    """Attention written out over padded rows and torch's dropout; `--loss full` does the rest."""
    model.set_attn_implementation("eager")
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, torch.nn.Dropout(child.p))


def main() -> None:
    options = common.parse_options(
        __doc__.splitlines()[0],
        windows="newest",
        schedule="linear",
        loss="chunked",
        mask_last_probability=0.0,  # the labels of the other libraries; hfrec's own default is 0.1
        head_transform="",  # 0 or 1; without, what the objective has
        intermediate_size=256,
        hidden_act="gelu",
        attention_dropout=0.0,
        plain=0,
    )
    log = common.Log(options.data)
    split = leave_one_out(load_interactions(options.data))
    tokenizer = build_tokenizer(split.train)
    data = DataArguments(
        train_file=options.data,
        max_length=options.length,
        windows=options.windows,
        mask_last_probability=options.mask_last_probability,
    )
    with tempfile.TemporaryDirectory() as folder:
        training = timed_training(
            folder,
            options.epochs,
            per_device_train_batch_size=options.batch,
            learning_rate=options.lr,
            lr_scheduler_type=options.schedule,
            seed=options.seed,
        )
        seed_everything(training)
        arguments = ModelArguments(
            objective=options.model,
            loss=options.loss,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.attention_dropout,
            head_transform=bool(int(options.head_transform)) if options.head_transform else None,
            intermediate_size=options.intermediate_size,
            hidden_act=options.hidden_act,
        )
        model = build_model(arguments, len(tokenizer), options.length)
        if options.plain:
            make_plain(model)

        def best(part: str, users: Sequence[int]) -> dict[int, list[int]]:
            histories = [log.histories[part][user] for user in users]
            found = recommend(model, tokenizer, histories, common.TOP_K, unknown_items="drop")
            return {user: [int(item["item_id"]) for item in items] for user, items in zip(users, found, strict=True)}

        run = common.Run("hfrec, plain" if options.plain else "hfrec", options, log, best)
        rows = training_sequences(split.train, tokenizer, options.model, data, options.length)
        clock = Clock()
        clock.run = run
        build_trainer(model, tokenizer, rows, None, data=data, training=training, callbacks=[clock]).train()
    model.eval()  # as a loaded model is
    run.finish(sequences=len(rows), slots=log.tokens(options.length))  # packed: no padding in its layers


if __name__ == "__main__":
    main()
