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
    output_dir: str = field(metadata={"help": "Folder that gets eval_results.json and test_ranks.parquet."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    user_column: str = field(default="user_id", metadata={"help": "Column of the user ids."})
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    timestamp_column: str = field(default="timestamp", metadata={"help": "Column of the times."})
    batch_size: int = field(default=256, metadata={"help": "Users scored at a time."})
    fit_prior: bool = field(
        default=False,
        metadata={
            "help": "First fit, on each user's second-last item, how much popularity short histories get; measure it, "
            "and keep it as prior.json in the checkpoint's folder, from where every command reads it."
        },
    )
    segment_column: str | None = field(
        default=None, metadata={"help": "With --fit_prior: column of a user's segment, whose popularity counts."}
    )
    cohorts: bool = field(
        default=False,
        metadata={"help": "Also by history length, cold/warm and head/tail target, repeat/explore."},
    )
    category_column: str | None = field(
        default=None,
        metadata={"help": "Column of the items' categories: how varied the lists are, how well they fit a history."},
    )
    category_separator: str = field(default="|", metadata={"help": "What joins the categories of an item."})


def parse(words: Sequence[str]) -> EvaluateArguments:
    """Flags or a settings file into the dataclass."""
    (arguments,) = parse_arguments("evaluate", (EvaluateArguments,), words)
    return arguments  # type: ignore[no-any-return]


def main(arguments: EvaluateArguments) -> dict[str, Any]:
    """Evaluate, print the table and write `eval_results.json` and `test_ranks.parquet`."""
    from ..data.files import check_folder, whole_files, write_json
    from ..data.interactions import load_interactions
    from ..data.splits import leave_one_out
    from ..evaluation.cold_users import fit_prior, measure_cold_users
    from ..evaluation.protocol import rank_checkpoint, versions
    from ..evaluation.table import cohorts_table, cold_users_table, results_table
    from ..evaluation.user_ranks import RANKS_FILE
    from ..hub.checkpoint import load_checkpoint
    from ..inference.prior import load_prior

    check_folder(Path(arguments.output_dir))
    check_prior(arguments)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    features = None
    if arguments.category_column is not None:
        features = token_categories(tokenizer, arguments.category_column, arguments.category_separator)
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
    fitted = None
    if arguments.fit_prior:
        fitted = fit_prior(
            model, tokenizer, split, segment_column=arguments.segment_column, batch_size=arguments.batch_size
        )
    prior = fitted or load_prior(arguments.model_name_or_path, tokenizer, revision=arguments.revision)
    ranked = rank_checkpoint(model, tokenizer, split, batch_size=arguments.batch_size, prior=prior)
    results = ranked.results(cohorts=arguments.cohorts, features=features)
    results["data"] = {"source": arguments.test_file, "fingerprint": interactions.fingerprint}
    results["model"] = arguments.model_name_or_path
    results["versions"] = versions()
    if fitted is not None:
        results["cold_users"] = measure_cold_users(model, tokenizer, split, fitted, batch_size=arguments.batch_size)
        fitted.save(arguments.model_name_or_path, tokenizer)
    with whole_files(Path(arguments.output_dir)) as draft:
        ranked.user_ranks().save(draft / RANKS_FILE)
        write_json(draft / "eval_results.json", results)
    print(results_table(results))
    if fitted is not None:
        print(cold_users_table(results["cold_users"]))
    if arguments.cohorts:
        print(cohorts_table(results["cohorts"]))
    print(results["verdict"]["text"])
    return results


def token_categories(tokenizer: Any, column: str, separator: str) -> Any:
    """Categories of each token, 0 and 1 `(vocab_size, num_categories)`, from the checkpoint's item metadata.

    Raises:
        ValueError: The items have no such column, or no category in it.
    """
    import numpy as np

    from .content import ContentArguments, read_content

    content = ContentArguments(category_column=column, category_separator=separator)
    known = read_content(tokenizer.items, content)["categories"].numpy()
    return np.pad(known, ((len(tokenizer) - len(known), 0), (0, 0)))


def check_prior(arguments: EvaluateArguments) -> None:
    """Refuse flags of the prior that cannot be followed, before anything is loaded.

    Raises:
        ValueError: A prior to be fitted beside a checkpoint on a hub, or a segment without a prior to be fitted.
    """
    if arguments.fit_prior and not Path(arguments.model_name_or_path).is_dir():
        raise ValueError(
            f"`fit_prior` writes prior.json beside the model, and {arguments.model_name_or_path} is no folder: pull "
            "the checkpoint with `hfrec pull --output_dir` first."
        )
    if arguments.segment_column is not None and not arguments.fit_prior:
        raise ValueError("`segment_column` belongs to `--fit_prior true`: a fitted prior knows its column already.")
