"""Transformers4Rec 23.12: GPT-2 with `clm` for causal, Electra (BERT's encoder) with `mlm` for masked; a plain loop."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import common
import numpy as np
import torch
import transformers4rec.torch as tr
from merlin.schema import ColumnSchema, Schema, Tags


def build(num_items: int, length: int, dropout: float, causal: bool) -> torch.nn.Module:
    column = ColumnSchema(
        "item_id",
        dtype="int64",
        is_list=True,
        is_ragged=False,
        tags=[Tags.ITEM_ID, Tags.CATEGORICAL, Tags.LIST],
        properties={
            "domain": {"min": 0, "max": num_items, "name": "item_id"},
            "value_count": {"min": length, "max": length},
        },
    )
    shape = {"d_model": 64, "n_head": 2, "n_layer": 2, "total_seq_length": length + 1, "hidden_act": "gelu"}
    if causal:
        masking = {"masking": "clm", "train_on_last_item_seq_only": False}
        config = tr.GPT2Config.build(dropout=dropout, **shape)
    else:
        masking = {"masking": "mlm", "mlm_probability": 0.2}
        config = tr.ElectraConfig.build(dropout=dropout, **shape)
    inputs = tr.TabularSequenceFeatures.from_schema(
        Schema([column]),
        max_sequence_length=length,
        d_output=64,
        aggregation="concat",
        embedding_dim_default=64,
        **masking,
    )
    body = tr.SequentialBlock(inputs, tr.TransformerBlock(config, masking=inputs.masking))
    task = tr.NextItemPredictionTask(weight_tying=True)
    return tr.Model(tr.Head(body, task, inputs=inputs), max_sequence_length=length)


def padded(rows: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """The newest items of each row, filled up on the right, as the library expects."""
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    for row, items in enumerate(rows):
        newest = items[-length:]
        tokens[row, : len(newest)] = torch.tensor(newest, dtype=torch.long)
    return tokens


def main() -> None:
    options = common.parse_options(__doc__.splitlines()[0])
    log = common.Log(options.data)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    causal = options.model == "causal"
    number = {item: place for place, item in enumerate(log.items, start=1)}
    model = build(len(log.items), options.length, options.dropout, causal)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    rows = padded([[number[item] for item in items] for items in log.train.values()], options.length)
    histories = {
        part: {user: [number[item] for item in items] for user, items in of_users.items()}
        for part, of_users in log.histories.items()
    }
    prompt = options.length if causal else options.length - 1  # the [MASK] takes a place

    @torch.no_grad()
    def bare(part: str, users: Sequence[int]) -> dict[int, list[int]]:
        model.eval()

        def score(some: Sequence[int]) -> list[list[int]]:
            seen = [histories[part][user] for user in some]
            batch = {"item_id": padded([items[-prompt:] for items in seen], options.length)}
            scores = model(batch, training=False, testing=False)
            scores = (scores["predictions"] if isinstance(scores, dict) else scores)[:, : len(log.items) + 1].clone()
            scores[:, 0] = -torch.inf
            return [[log.items[place - 1] for place in items] for items in common.top_items(scores, seen)]

        return common.in_batches(users, score)

    run = common.Run("t4rec", options, log, bare)
    for _ in range(options.epochs):
        model.train()
        run.start_epoch()
        for chosen in torch.randperm(len(rows)).split(options.batch):
            loss = model({"item_id": rows[chosen]}, training=True)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if run.end_epoch():
            break
    run.finish(sequences=len(rows))


if __name__ == "__main__":
    main()
