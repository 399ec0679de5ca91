"""The flags of `hfrec refresh`. Nothing heavy is imported here: help must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.arguments import Choice


@dataclass
class RefreshArguments:
    """The periods of the log, and what the new model may lose."""

    test_start: str = field(metadata={"help": "First time of the next period, on which both models are tested."})
    refresh_start: str | None = field(
        default=None, metadata={"help": "First time of the new period to train on. Default: all before --test_start."}
    )
    test_end: str | None = field(
        default=None, metadata={"help": "First time after the next period. Default: it lasts to the end of the log."}
    )
    context_items: int | None = field(
        default=None, metadata={"help": "Earlier items of a user kept before new ones. Default: half of the length."}
    )
    filter_seen: Choice = field(
        default="auto",
        metadata={
            "help": "Whether the best checkpoint and the verdict are on ranks without items that a user had before; "
            "auto does as the old checkpoint says."
        },
    )
    max_loss: float = field(
        default=0.05, metadata={"help": "Share of its NDCG@10 that a cohort may lose before the old model is kept."}
    )
    min_cohort: int = field(default=100, metadata={"help": "Users below which a cohort does not decide."})
    n_bootstrap: int = field(default=2000, metadata={"help": "Resamples of users behind each interval."})
    tag: str | None = field(
        default=None, metadata={"help": "With --push_to_hub true: tag of the pushed commit, such as the date."}
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_loss <= 1.0:
            raise ValueError(f"`max_loss` must be in [0, 1], found {self.max_loss}.")
        for name, least in (("min_cohort", 1), ("n_bootstrap", 1), ("context_items", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` must be at least {least}, found {value}.")

    @property
    def rule(self) -> str:
        """The rule of the verdict in words."""
        seen = "with" if self.filter_seen == "false" else "without"
        return (
            "Promote, unless the 95 % interval of the difference in NDCG@10 over all users lies below zero, or a "
            f"cohort of at least {self.min_cohort} users loses more than {self.max_loss:.0%} of its NDCG@10 with its "
            f"interval below zero; ranks {seen} items that the user had before."
        )
