r"""CPU time of a training step by loss, with items that are ids and with items that are made of content.

python benchmarks/content_losses.py --train_file interactions.csv.gz --items_file items.csv.gz --text_column title \
  --category_column attributes --output_dir outputs/content-losses

Causal models of one log; forward and backward pass, clipping and AdamW on the same batches, ids and content in turn,
one thread. `width` is that of the item embeddings: content keeps its main axes there beside `hidden_size` of residuals,
and costs what ids of that width cost, and what making embeddings of content costs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from hfrec.commands.content import ContentArguments
from hfrec.commands.parsing import parse_arguments
from hfrec.data.collators import DataCollatorForNextItem
from hfrec.data.files import write_json
from hfrec.data.interactions import Interactions, load_interactions
from hfrec.data.splits import leave_one_out
from hfrec.evaluation.table import align
from hfrec.models.configuration_bert4rec import Bert4RecConfig
from hfrec.models.loss_names import LossName
from hfrec.tokenization import ItemTokenizer
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model
from hfrec.transfer.specification import content_features, describe_content

WARM_UP = 2
KINDS = ("id", "id, as wide", "content", "content+id")


@dataclass(kw_only=True)
class ContentLossesArguments(ContentArguments):
    """The log, what its items are made of, and how much is timed."""

    train_file: str = field(metadata={"help": "Interaction log."})
    items_file: str = field(metadata={"help": "Items with their content."})
    output_dir: str = field(metadata={"help": "Folder of content_losses.json."})
    losses: list[str] = field(default_factory=lambda: list(get_args(LossName)), metadata={"help": "Losses."})
    max_length: int = field(default=20, metadata={"help": "Newest items."})
    batch_size: int = field(default=128, metadata={"help": "Rows of a step."})
    steps: int = field(default=10, metadata={"help": "Timed steps of each."})


def batches_of(train: Interactions, tokenizer: ItemTokenizer, arguments: ContentLossesArguments) -> list[Any]:
    """The same batches for all models."""
    length, number = arguments.max_length, arguments.batch_size
    rows = training_sequences(train, tokenizer, "causal", DataArguments(train_file="unused"), length)
    collator = DataCollatorForNextItem(tokenizer, "causal", max_length=length, train=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        collator([rows[row] for row in order[step * number : (step + 1) * number]])
        for step in range(WARM_UP + arguments.steps)
    ]


def stepper(model: Any) -> Callable[[Any], float]:
    """CPU seconds of a step of a model on a batch."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.train()

    def step(batch: Any) -> float:
        start = time.process_time()
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return time.process_time() - start

    return step


def main(arguments: ContentLossesArguments) -> list[dict[str, Any]]:
    """Time every loss; returns what `content_losses.json` holds."""
    torch.set_num_threads(1)
    train = leave_one_out(load_interactions(arguments.train_file, items=arguments.items_file)).train
    tokenizer = build_tokenizer(train)
    specification = describe_content(tokenizer.items, **arguments.columns())
    content = specification, content_features(specification, tokenizer.items)
    batches = batches_of(train, tokenizer, arguments)
    wide = sum(Bert4RecConfig(item_representation="content", item_content=specification.to_dict()).content_ranks())
    found = []
    for loss in arguments.losses:
        steps, widths = {}, {}
        for kind in KINDS:
            shape: Any = {"item_representation": kind.split(",")[0], "loss": loss}
            shape |= {"embedding_size": wide + ModelArguments.hidden_size} if "wide" in kind else {}
            shape = ModelArguments(objective="causal", position_embedding_type="rotary", **shape)
            made_of = content if "content" in kind else None
            model: Any = build_model(shape, len(tokenizer), arguments.max_length, content=made_of)
            steps[kind], widths[kind] = stepper(model), model.config.embedding_size
        times = [{kind: step(batch) for kind, step in steps.items()} for batch in batches][WARM_UP:]
        for kind in KINDS:
            spent = 1e3 * statistics.median(row[kind] for row in times)
            ratio = statistics.median(row[kind] / row["id"] for row in times)
            found.append({"loss": loss, "items": kind, "width": widths[kind], "ms": spent, "times ids": ratio})
    write_json(Path(arguments.output_dir) / "content_losses.json", found)
    body = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in found]
    print(align([list(found[0]), *body]))
    return found


if __name__ == "__main__":
    main(*parse_arguments("content_losses", (ContentLossesArguments,), sys.argv[1:]))
