"""The flags of the split and of repeats. Nothing is imported here: help must not wait for a library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Choice = Literal["auto", "true", "false"]
TEMPORAL_FLAGS = ("validation_start", "test_start", "validation_ratio", "test_ratio")


@dataclass
class SplitArguments:
    """How the log is divided into training, validation and test."""

    protocol: Literal["leave_one_out", "temporal", "user_ratio"] = field(
        default="leave_one_out",
        metadata={
            "help": "Each user's last two items are held out, or everything from one time on, or the newest share of "
            "each user."
        },
    )
    validation_start: str | None = field(
        default=None, metadata={"help": "temporal: first time of validation. Default: by --validation_ratio."}
    )
    test_start: str | None = field(
        default=None, metadata={"help": "temporal: first time of the test. Default: by --test_ratio."}
    )
    validation_ratio: float | None = field(
        default=None,
        metadata={"help": "Share, of all interactions or of each user's, before the test; 0.1 if left out."},
    )
    test_ratio: float | None = field(
        default=None,
        metadata={"help": "Share, of all interactions or of each user's, the newest; 0.1 if left out."},
    )

    def __post_init__(self) -> None:
        own = {"temporal": TEMPORAL_FLAGS, "user_ratio": TEMPORAL_FLAGS[2:]}.get(self.protocol, ())
        given = [name for name in TEMPORAL_FLAGS if getattr(self, name) is not None and name not in own]
        if given:
            flags = ", ".join(f"`{name}`" for name in given)
            needed = "temporal" if given[0].endswith("start") else "temporal` or `user_ratio"
            raise ValueError(f"{flags} need `--protocol {needed}`, found {self.protocol}: add it or leave them out.")
        for part in ("validation", "test"):
            start, ratio = getattr(self, f"{part}_start"), getattr(self, f"{part}_ratio")
            if start is not None and ratio is not None:
                raise ValueError(f"`{part}_start` and `{part}_ratio` say the same twice: give one of them.")
            if ratio is not None and not 0.0 < ratio < 1.0:
                raise ValueError(f"`{part}_ratio` must lie in (0, 1), found {ratio}.")


@dataclass
class ProtocolArguments(SplitArguments):
    """The split, and whether items that a user had are left out."""

    filter_seen: Choice = field(
        default="auto",
        metadata={
            "help": "Whether items of the history are left out where the best checkpoint is chosen and items are "
            "recommended. auto: training measures repeats on validation; evaluating does as the checkpoint says."
        },
    )
