"""A recipe: the settings of a run, chosen from the statistics of its log, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.sequences import num_windows
from .budget import EVALUATIONS

RecipeName = Literal["fast", "balanced", "best"]
LENGTHS = (20, 50, 100, 200)
LARGEST_EXACT_CATALOGUE = 20_000  # the exact loss ranks better; at 12,000 items it takes 1.7 times as long
LARGEST_CHEAP_CATALOGUE = 6_000  # the same for who is in a hurry, and for content, which is better with drawn negatives
LARGEST_SEARCHED_CATALOGUE = 100_000  # above, looking for hard negatives takes more than all else of a step
HARD_NEGATIVES = 512
MASKED_STEPS = 2  # times those of a causal run: each learns from a part of the items
CONTENT_STEPS = 1 / 4  # of those of a run by ids: content says much from the start, and more steps learn by heart


# With these the user has set the budget: how long a run is, how often it is looked at and when it stops.
BUDGET_FLAGS = ("num_train_epochs", "max_steps", "time_budget", "eval_strategy", "eval_steps")
MASKING = ("mlm_probability", "mask_last_probability")  # whoever gives one of these means the masked objective
BUDGET = ("max_steps", "warmup_steps", "eval_steps", "early_stopping_patience")


@dataclass(frozen=True, eq=False)
class LogStatistics:
    """What a recipe depends on, of the training part of a log.

    Args:
        lengths: Interactions of each user.
        num_items: Items.

    Example:
        >>> LogStatistics(np.array([2, 4, 6]), num_items=5).mean_length
        4.0
    """

    lengths: NDArray[np.int64]
    num_items: int

    @property
    def num_users(self) -> int:
        return len(self.lengths)

    @property
    def num_interactions(self) -> int:
        return int(self.lengths.sum())

    @property
    def mean_length(self) -> float:
        return self.num_interactions / self.num_users

    @property
    def long_length(self) -> int:
        """Interactions that nine users of ten do not exceed."""
        return int(np.quantile(self.lengths, 0.9))

    def num_rows(self, max_length: int, *, causal: bool, windows: str = "overlapping") -> int:
        """Rows that `training_sequences` makes of the log, by which the Trainer counts epochs.

        Example:
            >>> LogStatistics(np.array([1, 4, 9]), num_items=5).num_rows(4, causal=False)
            6
        """
        length, fewest = (max_length + 1, 2) if causal else (max_length, 1)
        lengths = self.lengths[self.lengths >= fewest]
        if windows == "newest":
            return len(lengths)
        return int(num_windows(lengths, max_length=length, stride=max(1, length // 2)).sum())


@dataclass(frozen=True)
class Effort:
    """How much a recipe spends.

    Args:
        longest: Most tokens that the model reads.
        epochs: Times that the training part is seen.
        fewest_steps, most_steps: Bounds on what these epochs come to.
        hidden_size: Width of the model.
    """

    longest: int
    epochs: int
    fewest_steps: int
    most_steps: int
    hidden_size: int


EFFORTS: dict[RecipeName, Effort] = {
    "fast": Effort(longest=50, epochs=4, fewest_steps=200, most_steps=2_000, hidden_size=64),
    "balanced": Effort(longest=100, epochs=12, fewest_steps=500, most_steps=10_000, hidden_size=64),
    "best": Effort(longest=200, epochs=50, fewest_steps=1_500, most_steps=60_000, hidden_size=128),
}


@dataclass(frozen=True)
class Choice:
    """One setting and why it is as it is."""

    name: str
    value: Any
    reason: str


def choose_settings(
    recipe: RecipeName, log: LogStatistics, given: Mapping[str, Any] = MappingProxyType({})
) -> list[Choice]:
    """The settings of a run on a log.

    Args:
        recipe: How much time is spent: minutes (`fast`), up to an hour (`balanced`) or hours (`best`), on one core.
        log: Its statistics.
        given: Values that the user gave, by flag: a masked model and items made of content want other settings.

    Returns:
        [`Choice`] of each setting, names as the flags of `hfrec pretrain`.

    Example:
        >>> chosen = choose_settings("balanced", LogStatistics(np.full(943, 104), num_items=1678))
        >>> {choice.name: choice.value for choice in chosen}["max_length"]
        100
    """
    effort = EFFORTS[recipe]
    length = next((length for length in LENGTHS if length >= min(log.long_length, effort.longest)), LENGTHS[-1])
    typical = _rows_of_the_mean(log, length)
    batch = 64 if typical < 50_000 else 128
    steps = int(np.clip(effort.epochs * typical / batch, effort.fewest_steps, effort.most_steps))
    chosen = [Choice("objective", "causal", "learns from every item of a history in each step")]
    causal = given.get("objective", "causal" if set(MASKING).isdisjoint(given) else "masked") == "causal"
    if not causal:
        chosen, steps = [], steps * MASKED_STEPS
    chosen.append(Choice("loss_candidates", "unseen", "as in recommending: what a user has is left out"))
    rate = Choice("learning_rate", 2e-3, "starts from the log need no caution")
    if _by_content(given):
        rate = Choice("learning_rate", 1e-3, "content says much from the start")
        steps = min(steps, max(round(steps * CONTENT_STEPS), effort.fewest_steps))
    exact = loss_is_exact(recipe, log, given)
    lengths = f"{log.mean_length:.0f} interactions of a user on average"
    rows = log.num_rows(given.get("max_length") or length, causal=causal, windows=given.get("windows", "overlapping"))
    batches = -(-rows // given.get("per_device_train_batch_size", batch))
    softmax = "the exact loss is worth its time" if exact else "drawn negatives"
    return [
        *chosen,
        Choice("max_length", length, f"nine users of ten have at most {log.long_length:,} interactions"),
        Choice("hidden_size", effort.hidden_size, f"recipe {recipe}"),
        Choice("position_embedding_type", "rotary", "attention starts at the nearest items"),
        Choice("hidden_dropout_prob", _dropout(log.mean_length), lengths),
        Choice("loss", "chunked" if exact else "sampled_softmax", f"{log.num_items:,} items: {softmax}"),
        *_choose_negatives(recipe, log, given),
        Choice("per_device_train_batch_size", batch, f"{rows:,} rows an epoch"),
        rate,
        *choose_budget(steps, f"{steps / batches:.3g} epochs"),
    ]


def loss_is_exact(recipe: RecipeName, log: LogStatistics, given: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether a recipe takes the softmax over all items of a log, in place of drawn negatives.

    Args:
        recipe: As in `choose_settings`.
        log: Its statistics.
        given: Values that the user gave, by flag.

    Example:
        >>> shop = LogStatistics(np.full(22_000, 7), num_items=12_101)
        >>> loss_is_exact("balanced", shop), loss_is_exact("fast", shop)
        (True, False)
    """
    return log.num_items <= (LARGEST_CHEAP_CATALOGUE if _is_cheap(recipe, given) else LARGEST_EXACT_CATALOGUE)


