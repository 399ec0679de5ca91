"""Rank the last item of each user, or the first from a point in time on, over the whole catalogue.

hfrec evaluate out interactions.csv --output_dir evaluation
hfrec evaluate me/films interactions.csv --output_dir evaluation --cohorts true
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..data.arguments import TEMPORAL_FLAGS, ProtocolArguments
from .columns import LogFlags
from .content import OtherItemsFlags, over_to_items
from .lists import check_page
from .parsing import parse_arguments

if TYPE_CHECKING:
    from ..data.splits import Split


@dataclass
class EvaluateArguments(OtherItemsFlags, LogFlags):
    """What is tested on what."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path", "test_file")

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    test_file: str = field(metadata={"help": "Log; --protocol says which items are the targets."})
    output_dir: str = field(metadata={"help": "Folder that gets eval_results.json and test_ranks.parquet."})
    min_user_interactions: int | None = field(
        default=None, metadata={"help": "Users with fewer are dropped (k-core). Default: as in training."}
    )
    min_item_interactions: int | None = field(
        default=None, metadata={"help": "Items with fewer are dropped (k-core). Default: as in training."}
    )
    batch_size: int = field(default=256, metadata={"help": "Users scored at a time."})
    fit_prior: bool = field(
        default=False,
        metadata={
            "help": "First fit, on the validation targets, how much popularity empty histories get; measure it, "
            "and keep it as prior.json in the checkpoint's folder, from where every command reads it."
        },
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
    report: str | None = field(
        default=None, metadata={"help": "Also a page to look at, such as report.html; it names test users and items."}
    )

    def __post_init__(self) -> None:
        check_page(self.report)


def parse(words: Sequence[str]) -> tuple[EvaluateArguments, ProtocolArguments]:
    """Flags or a settings file into the dataclasses."""
    arguments, protocol = parse_arguments("evaluate", (EvaluateArguments, ProtocolArguments), words)
    return arguments, protocol


def main(words: tuple[EvaluateArguments, ProtocolArguments]) -> dict[str, Any]:
    """Evaluate, print the table and write `eval_results.json` and `test_ranks.parquet`."""
    from ..data.files import check_folder, sealed_files, write_json
    from ..data.repeats import chosen_filter
    from ..data.splits import split_facts
    from ..data.temporal import split_log
    from ..evaluation.cold_users import fit_prior, measure_cold_users
    from ..evaluation.protocol import rank_checkpoint, versions
    from ..evaluation.table import cohorts_table, cold_users_table, results_table
    from ..evaluation.user_ranks import RANKS_FILE
    from ..hub.checkpoint import load_checkpoint, read_results
    from ..hub.log_shape import load_log_like, log_shape
    from ..inference.prior import load_prior

    arguments, protocol = words
    check_folder(Path(arguments.output_dir))
    if (Path(arguments.output_dir) / "all_results.json").exists():
        raise ValueError(
            f"`output_dir` {arguments.output_dir} holds a finished run, whose {RANKS_FILE} would be lost: choose "
            "another folder."
        )
    check_prior(arguments)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    shape = log_shape(arguments.model_name_or_path, arguments, revision=arguments.revision)
    tokenizer = over_to_items(model, tokenizer, arguments, item_column=shape["item_column"])
    features = None
    if arguments.category_column is not None:
        features = token_categories(tokenizer, arguments.category_column, arguments.category_separator)
    interactions = load_log_like(arguments.test_file, shape, arguments)
    trained = read_results(arguments.model_name_or_path, revision=arguments.revision).get("split", {})
    split = split_log(interactions, as_trained(protocol, trained))
    warn_of_leak(split, trained)
    if len(split.test) == 0:
        raise ValueError(
            f"{arguments.test_file}: every user has one interaction only, so that none is left as history. Give a log "
            "with two or more of each user."
        )
    fitted = None
    if arguments.fit_prior:
        fitted = fit_prior(model, tokenizer, split, batch_size=arguments.batch_size)
    prior = fitted or load_prior(arguments.model_name_or_path, tokenizer, revision=arguments.revision)
    ranked = rank_checkpoint(
        model,
        tokenizer,
        split,
        batch_size=arguments.batch_size,
        prior=prior,
        filter_seen=chosen_filter(protocol.filter_seen, model.config),
    )
    page = ranked.results(cohorts=arguments.cohorts or arguments.report is not None, features=features)
    results = page if arguments.cohorts else {name: value for name, value in page.items() if name != "cohorts"}
    results["split"] = split_facts(split)
    results["data"] = {"source": arguments.test_file, "fingerprint": interactions.fingerprint}
    results["model"] = arguments.model_name_or_path
    results["versions"] = versions()
    if fitted is not None:
        results["cold_users"] = measure_cold_users(model, tokenizer, split, fitted, batch_size=arguments.batch_size)
        fitted.save(arguments.model_name_or_path, tokenizer)
    with sealed_files(Path(arguments.output_dir)) as draft:
        ranked.user_ranks().save(draft / RANKS_FILE)
        write_json(draft / "eval_results.json", results)
    if arguments.report is not None:
        from ..reports.evaluation import write_evaluation

        write_evaluation(Path(arguments.report), {**results, **page}, ranked, tokenizer)
    print(results_table(results))
    if fitted is not None:
        print(cold_users_table(results["cold_users"]))
    if arguments.cohorts:
        print(cohorts_table(results["cohorts"]))
    if arguments.report is not None:
        print(f"Page: {arguments.report}")
    print(results["verdict"]["text"])
    return results


def as_trained(protocol: ProtocolArguments, trained: Mapping[str, Any]) -> ProtocolArguments:
    """The flags, a split without starts and ratios being the one that the checkpoint was trained under.

    A share of this log need not be the share of the log as it was filtered for training.

    Args:
        protocol: The flags.
        trained: `split` of the checkpoint's results.
    """
    if any(getattr(protocol, name) is not None for name in TEMPORAL_FLAGS):
        return protocol
    if protocol.protocol == "user_ratio" and trained.get("strategy") == "user_ratio":
        ratios: dict[str, Any] = {name: trained.get(name) for name in TEMPORAL_FLAGS[2:]}
        return replace(protocol, **ratios)
    if protocol.protocol != "temporal":
        return protocol
    starts = [None if trained.get(name) is None else str(trained[name]) for name in TEMPORAL_FLAGS[:2]]
    if None not in starts:
        print(f"The checkpoint's own starts are taken: {starts[0]}, {starts[1]}.", file=sys.stderr)
    return replace(protocol, validation_start=starts[0], test_start=starts[1])


def warn_of_leak(split: Split, trained: Mapping[str, Any]) -> None:
    """Say where a checkpoint was trained under another split: on the same log it may have seen the targets."""
    from transformers.utils import logging

    report = split.report
    until, start = trained.get("validation_start"), report.test_start
    if trained.get("strategy") in (None, report.strategy) and until is None:
        if all(trained.get(name) == getattr(report, name) for name in TEMPORAL_FLAGS[2:]):
            return
        ratios = [trained.get(name) for name in TEMPORAL_FLAGS[2:]]
        until = f"all but {ratios[0]} and {ratios[1]} of each user"
    if isinstance(start, str) and isinstance(until, str) and until <= start:
        return
    if isinstance(start, (int, float)) and isinstance(until, (int, float)) and until <= start:
        return
    logging.get_logger(__name__).warning(
        f"the checkpoint was trained under {trained.get('strategy')} (until {until or 'the end'}) and is tested under "
        f"{report.strategy} (from {start or 'each last item'}): on the same log it has seen some of the targets. Test "
        "it under the split that it was trained under, or on a log that it does not know."
    )


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
    """Refuse a prior to be fitted that cannot be kept, before anything is loaded.

    Raises:
        ValueError: The checkpoint lies on a hub.
    """
    if arguments.fit_prior and not Path(arguments.model_name_or_path).is_dir():
        raise ValueError(
            f"`fit_prior` writes prior.json beside the model, and {arguments.model_name_or_path} is no folder: pull "
            "the checkpoint with `hfrec pull --output_dir` first."
        )
