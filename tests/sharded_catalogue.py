"""Trains small models with a sharded catalogue, in the group of processes that there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist

from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    ItemTokenizer,
    content_features,
    describe_content,
    load_checkpoint,
    set_item_features,
)
from hfrec.inference.recommend import recommend
from hfrec.training.sharding import clip_grad_norm, shard_catalogue

VOCAB_SIZE = 23  # no even number of rows for two processes
HISTORIES = [[f"item{(user * step) % 20}" for step in range(1, 6)] for user in range(1, 9)]
STEPS = 6
ITEMS = pa.table(
    {
        "item_id": [f"item{number}" for number in range(20)],
        "title": [f"a {('red', 'blue')[number % 2]} thing of {number % 5} kinds" for number in range(20)],
        "kind": [None if number == 7 else f"{number % 3}|{number % 4}" for number in range(20)],
    }
)
SPECIFICATION = describe_content(ITEMS, text_column="title", category_column="kind")
# Dropout is on (its default). Adam blows float noise near zero gradients up to whole steps: in double, without a pull
# that would turn one such step into the next.
CONTENT: dict[str, Any] = {"item_representation": "content+id", "item_content": SPECIFICATION.to_dict()}
CASES: dict[str, dict[str, Any]] = {
    "masked": {"optimizer": "SGD", "lr": 0.5, "l2sp_alpha": 0.3},
    "causal": {
        "optimizer": "AdamW",
        "lr": 0.01,
        "config": {"loss_chunk_size": 30, "embedding_size": 6, "loss_candidates": "unseen"},
    },
    "untied": {"optimizer": "SGD", "lr": 0.5, "config": {"tie_word_embeddings": False, "head_bias": False}},
    "sampled_softmax": {"optimizer": "SGD", "lr": 0.5, "config": {"num_negatives": 7, "negative_sampling": "mixed"}},
    "content": {"optimizer": "SGD", "lr": 0.5, "config": {**CONTENT, "item_representation": "content"}},
    "content+id": {"optimizer": "AdamW", "lr": 0.01, "config": {**CONTENT, "content_adapter": "linear"}},
    "content+id sampled_softmax": {"optimizer": "SGD", "lr": 0.5, "config": {**CONTENT, "num_negatives": 7}},
    "gbce": {"optimizer": "SGD", "lr": 0.5, "config": {"num_negatives": 7}},
}


def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items([f"item{number}" for number in range(20)])


def new_model(case: str) -> Any:
    torch.manual_seed(0)
    loss = case.split()[-1] if "sampled" in case or case == "gbce" else "chunked"
    config = Bert4RecConfig(vocab_size=VOCAB_SIZE, hidden_size=16, loss=loss, **CASES[case].get("config", {}))
    model = (Bert4RecForCausalLM if case == "causal" else Bert4RecForMaskedLM)(config)
    if config.item_representation != "id":
        set_item_features(model, content_features(SPECIFICATION, ITEMS))
    return model


def train(case: str, model: Any, clip: Any) -> list[float]:
    """Losses of some steps on padded batches, clipped and, with `l2sp_alpha`, pulled to the start."""
    settings = CASES[case]
    model.train()
    if settings["optimizer"] == "AdamW":
        model.double()
    optimizer = getattr(torch.optim, settings["optimizer"])(model.parameters(), lr=settings["lr"])
    weights = [weight for weight in model.parameters() if weight.requires_grad]  # items without residuals keep zeros
    start = [weight.detach().clone() for weight in weights]
    torch.manual_seed(1)
    losses = []
    for _ in range(STEPS):
        ids = torch.randint(3, VOCAB_SIZE, (8, 7))
        labels = ids.roll(-1, 1).masked_fill(torch.rand(ids.shape) < 0.3, -100)
        labels[0, 2], ids[:3, :2], labels[:3, :2] = 2, 0, -100  # an unknown target, and padding
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        clip(model, 1.0)
        for weight, origin in zip(weights, start, strict=True):
            weight.grad.add_(weight.detach() - origin, alpha=settings.get("l2sp_alpha", 0.0))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def outcome(model: Any) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    model.float().eval()
    ids = torch.arange(3, 13).view(2, 5)
    found = model(input_ids=ids, labels=ids)
    return {
        "loss": found.loss.item(),
        "logits": found.logits[:, 3:].tolist(),
        "chunk": model.score_items(model.encode_history(ids), 9, 15).tolist(),
        "recommended": recommend(model, tokenizer(), HISTORIES, top_k=5),
    }


def refusals() -> list[str]:
    """Messages of what cannot be right."""
    rank, found = dist.get_rank(), []
    ids = torch.arange(3, 13).view(2, 5)

    def different_models() -> None:
        torch.manual_seed(rank)
        shard_catalogue(Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=VOCAB_SIZE, hidden_size=16, loss="chunked")))

    def different_batches() -> None:
        shard_catalogue(new_model("masked"))(input_ids=ids + rank, labels=ids)

    def different_dropout() -> None:
        model = shard_catalogue(new_model("masked")).train()
        torch.manual_seed(rank)
        model(input_ids=ids, labels=ids)

    def data_parallel() -> None:
        model = shard_catalogue(new_model("masked"))
        rows = model.decoder.weight.detach().clone()
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        assert model.decoder.weight.equal(rows), "DDP sends the first process's rows to none"
        wrapped(input_ids=ids, labels=ids).loss.backward()
        wrapped(input_ids=ids + rank, labels=ids)

    for attempt in (different_models, different_batches, different_dropout, data_parallel):
        try:
            attempt()
        except ValueError as error:
            found.append(f"{attempt.__name__}: {error}")
    return found


def main(folder: Path) -> None:
    """Write the checkpoint of each case, and what each process found, into a folder."""
    results: dict[str, Any] = {}
    for case in CASES:
        model = shard_catalogue(new_model(case))
        results[case] = {"parameters": model.num_parameters(), "losses": train(case, model, clip_grad_norm)}
        results[case] |= outcome(model)
        model.save_pretrained(folder / case)
        if dist.get_rank() == 0:
            tokenizer().save_pretrained(folder / case)
        dist.barrier()
        again = shard_catalogue(load_checkpoint(folder / case)[0])
        results[case]["loaded"] = outcome(again)["recommended"]
    results["refusals"] = refusals()
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(results))