def _choose_negatives(recipe: RecipeName, log: LogStatistics, given: Mapping[str, Any]) -> list[Choice]:
    """Half of the negatives are looked for where the recipe draws them and a search costs less than all scores."""
    searched = log.num_items <= LARGEST_SEARCHED_CATALOGUE and not loss_is_exact(recipe, log, given)
    if not searched or "loss" in given or _is_cheap(recipe, given):
        return []
    return [
        Choice("num_hard_negatives", HARD_NEGATIVES, "highest scores for alike positions, for half of those drawn"),
        Choice("num_negatives", HARD_NEGATIVES, "the other half"),
    ]


def choose_budget(steps: int, reason: str) -> list[Choice]:
    """The settings named in `BUDGET` of a run of so many steps."""
    return [
        Choice("max_steps", steps, reason),
        Choice("warmup_steps", steps // 20, "a twentieth of the steps"),
        Choice("eval_steps", -(-steps // EVALUATIONS), f"{EVALUATIONS} evaluations"),
        Choice("early_stopping_patience", EVALUATIONS // 2, "evaluations: the end of a falling rate brings most"),
    ]


def recipe_defaults(choices: Sequence[Choice], given: Collection[str]) -> dict[str, Any]:
    """Defaults of the flags, from what a recipe chose and what the user gave.

    A budget that the user set, such as a number of epochs, stays whole: none of the recipe's is mixed into it.

    Args:
        choices: Of `choose_settings`.
        given: Names that the user gave.

    Example:
        >>> recipe_defaults([Choice("max_steps", 500, ""), Choice("max_length", 50, "")], {"num_train_epochs"})
        {'max_length': 50}
    """
    own_budget = not set(BUDGET_FLAGS).isdisjoint(given)
    kept = {
        choice.name: choice.value
        for choice in choices
        if choice.name not in given and not (own_budget and choice.name in BUDGET)
    }
    if "eval_steps" in kept:
        steps = dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "steps")
        kept |= {**steps, "save_steps": kept["eval_steps"], "logging_steps": kept["eval_steps"]}
    return kept


def _is_cheap(recipe: RecipeName, given: Mapping[str, Any]) -> bool:
    """Whether a loss takes no more time than it must: for who is in a hurry, and for content, which it serves."""
    return recipe == "fast" or _by_content(given)


def _by_content(given: Mapping[str, Any]) -> bool:
    """Whether items are to be made of their content."""
    return bool(given.get("item_representation", "id") != "id")


def _rows_of_the_mean(log: LogStatistics, length: int) -> float:
    """Rows of an epoch if all histories were of the mean length; windows overlap by half.

    The budget goes by it: few very long histories make many rows, and are no reason to train longer.
    """
    return log.num_users * max(1.0, log.mean_length / (length / 2) - 1)


def _dropout(mean_length: float) -> float:
    """Short histories are learnt by heart, and want more of it."""
    return 0.5 if mean_length < 15 else 0.3 if mean_length < 40 else 0.2
