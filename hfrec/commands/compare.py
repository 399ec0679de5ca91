"""Compare runs on the same test users, pair by pair, or a run with its own baselines.

hfrec compare masked causal
hfrec compare masked=m1,m2,m3 causal=c1,c2,c3
hfrec compare masked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .lists import check_page
from .parsing import parse_into


@dataclass
class CompareArguments:
    """Finished runs of `hfrec pretrain`, `finetune` or `evaluate`."""

    words: ClassVar[tuple[str, ...]] = ("runs",)

    runs: list[str] = field(
        metadata={
            "help": "Folders of runs; NAME=RUN1,RUN2 pools the seeds of one arm. A single one: its own baselines.",
        }
    )
    output_file: str = field(default="compare.json", metadata={"help": "File of the whole comparison."})
    cohorts: bool = field(default=True, metadata={"help": "Also by history length and by kind of target."})
    n_bootstrap: int = field(default=10000, metadata={"help": "Resamples of users behind each interval."})
    seed: int = field(default=0, metadata={"help": "Seed of the resampling."})
    report: str | None = field(default=None, metadata={"help": "Also a page to look at, such as compare.html."})

    def __post_init__(self) -> None:
        check_page(self.report)


parse = parse_into("compare", CompareArguments)


def main(arguments: CompareArguments) -> dict[str, Any]:
    """Compare, print the tables and write `compare.json`."""
    from ..data.files import write_json
    from ..evaluation.compare import compare_ranks, comparison_table
    from ..evaluation.ranking import PROTOCOLS

    compared = compare_ranks(
        named_arms(arguments.runs),
        cohorts=arguments.cohorts,
        n_bootstrap=arguments.n_bootstrap,
        seed=arguments.seed,
    )
    write_json(Path(arguments.output_file), compared)
    if arguments.report is not None:
        from ..reports.comparison import write_comparison

        write_comparison(Path(arguments.report), compared)
        print(f"Page: {arguments.report}")
    print("\n\n".join([*(comparison_table(compared, setting) for setting in PROTOCOLS), compared["correction"]]))
    return compared


def named_arms(words: Sequence[str]) -> dict[str, list[str]]:
    """Runs by arm, from `RUN` and `NAME=RUN1,RUN2`.

    Raises:
        ValueError: Two arms of one name, or an arm without a run.
    """
    arms: dict[str, list[str]] = {}
    for word in words:
        name, given, runs = word.partition("=")
        paths = [path for path in runs.split(",") if path] if given and not Path(word).exists() else [word]
        name = name if paths != [word] else word
        if not paths or not name:
            raise ValueError(f"`runs` must be folders or NAME=RUN1,RUN2, found {word!r}.")
        if name in arms:
            raise ValueError(f"`runs` names {name!r} twice: pool seeds as NAME=RUN1,RUN2, or give another name.")
        arms[name] = paths
    return arms
