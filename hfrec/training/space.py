"""What `hfrec tune` searches: bounds around the settings that a recipe chose for the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..models.loss_names import SAMPLED_LOSSES
from .recipes import LENGTHS, LogStatistics, loss_is_exact

if TYPE_CHECKING:
    import optuna

SMALL_LOG = 50_000  # fewer interactions, and a larger model than the recipe's learns them by heart
SMALLEST_SAMPLED_CATALOGUE = 1_000  # fewer items, and drawn negatives save nothing


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, in steps or, with `log`, evenly over the orders of magnitude."""

    low: float
    high: float
    step: float | None = None
    log: bool = False


SearchSpace = dict[str, Interval | tuple[Any, ...]]


def search_space(own: Mapping[str, Any], log: LogStatistics, given: Collection[str]) -> SearchSpace:
    """The settings to search, each with its bounds.

    A small log gets a small space: no longer histories than it has, no larger model, and the exact loss alone where it
    has few items.

    Args:
        own: The settings of the run without a search, defaults included, names as the flags of `hfrec pretrain`.
        log: Statistics of the log.
        given: Names that the user fixed.

    Returns:
        Name -> [`Interval`] or the values to choose from; `own` lies inside.

    Example:
        >>> import numpy as np
        >>> from hfrec.training.recipes import LogStatistics
        >>> own = {"learning_rate": 1e-3, "hidden_dropout_prob": 0.5, "max_length": 20, "hidden_size": 64}
        >>> own |= {"num_hidden_layers": 2, "num_attention_heads": 2, "loss": "chunked", "objective": "causal"}
        >>> own |= {"per_device_train_batch_size": 64, "weight_decay": 0.0, "label_smoothing_factor": 0.0}
        >>> own |= {"position_embedding_type": "absolute", "negative_sampling": "uniform", "num_hard_negatives": 0}
        >>> space = search_space(own, LogStatistics(np.arange(1, 401) // 10, num_items=120), {"hidden_size"})
        >>> space["max_length"], space["num_hidden_layers"], "hidden_size" in space, "loss" in space
        ((20, 50), (1, 2), False, False)
    """
    rate, dropout = own["learning_rate"], own["hidden_dropout_prob"]
    batch, layers = own["per_device_train_batch_size"], own["num_hidden_layers"]
    small = log.num_interactions < SMALL_LOG
    space: SearchSpace = {
        "learning_rate": Interval(rate / 10, rate * 10, log=True),
        "hidden_dropout_prob": Interval(max(dropout - 0.2, 0.0), min(dropout + 0.2, 0.9), step=0.05),
        "per_device_train_batch_size": (max(batch // 2, 1), batch, 2 * batch),
        "max_length": _lengths(own["max_length"], log),
        "hidden_size": _sizes(own, small),
        "num_hidden_layers": tuple(range(max(layers - 1, 1), layers + (1 if small else 2))),
        "weight_decay": tuple(sorted({0.0, 0.01, 0.1, own["weight_decay"]})),
        **_losses(own, log),
    }
    if own["objective"] == "masked":
        masked = own["mlm_probability"]
        space["mlm_probability"] = Interval(max(masked - 0.1, 0.05), min(masked + 0.3, 0.9), step=0.05)
        space["mask_last_probability"] = Interval(0.0, max(0.9, own["mask_last_probability"]), step=0.05)
    if not ("loss" in given and own["loss"] == "gbce"):  # which has no smoothed form
        space["label_smoothing_factor"] = Interval(0.0, max(0.2, own["label_smoothing_factor"]), step=0.05)
    return {name: bounds for name, bounds in space.items() if name not in given and _is_wide(bounds)}


def suggest(trial: optuna.trial.BaseTrial, space: SearchSpace, loss: str) -> dict[str, Any]:
    """A value of every setting that plays a part in the trial.

    Args:
        trial: It remembers: a second call gives the same values.
        space: What is searched.
        loss: The loss where it is not searched.

    Returns:
        Numbers with four digits, as they are trained with and written down.
    """
    values: dict[str, Any] = {}
    for name, bounds in space.items():
        loss = values.get("loss", loss)
        unused = "num_negatives" if loss not in SAMPLED_LOSSES else "label_smoothing_factor" if loss == "gbce" else ""
        if name == unused:
            continue
        if isinstance(bounds, Interval):
            found = trial.suggest_float(name, bounds.low, bounds.high, step=bounds.step, log=bounds.log)
            values[name] = float(f"{found:.4g}")
        else:
            values[name] = trial.suggest_categorical(name, bounds)
    return values


def space_facts(space: SearchSpace) -> dict[str, Any]:
    """The space in what JSON knows."""
    return {name: vars(bounds) if isinstance(bounds, Interval) else list(bounds) for name, bounds in space.items()}


def _is_wide(bounds: Interval | tuple[Any, ...]) -> bool:
    return bounds.low < bounds.high if isinstance(bounds, Interval) else len(bounds) > 1


def _lengths(own: int, log: LogStatistics) -> tuple[int, ...]:
    """The recipe's length, the next shorter one, and the next longer one where histories are longer."""
    shorter = [length for length in LENGTHS if length < own][-1:]
    longer = [length for length in LENGTHS if length > own][:1] if log.long_length > own else []
    return (*shorter, own, *longer)


def _sizes(own: Mapping[str, Any], small: bool) -> tuple[int, ...]:
    """Sizes that the heads divide; rotary positions turn the units of a head in pairs."""
    size = own["hidden_size"]
    unit = own["num_attention_heads"] * (2 if own["position_embedding_type"] == "rotary" else 1)
    sizes = (size // 2, size) if small else (size // 2, size, 2 * size)
    return tuple(size for size in sizes if size % unit == 0 and size > 0)


def _losses(own: Mapping[str, Any], log: LogStatistics) -> SearchSpace:
    """Losses that are worth their time on so many items, and the negatives of those that draw them."""
    if log.num_items < SMALLEST_SAMPLED_CATALOGUE and own["loss"] not in SAMPLED_LOSSES:
        return {}
    exact = ("chunked",) if loss_is_exact("best", log, own) else ()
    negatives = {number for number in (256, 1024, 4096) if number <= log.num_items}
    refused = own["label_smoothing_factor"] or own["num_hard_negatives"] or own["negative_sampling"] != "uniform"
    drawn = [loss for loss in SAMPLED_LOSSES if loss != "gbce" or not refused]
    losses = dict.fromkeys((own["loss"], *exact, *drawn))
    return {"loss": tuple(losses), "num_negatives": tuple(sorted({*negatives, own["num_negatives"]}))}
