"""The arms of the study: how each makes its model, what it trains, and which settings it may try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from hfrec.hub.checkpoint import load_network
from hfrec.models import Bert4RecConfig
from hfrec.tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from hfrec.training.freezing import freeze
from hfrec.training.l2sp import L2SPCallback
from hfrec.transfer.vocabulary import add_items

Trial = dict[str, float]


def rates(*values: float) -> tuple[Trial, ...]:
    """Trials that differ in the learning rate only."""
    return tuple({"learning_rate": value} for value in values)


RATES = (5e-4, 1e-3, 2e-3, 4e-3)


def pulls(alpha: float) -> tuple[Trial, ...]:
    """Trials of an L2-SP arm: the learning rates of plain fine-tuning, and one strength."""
    return tuple({"learning_rate": rate, "alpha": alpha} for rate in RATES)


FINE = rates(*RATES)


@dataclass(frozen=True)
class Arm:
    """One way to a model of the target.

    Args:
        name: Name in the tables.
        trials: Settings to choose from on validation; the same number for every network that trains.
        pretrained: Whether it starts from the checkpoint.
        trained: Whether it trains on the target at all.
        baseline: Whether it is no network but a count or a neighbourhood.
    """

    name: str
    trials: tuple[Trial, ...]
    pretrained: bool = True
    trained: bool = True
    baseline: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("popularity", ({},), pretrained=False, baseline=True),
        Arm("item_knn", ({},), pretrained=False, baseline=True),
        Arm("scratch", FINE, pretrained=False),
        Arm("zero_shot", rates(0.0), trained=False),
        Arm("frozen_body", rates(1e-3, 2e-3, 5e-3, 1e-2)),
        Arm("finetune", FINE),
        Arm("l2sp_coupled", pulls(0.01)),
        Arm("l2sp_decoupled", pulls(10.0)),
        Arm("lp_ft", FINE),
        Arm("lora", rates(2e-3, 5e-3, 1e-2, 2e-2)),
        Arm("joint", FINE),
        Arm("shuffled_source", FINE),
    )
}


@dataclass
class Start:
    """A model at the start of an arm, with its tokenizer and what training needs besides."""

    model: PreTrainedModel
    tokenizer: ItemTokenizer
    callbacks: Callable[[Trial], list[TrainerCallback]]


def start_arm(arm: Arm, checkpoint: str, items: Sequence[str], *, seed: int) -> Start:
    """Make the model of an arm, whose vocabulary holds at least `items`.

    Args:
        arm: The arm.
        checkpoint: Pretrained folder or hub id.
        items: Items of the target's training users.
        seed: Seed of new weights and of the shuffle.
    """
    torch.manual_seed(seed)
    model, tokenizer = load_network(checkpoint)
    if not arm.pretrained:
        tokenizer = ItemTokenizer.from_items(items)
        settings = {**model.config.to_dict(), "vocab_size": len(tokenizer)}
        return Start(type(model)(Bert4RecConfig(**settings)), tokenizer, lambda trial: [])
    if arm.name == "shuffled_source":
        shuffle_items(model, seed=seed)
    known = tokenizer.get_vocab()
    new = [item for item in items if item not in known]
    old_size = len(tokenizer)
    if new:
        tokenizer = add_items(model, tokenizer, new)
    if arm.name == "frozen_body":
        freeze_but_new_rows(model, old_size)
    if arm.name == "lora":
        model = with_lora(model)
    return Start(model, tokenizer, lambda trial: anchors(arm, trial, checkpoint, tokenizer))


def anchors(arm: Arm, trial: Trial, checkpoint: str, tokenizer: ItemTokenizer) -> list[TrainerCallback]:
    """The L2-SP callback of the two arms that have one."""
    if not arm.name.startswith("l2sp_"):
        return []
    mode: Any = arm.name.removeprefix("l2sp_")
    return [L2SPCallback(checkpoint, alpha=trial["alpha"], mode=mode, tokenizer=tokenizer)]


def shuffle_items(model: PreTrainedModel, *, seed: int) -> None:
    """Give each item the row of another: what a source with shuffled item ids would have taught.

    Training on a relabelled log gives the same weights with relabelled rows, so nothing is trained again.
    """
    embeddings: Any = model.get_input_embeddings()
    size = embeddings.weight.shape[0]
    order = torch.randperm(size - NUM_SPECIAL_TOKENS, generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([torch.arange(NUM_SPECIAL_TOKENS), order + NUM_SPECIAL_TOKENS])  # (vocab_size,)
    decoder: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers types it not
    with torch.no_grad():
        embeddings.weight.copy_(embeddings.weight[rows])
        if decoder.bias is not None:
            decoder.bias.copy_(decoder.bias[rows])


def freeze_but_new_rows(model: PreTrainedModel, old_size: int) -> None:
    """Freeze the body; the head and the rows of new items train."""
    freeze(model, "backbone")
    weight: Any = model.get_input_embeddings().weight
    weight.requires_grad_(True)
    is_new = (torch.arange(len(weight)) >= old_size).to(weight.dtype)[:, None]  # (vocab_size, 1)
    # AdamW without weight decay leaves a row alone whose gradient has always been 0.
    weight.register_hook(lambda gradient: gradient * is_new.to(gradient.device))


def with_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Low-rank adapters (Hu et al., ICLR 2022) on every linear layer of the body; the rest is frozen."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("The arm `lora` needs peft: pip install peft, or leave the arm out of `--arms`.") from error
    layers = r".*layers\.\d+\.(attention\.(query_key_value|output)|mlp\.(input|output))"
    adapted: Any = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=layers))
    return adapted  # type: ignore[no-any-return]
