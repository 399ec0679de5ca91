"""The optimiser that a `Trainer` left in a checkpoint, so that its moments can follow the rows of the items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

OPTIMIZER = "optimizer.pt"
STATE = "trainer_state.json"
OTHERS = ("scheduler.pt", "rng_state.pth")


def trainer_groups(model: Any, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """The parameter groups that a `Trainer` makes of a model: the weights that decay, then biases and norms."""
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it reads the model alone
    trained = [(name in decayed, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [weight for inside, weight in trained if inside is side], "weight_decay": decay}
        for side, decay in ((True, weight_decay), (False, 0.0))
    ]


def load_optimizer(model: Any, folder: Path) -> torch.optim.AdamW:
    """AdamW over the weights of a model with the moments of `optimizer.pt`, in the Trainer's groups.

    Args:
        model: The model of the same checkpoint.
        folder: A `checkpoint-N` of a run with the Trainer's own optimiser.

    Raises:
        ValueError: The file is no optimiser of this model: other groups, other shapes, or no plain tensors.
    """
    path = folder / OPTIMIZER
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one error for a file that is none of its own
        raise ValueError(
            f"{path} is not readable without running code: {error}. Remove it to go on without."
        ) from error
    optimizer = torch.optim.AdamW(trainer_groups(model))
    try:
        optimizer.load_state_dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is of another optimiser than the Trainer's AdamW: {error}. Remove it.") from error
    for weight, moments in optimizer.state.items():
        if any(value.ndim and value.shape != weight.shape for value in moments.values()):
            raise ValueError(f"{path} has moments of other shapes than the weights beside it. Remove it.")
    return optimizer


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path, source: Path) -> None:
    """Write the moments, and what else a `Trainer` goes on from, beside the changed model.

    The best checkpoint so far is forgotten: it has other items.

    Args:
        optimizer: Moved with the items.
        folder: Of the changed model.
        source: The checkpoint it came from, with the schedule, the random numbers and the progress of its run.
    """
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)  # the form in which the Trainer reads it, with weights_only
    for name in (name for name in OTHERS if (source / name).exists()):
        shutil.copyfile(source / name, folder / name)
    if (source / STATE).exists():
        state = json.loads((source / STATE).read_text(encoding="utf-8"))
        state |= dict.fromkeys(("best_metric", "best_global_step", "best_model_checkpoint"))
        (folder / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
