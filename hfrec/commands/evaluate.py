"""Rank the last item of each user over the whole catalogue.

hfrec evaluate --model_name_or_path out --test_file interactions.csv --output_dir evaluation
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .parsing import parse_arguments


@dataclass
class EvaluateArguments:
    """What is tested on what."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    test_file: str = field(metadata={"help": "Log; the last item of each user is the target, all before it history."})
    output_dir: str = field(metadata={"help": "Folder that gets eval_results.json."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    user_column: str = field(default="user_id", metadata={"help": "Column of the user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    timestamp_column: str = field(default="timestamp", metadata={"help": "Column of the times."})
    batch_size: int = field(default=256, metadata={"help": "Users scored at a time."})
    cohorts: bool = field(
        default=False,
        metadata={"help": "Also by history length, cold/warm and head/tail target, repeat/explore."},
    )


def parse(words: Sequence[str]) -> EvaluateArguments:
    """Flags or a settings file into the dataclass."""
    (arguments,) = parse_arguments("evaluate", (EvaluateArguments,), words)
    return arguments  # type: ignore[no-any-return]


def main(arguments: EvaluateArguments) -> dict[str, Any]:
    """Evaluate, print the table and write `eval_results.json`."""
    from ..data.files import check_folder, write_json
    from ..data.interactions import load_interactions
    from ..data.splits import leave_one_out
    from ..evaluation.protocol import evaluate_checkpoint, versions
    from ..evaluation.table import cohorts_table, results_table
    from ..hub.checkpoint import load_checkpoint

    check_folder(Path(arguments.output_dir))
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    interactions = load_interactions(
        arguments.test_file,
        user_column=arguments.user_column,
        item_column=arguments.item_column,
        timestamp_column=arguments.timestamp_column,
    )
    split = leave_one_out(interactions)
    if len(split.test) == 0:
        raise ValueError(
            f"{arguments.test_file}: every user has one interaction only, so that none is left as history. Give a log "
            "with two or more of each user."
        )
    results = evaluate_checkpoint(model, tokenizer, split, batch_size=arguments.batch_size, cohorts=arguments.cohorts)
    results["data"] = {"source": arguments.test_file, "fingerprint": interactions.fingerprint}
    results["model"] = arguments.model_name_or_path
    results["versions"] = versions()
    write_json(Path(arguments.output_dir) / "eval_results.json", results)
    print(results_table(results))
    if arguments.cohorts:
        print(cohorts_table(results["cohorts"]))
    return results
