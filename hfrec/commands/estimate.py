"""Estimate the memory of a training run before it starts.

hfrec estimate --num_items 1000000 --max_length 50 --per_device_train_batch_size 128 --loss chunked
hfrec estimate --num_items 10000000 --max_length 50 --loss sampled_softmax --rowwise_embeddings true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..training.arguments import ModelArguments
from .parsing import parse_arguments

if TYPE_CHECKING:
    from ..training.estimate import Workload


@dataclass
class EstimateArguments:
    """Sizes of the run; the model's flags are those of `hfrec pretrain`."""

    num_items: int = field(metadata={"help": "Items of the catalogue."})
    num_interactions: int | None = field(
        default=None,
        metadata={"help": "Interactions to train on, for the start from the log; the longest log if None."},
    )
    max_length: int = field(default=100, metadata={"help": "Newest tokens the model reads."})
    mean_length: int | None = field(default=None, metadata={"help": "Tokens of a row on average; max_length if None."})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "Rows in a batch of one process."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Users scored at a time in evaluation."})
    mlm_probability: float = field(default=0.2, metadata={"help": "Share of items to predict (masked objective)."})
    world_size: int = field(default=1, metadata={"help": "Processes."})
    sharding: Literal["none", "full", "catalogue"] = field(
        default="none",
        metadata={
            "help": "full: weights, gradients and moments divided among the processes; catalogue: those of the items."
        },
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Work activations out again."})
    rowwise_embeddings: bool = field(default=False, metadata={"help": "Gradients of touched items only."})

    def workload(self, objective: str) -> Workload:
        """The batch of one process."""
        from ..training.estimate import Workload

        return Workload(
            batch_size=self.per_device_train_batch_size,
            length=self.mean_length or self.max_length,
            labelled=1.0 if objective == "causal" else self.mlm_probability,
            eval_batch_size=self.per_device_eval_batch_size,
            world_size=self.world_size,
            sharding=self.sharding,
            gradient_checkpointing=self.gradient_checkpointing,
            rowwise_embeddings=self.rowwise_embeddings,
        )


def parse(words: Sequence[str]) -> tuple[EstimateArguments, ModelArguments]:
    """Flags or a settings file into the dataclasses."""
    sizes, shape = parse_arguments("estimate", (EstimateArguments, ModelArguments), words)
    return sizes, shape


def main(arguments: tuple[EstimateArguments, ModelArguments]) -> dict[str, Any]:
    """Print what a process holds and what would make it less; returns the bytes by name."""
    from ..models import Bert4RecConfig
    from ..tokenization import NUM_SPECIAL_TOKENS
    from ..training.estimate import BESIDE, BESIDE_ITEM, estimate_memory, estimate_start, suggestions

    sizes, shape = arguments
    vocab_size = sizes.num_items + NUM_SPECIAL_TOKENS
    config = Bert4RecConfig(vocab_size=vocab_size, max_position_embeddings=sizes.max_length, **shape.shape())
    workload = sizes.workload(shape.objective)
    memory = estimate_memory(config, workload)
    start = estimate_start(config, sizes.num_interactions) if shape.item_start == "svd" else None
    before = 0 if start is None else memory.parameters + start.memory
    results = {**vars(memory), "training": memory.training} | ({} if start is None else {"start": start.memory})
    results["total"] = max(memory.total, before)
    for name, size in results.items():
        print(f"{name:<13} {size / 2**20:>10,.0f} MiB")
    results["whole"] = results["total"] + BESIDE + BESIDE_ITEM * sizes.num_items
    print(f"{'whole command':<13} {results['whole'] / 2**20:>10,.0f} MiB")
    print("One process, float32, AdamW; the whole command: with Python, its libraries, the log and the baselines.")
    if start is not None:
        print(f"The start from the log (--item_start svd) takes up to {start.seconds:,.0f} CPU seconds.")
    less = suggestions(config, workload, at_least=before)
    for text in less:
        print(f"Less with {text}")
    return {**results, "suggestions": less}
