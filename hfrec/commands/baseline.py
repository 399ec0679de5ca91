"""Fit a classical method, or a blend of all of them, on an interaction log: no network, no gradient.

hfrec baseline --method blend --dataset ml-1m --output_dir out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..training.arguments import CardArguments, DataArguments
from .parsing import parse_arguments

CLASSICAL = ("popularity", "recent_popularity", "markov", "item_knn", "ease")


@dataclass
class BaselineArguments:
    """What is fitted, and where it goes."""

    output_dir: str = field(metadata={"help": "New or empty folder of the checkpoint."})
    method: Literal["popularity", "recent_popularity", "markov", "item_knn", "ease", "blend"] = field(
        default="blend", metadata={"help": "One method, or the blend of all."}
    )
    tune: bool = field(default=True, metadata={"help": "Choose the settings on each user's second-last item."})


Arguments = tuple[DataArguments, BaselineArguments, CardArguments]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    data, baseline, card = parse_arguments("baseline", (DataArguments, BaselineArguments, CardArguments), words)
    return data, baseline, card


def main(arguments: Arguments) -> dict[str, Any]:
    """Fit, test and save; returns what `all_results.json` holds."""
    from ..blending.run import fit_parts
    from ..data.files import check_new_folder
    from ..training.run import build_tokenizer, load_split

    data, baseline, card = arguments
    check_new_folder(Path(baseline.output_dir))
    _, split = load_split(data)
    tokenizer = build_tokenizer(split.train)
    methods: Any = CLASSICAL if baseline.method == "blend" else (baseline.method,)
    parts = fit_parts(split, tokenizer, methods, tuned=baseline.tune)
    return finish(parts, tokenizer, split, data=data, card=card, output_dir=baseline.output_dir)


def finish(
    parts: Any, tokenizer: Any, split: Any, *, data: DataArguments, card: CardArguments, output_dir: str
) -> dict[str, Any]:
    """Mix the parts, test them, and write the checkpoint with `all_results.json` and its card."""
    from ..blending.run import describe, measure_blend, mix
    from ..evaluation.protocol import versions
    from ..evaluation.table import results_table
    from ..hub.model_card import write_model_card
    from ..training.facts import split_sizes
    from ..training.run import save_checkpoint, write_json

    blend, fit = mix(parts, tokenizer, split)
    results = {
        **measure_blend(blend, fit, parts, tokenizer=tokenizer, split=split),
        "split": split.report.to_dict(),
        "data": {"source": data.source, "train_fingerprint": split.train.fingerprint},
        "settings": vars(data),
        "sizes": split_sizes(split),
        "versions": versions(),
    }
    folder = Path(output_dir)
    save_checkpoint(blend, tokenizer, folder)
    write_json(folder / "all_results.json", results)
    write_model_card(folder, license=card.license)
    print(results_table(results["test"]))
    print(describe(results))
    print(f"Checkpoint: {folder}")
    return results
