"""Which weights are trained, from when on, and how fast: by their depth in the model."""

from __future__ import annotations

import re
from typing import Any, Literal

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .reference import plain_name

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def freeze(model: nn.Module, spec: str) -> list[str]:
    """Freezes the lower part of a model in place. A head tied to the item embeddings is frozen with them.

    Args:
        model (`nn.Module`): a model of this package, wrapped or not.
        spec (`str`): `"none"`; `"embeddings"`; `"layers:N"`, the embeddings and the N lowest layers; `"backbone"`,
            everything but the head.

    Returns:
        `list[str]`: names of the weights which this call froze.

    Raises:
        ValueError: the spec is unknown, fits no weight, or leaves nothing to train.

    Example:
        >>> from torch import nn
        >>> model = nn.ModuleDict({"embeddings": nn.Embedding(4, 2), "layers": nn.ModuleList([nn.Linear(2, 2)])})
        >>> freeze(model, "embeddings")
        ['embeddings.weight']
    """
    if spec == "none":
        return []
    layers = _deepest(model)
    below = _depth_of_spec(spec, layers)
    chosen = {
        name: weight
        for name, weight in model.named_parameters()
        if (_in_backbone(name) if below is None else _depth(name, layers) < below)
    }
    if not chosen:
        raise ValueError(f"`freeze`: {spec!r} fits no weight of {type(model).__name__}. Is it a model of this package?")
    rest = [name for name, weight in model.named_parameters() if name not in chosen and weight.requires_grad]
    if not rest:
        raise ValueError(f"`freeze`: {spec!r} leaves nothing to train in {type(model).__name__}. Freeze less.")
    for weight in chosen.values():
        weight.requires_grad_(False)
    return list(chosen)


class GradualUnfreezingCallback(TrainerCallback):
    """Trains the top layer first, then one layer more every so often, the embeddings last (Howard and Ruder, 2018).

    The head and the last norm train from the start. It acts in `on_train_begin` and `on_step_begin`, from the step
    count alone, so that a resumed run goes on where it was. Weights which were frozen before stay so. The optimiser
    holds all of them from the start, so the schedule of learning rates is not touched.

    Args:
        every (`int`, defaults to 1): how many epochs or optimiser steps lie between two stages.
        unit (`"epoch"` or `"step"`): what `every` counts.

    Raises:
        ValueError: an argument is out of range; the model has no layers; or it runs under DDP without
            `ddp_find_unused_parameters=True`, where frozen weights would stop the run later on.

    Example:
        >>> GradualUnfreezingCallback(every=100, unit="step").every
        100
    """

    def __init__(self, *, every: int = 1, unit: Literal["epoch", "step"] = "epoch") -> None:
        if every < 1:
            raise ValueError(f"`every`: expected an integer of at least 1, found {every}.")
        if unit not in ("epoch", "step"):
            raise ValueError(f"`unit`: expected 'epoch' or 'step', found {unit!r}.")
        self.every, self.unit = every, unit
        self._managed: list[tuple[int, nn.Parameter]] = []
        self._layers = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freezes all but the top."""
        if args.world_size > 1 and not args.ddp_find_unused_parameters:
            raise ValueError(
                "`ddp_find_unused_parameters`: expected True for gradual unfreezing with several processes, found "
                f"{args.ddp_find_unused_parameters}. Set it in the training arguments."
            )
        model = kwargs["model"]
        self._layers = _deepest(model)
        if not self._layers:
            raise ValueError(f"Gradual unfreezing: {type(model).__name__} has no `layers.N` weights to unfreeze.")
        named = model.named_parameters()
        self._managed = [(_depth(name, self._layers), weight) for name, weight in named if weight.requires_grad]
        self._apply(state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lets the layers train whose time has come."""
        self._apply(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves the model as trainable as it was."""
        for _, weight in self._managed:
            weight.requires_grad_(True)

    def _apply(self, state: TrainerState) -> None:
        passed = state.global_step if self.unit == "step" else int(state.epoch or 0.0)
        lowest = self._layers - passed // self.every
        for depth, weight in self._managed:
            weight.requires_grad_(depth >= lowest)


def layerwise_learning_rates(
    model: nn.Module, *, learning_rate: float, decay: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups in which each layer learns slower than the one above it, by the factor `decay`.

    The head (with the last norm) has `learning_rate`, the top layer `learning_rate · decay`, the embeddings of a model
    with L layers `learning_rate · decay^(L+1)`. Biases and norms have no weight decay. Frozen weights are left out.

    Args:
        model (`nn.Module`): a model of this package.
        learning_rate (`float`): rate of the head.
        decay (`float`): in (0, 1]; 1 gives every weight the same rate.
        weight_decay (`float`, defaults to 0): for matrices.

    Returns:
        `list[dict[str, Any]]`: groups for a torch optimiser, with `params`, `lr`, `weight_decay`; top first.

    Raises:
        ValueError: `decay` is out of range, or nothing is trainable.

    Example:
        >>> from torch import nn
        >>> model = nn.ModuleDict({"embeddings": nn.Embedding(4, 2), "head": nn.Linear(2, 2, bias=False)})
        >>> [group["lr"] for group in layerwise_learning_rates(model, learning_rate=0.1, decay=0.5)]
        [0.1, 0.05]
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"`decay`: expected a number in (0, 1], found {decay}.")
    layers = _deepest(model)
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            key = (_depth(name, layers), weight_decay if weight.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(weight)
    if not groups:
        raise ValueError(f"No weight of {type(model).__name__} is trainable. Unfreeze some.")
    return [
        {"params": groups[key], "lr": learning_rate * decay ** (layers + 1 - key[0]), "weight_decay": key[1]}
        for key in sorted(groups, reverse=True)
    ]


def _deepest(model: nn.Module) -> int:
    """Number of layers."""
    found = (_LAYER.search(plain_name(name)) for name, _ in model.named_parameters())
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


def _depth(name: str, layers: int) -> int:
    """0 for the embeddings, 1 … `layers` for the layers, `layers + 1` for all above."""
    plain = plain_name(name)
    match = _LAYER.search(plain)
    if match:
        return int(match.group(1)) + 1
    return 0 if "embeddings" in plain.split(".") else layers + 1


def _in_backbone(name: str) -> bool:
    return plain_name(name).startswith("model.")


def _depth_of_spec(spec: str, layers: int) -> int | None:
    """Depth below which weights are frozen; None for the whole backbone."""
    if spec == "backbone":
        return None
    if spec == "embeddings":
        return 1
    count = re.fullmatch(r"layers:(\d+)", spec)
    if count is None:
        raise ValueError(f"`freeze`: expected 'none', 'embeddings', 'backbone' or 'layers:N', found {spec!r}.")
    if not 1 <= int(count.group(1)) <= layers:
        raise ValueError(f"`freeze`: expected N of 'layers:N' between 1 and {layers}, found {spec!r}.")
    return int(count.group(1)) + 1
