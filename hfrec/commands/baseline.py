"""Fit a classical method, or a blend of all of them, on an interaction log: no network, no gradient.

hfrec baseline interactions.csv --output_dir out
hfrec baseline --method item_knn --dataset ml-1m --output_dir out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.arguments import ProtocolArguments
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


Arguments = tuple[DataArguments, ProtocolArguments, BaselineArguments, CardArguments]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    classes = (DataArguments, ProtocolArguments, BaselineArguments, CardArguments)
    data, protocol, baseline, card = parse_arguments("baseline", classes, words)
    return data, protocol, baseline, card


def main(arguments: Arguments) -> dict[str, Any]:
    """Fit, test and save; returns what `all_results.json` holds."""
    from ..blending.run import fit_parts
    from ..data.files import check_new_folder
    from ..training.rows import build_tokenizer, load_split

    data, protocol, baseline, card = arguments
    check_new_folder(Path(baseline.output_dir))
    _, split = load_split(data, protocol)
    tokenizer = build_tokenizer(split.train)
    methods: Any = CLASSICAL if baseline.method == "blend" else (baseline.method,)
    parts = fit_parts(split, tokenizer, methods, tuned=baseline.tune)
    return finish(parts, tokenizer, split, arguments=(data, protocol, card), output_dir=baseline.output_dir)


def finish(
    parts: Any,
    tokenizer: Any,
    split: Any,
    *,
    arguments: tuple[DataArguments, ProtocolArguments, CardArguments],
    output_dir: str,
) -> dict[str, Any]:
    """Mix the parts, test them, and write the checkpoint with its results, its users' ranks and its card."""
    from ..blending.run import describe, measure_blend, mix
    from ..data.files import whole_files, write_json
    from ..data.sequences import to_evaluation_sequences
    from ..data.splits import split_facts
    from ..evaluation.protocol import versions
    from ..evaluation.table import results_table
    from ..evaluation.user_ranks import RANKS_FILE
    from ..hub.model_card import write_model_card
    from ..training.facts import log_sizes
    from ..training.run import save_checkpoint
    from ..training.seen import decide_seen_items

    data, protocol, card = arguments
    validation = to_evaluation_sequences(split.train, split.validation_targets, tokenizer)
    seen = decide_seen_items(validation, protocol)
    blend, fit = mix(parts, tokenizer, validation, filter_seen=seen["seen_items"]["filter_seen"])
    test, report = measure_blend(blend, fit, parts, tokenizer=tokenizer, split=split)
    results = {
        "test": test.results(),
        "blend": report,
        "split": split_facts(split),
        "data": {"source": data.source, "train_fingerprint": split.train.fingerprint},
        "settings": vars(data),
        "sizes": log_sizes(split.train),
        "versions": versions(),
        **seen,
    }
    folder = Path(output_dir)
    with whole_files(folder) as draft:
        save_checkpoint(blend, tokenizer, draft)
        test.user_ranks().save(draft / RANKS_FILE)
        write_json(draft / "all_results.json", results)
        write_model_card(draft, license=card.license, name=folder.resolve().name)
    print(results_table(results["test"]))
    print(describe(report))
    print(f"Checkpoint: {folder}")
    if "verdict" in results["test"]:
        print(results["test"]["verdict"]["text"])
    return results
