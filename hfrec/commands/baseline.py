"""Fit a classical method, or a blend of all of them, on an interaction log: no network, no gradient.

hfrec baseline interactions.csv --output_dir out
hfrec baseline --method item_knn --dataset ml-1m --output_dir out --final true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..classical.names import METHODS, Method
from ..data.arguments import ProtocolArguments
from ..training.arguments import CardArguments, DataArguments
from .blends import BlendFinalArguments, Whole, finish
from .parsing import parse_arguments


@dataclass
class BaselineArguments:
    """What is fitted, and where it goes."""

    output_dir: str = field(metadata={"help": "New or empty folder of the checkpoint."})
    method: Literal[Method, "blend"] = field(default="blend", metadata={"help": "One method, or the blend of all."})
    tune: bool = field(default=True, metadata={"help": "Choose the settings on each user's second-last item."})


CLASSES = (DataArguments, ProtocolArguments, BaselineArguments, CardArguments, BlendFinalArguments)


class Arguments(NamedTuple):
    """The dataclasses of the command."""

    data: DataArguments
    protocol: ProtocolArguments
    baseline: BaselineArguments
    card: CardArguments
    final: BlendFinalArguments


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    return Arguments(*parse_arguments("baseline", CLASSES, words))


def main(arguments: Arguments) -> dict[str, Any]:
    """Fit, test and save; returns what `all_results.json` holds."""
    from ..blending.run import fit_parts
    from ..data.files import check_new_folder
    from ..training.rows import build_tokenizer, load_split

    data, protocol, baseline, card, final = arguments
    check_new_folder(Path(baseline.output_dir))
    log, split = load_split(data, protocol)
    tokenizer = build_tokenizer(split.train)
    methods = METHODS if baseline.method == "blend" else (baseline.method,)
    parts = fit_parts(split, tokenizer, methods, tuned=baseline.tune)
    whole = Whole(log, build_tokenizer(log), {}) if final.final else None
    return finish(parts, tokenizer, split, whole, arguments=(data, protocol, card), output_dir=baseline.output_dir)
