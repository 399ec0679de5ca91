"""The flags of `hfrec study`. Nothing heavy is imported here: help must not wait for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hfrec.data.arguments import Choice


def _all_arms() -> list[str]:
    from .arms import ARMS

    return list(ARMS)


@dataclass
class StudyArguments:
    """What is carried over, to where, and how much is tried."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint pretrained on the source."})
    source_file: str = field(metadata={"help": "Log of the source, for forgetting and the joint arm."})
    target_file: str = field(metadata={"help": "Log of the target."})
    output_dir: str = field(metadata={"help": "Folder of runs, tables and plots; a study that was cut off goes on."})
    mapping_file: str | None = field(
        default=None, metadata={"help": "CSV whose first column is a source item and whose second a target item."}
    )
    arms: list[str] = field(default_factory=_all_arms, metadata={"help": "Ways of transfer; all of them unless given."})
    fractions: list[float] = field(
        default_factory=lambda: [0.01, 0.05, 0.1, 0.25, 0.5, 1.0], metadata={"help": "Shares of the training users."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Seeds of the final runs."})
    test_fraction: float = field(default=0.4, metadata={"help": "Share of target users that are only tested."})
    validation_fraction: float = field(default=0.1, metadata={"help": "Share that only chooses settings and epochs."})
    max_steps: int = field(default=600, metadata={"help": "Most optimiser steps of a run."})
    batch_size: int = field(default=32, metadata={"help": "Rows of a training step."})
    num_processes: int = field(
        default_factory=lambda: os.cpu_count() or 1, metadata={"help": "Runs at a time, each on one thread."}
    )
    forgetting_users: int = field(default=1000, metadata={"help": "Source users on whom forgetting is measured."})
    tradeoff_fraction: float | None = field(
        default=None, metadata={"help": "Share at which a row of L2-SP strengths is run; left out, none is."}
    )
    filter_seen: Choice = field(
        default="auto",
        metadata={"help": "Whether ranks are without items that a user had; auto measures repeats on validation."},
    )

    def __post_init__(self) -> None:
        unknown = sorted(set(self.arms) - set(_all_arms()))
        if unknown:
            raise ValueError(f"`arms` holds {unknown}, expected some of {', '.join(_all_arms())}.")
        if self.num_processes < 1:
            raise ValueError(f"`num_processes` must be at least 1, found {self.num_processes}.")
        for name, shares in (("fractions", self.fractions), ("tradeoff_fraction", [self.tradeoff_fraction or 1.0])):
            if not all(0.0 < share <= 1.0 for share in shares):
                raise ValueError(f"`{name}` must be in (0, 1], found {shares}.")
