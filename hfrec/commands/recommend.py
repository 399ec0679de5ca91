"""Recommend items for the histories in a file.

hfrec recommend out interactions.csv --output_file recommendations.csv
hfrec recommend me/films interactions.csv --output_file lists.jsonl --top_k 20 --filter_seen false
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from .columns import LogFlags
from .content import OtherItemsFlags, over_to_items
from .lists import checked_output, write_rows
from .parsing import parse_into

RECALL_USERS = 1000  # on whom an approximate index is compared with the exact lists


@dataclass
class RecommendArguments(OtherItemsFlags, LogFlags):
    """Whose histories, how many items, and where they go."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path", "history_file")

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    history_file: str = field(metadata={"help": "Log of the users to recommend for."})
    output_file: str = field(metadata={"help": "Recommendations: .csv, .parquet, .jsonl or .json."})
    users_file: str | None = field(
        default=None,
        metadata={"help": "Users to recommend for; those without a history in history_file have an empty one."},
    )
    top_k: int = field(default=10, metadata={"help": "Items a user."})
    allow_file: str | None = field(
        default=None, metadata={"help": "Only these items: a table with the column of the item ids, or a .txt of ids."}
    )
    deny_file: str | None = field(default=None, metadata={"help": "None of these items; a file like --allow_file."})
    diversity: float = field(
        default=0.0, metadata={"help": "From 0 to 1: how much less items count that are like those above (MMR)."}
    )
    popularity: float = field(
        default=0.0, metadata={"help": "From -1, items that few know, to 1, popular ones; 0 leaves it to the model."}
    )
    approximate: bool = field(
        default=False, metadata={"help": "Search an index in place of scoring every item; its recall is printed."}
    )
    num_probes: int = field(default=16, metadata={"help": "Cells of the index looked into (--approximate)."})
    filter_seen: Literal["auto", "true", "false"] = field(
        default="auto", metadata={"help": "Leave out the items of the history; auto does as the checkpoint says."}
    )
    escape_formulas: bool = field(
        default=False, metadata={"help": "In .csv, put ' before text that a spreadsheet would calculate (=, +, -, @)."}
    )
    unknown_items: Literal["error", "drop", "unk"] = field(
        default="drop",
        metadata={"help": "Items that the checkpoint does not know are left out and counted (drop), refused or [UNK]."},
    )
    now: str | None = field(
        default=None,
        metadata={
            "help": "Time of the request, as the log writes times, for a checkpoint that reads time gaps. Default: "
            "unknown."
        },
    )


parse = parse_into("recommend", RecommendArguments)


def main(arguments: RecommendArguments) -> list[list[dict[str, Any]]]:
    """Recommend for every user of the file and write one row a recommendation.

    Under `accelerate launch` every process takes its share of the users, and the first writes the file.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from ..data.interactions import histories_of
    from ..data.repeats import chosen_filter
    from ..hub.checkpoint import load_checkpoint
    from ..hub.log_shape import load_log_like, log_shape
    from ..inference.prior import load_prior
    from ..inference.recommend import recommend
    from ..inference.rerank import check_wishes, pool_size

    check_wishes(arguments.diversity, arguments.popularity)
    output = checked_output(arguments.output_file)
    check_overwrites(output, arguments)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    shape = log_shape(arguments.model_name_or_path, arguments, revision=arguments.revision)
    tokenizer = over_to_items(model, tokenizer, arguments, item_column=shape["item_column"])
    interactions = load_log_like(arguments.history_file, shape, arguments)
    users, histories = histories_of(interactions.table)
    if arguments.users_file is not None:
        known = dict(zip(users, histories, strict=True))
        users = list(dict.fromkeys(read_users(arguments.users_file, shape["user_column"])))
        histories = [known.get(user, []) for user in users]
    prior = load_prior(arguments.model_name_or_path, tokenizer, revision=arguments.revision)
    if arguments.unknown_items == "drop":
        histories = drop_unknown(histories, tokenizer)
        if prior is None and not arguments.approximate:
            prior = popular_for_empty(histories, model, tokenizer)
    rows = requests_of(interactions, users, histories, model, tokenizer, arguments)
    state = PartialState(cpu=not torch.cuda.is_available())
    bounds = (len(users) * place // state.num_processes for place in (state.process_index, state.process_index + 1))
    mine = slice(*bounds)
    filter_seen = chosen_filter(arguments.filter_seen, model.config)
    options: Any = {"filter_seen": filter_seen, "unknown_items": arguments.unknown_items}
    for name in ("allow", "deny"):
        source = getattr(arguments, f"{name}_file")
        if source is not None:
            options[name] = listed_items(source, shape["item_column"], tokenizer, f"--{name}_file")
    reranks = bool(arguments.diversity or arguments.popularity)
    allowed = set(options.get("allow", tokenizer.items["item_id"].to_pylist())) - set(options.get("deny", ()))
    number = pool_size(arguments.top_k, len(allowed)) if reranks else arguments.top_k
    if arguments.approximate:
        pool = replace(arguments, top_k=number)
        found = approximate(model, tokenizer, rows[mine], pool, prior, options)
    else:
        model.to(state.device)
        asked = model if prior is None else prior.over(model)
        found = recommend(asked, tokenizer, rows[mine], number, **options)
    if reranks:
        found = reranked(found, model, tokenizer, arguments)
    found = list(gather_object(found))
    # A process that ends while its threads still serve the group may abort.
    state.wait_for_everyone()
    state.destroy_process_group()
    if not state.is_main_process:
        return found
    lines = [{"user_id": user, **item} for user, items in zip(users, found, strict=True) for item in items]
    write_rows(lines, output, escape_formulas=arguments.escape_formulas)
    print(f"{len(lines):,} recommendations for {len(users):,} users: {output}")
    return found


def requests_of(
    interactions: Any, users: list[str], histories: list[list[str]], model: Any, tokenizer: Any, arguments: Any
) -> list[Any]:
    """What `recommend` takes: the histories or, of a model that reads more than items, rows with its inputs.

    Raises:
        ValueError: `now` for a checkpoint that reads no times, or a column that the log lacks.
    """
    from ..data.inputs import inputs_of
    from ..data.sequences import to_requests

    inputs = inputs_of(model) or []
    if arguments.now is not None and not any(entry["kind"] == "time" for entry in inputs):
        raise ValueError(
            "`now` is for a checkpoint that reads times (`hfrec pretrain --inputs time_gap`), and this one does not: "
            "leave it out."
        )
    if not inputs:
        return histories
    options: Any = {"inputs": inputs, "now": arguments.now, "unknown": arguments.unknown_items}
    rows: list[Any] = to_requests(interactions, tokenizer, users, **options).to_list()
    return rows


def reranked(found: Any, model: Any, tokenizer: Any, arguments: RecommendArguments) -> list[list[dict[str, Any]]]:
    """The wanted number of items of longer lists, by the wishes for diversity and popularity."""
    from ..inference.rerank import rerank
    from ..inference.vectors import item_vectors

    wishes: Any = {"diversity": arguments.diversity, "popularity": arguments.popularity}
    vectors = item_vectors(model) if arguments.diversity else None
    return rerank(found, tokenizer, arguments.top_k, vectors=vectors, **wishes)


def drop_unknown(histories: Sequence[Sequence[str]], tokenizer: Any) -> list[list[str]]:
    """Histories without the items that the checkpoint does not know, which are counted on stderr.

    Raises:
        ValueError: No item of any history is known.
    """
    known = set(tokenizer.items["item_id"].to_pylist())
    kept = [[item for item in history if item in known] for history in histories]
    left_out = [item for history in histories for item in history if item not in known]
    if left_out and not any(kept):
        raise ValueError(
            f"`history_file` holds {len(left_out):,} interactions, and no item of them is the checkpoint's, such as "
            f"{left_out[0]!r}: is it of another catalogue, or does `item_column` name another column? "
            "`--unknown_items unk` ranks all the same."
        )
    if left_out:
        print(
            f"{len(set(left_out)):,} items of the histories are not the checkpoint's: {len(left_out):,} interactions "
            "with them are left out (`--unknown_items error` refuses them).",
            file=sys.stderr,
        )
    return kept


def listed_items(source: str, item_column: str, tokenizer: Any, flag: str) -> list[str]:
    """Item ids of a table, or of the lines of a text file; those that the checkpoint does not know are told on stderr.

    Raises:
        ValueError: No such column, several files, or no item that the checkpoint knows.
    """
    from ..data.validation import read_ids

    if Path(source).suffix == ".txt":
        ids = [line.strip() for line in Path(source).read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        ids = read_ids(source, item_column, "item_id", name=flag)[0].to_pylist()
    known = set(tokenizer.items["item_id"].to_pylist())
    kept = [item for item in dict.fromkeys(ids) if item in known]
    if not kept:
        raise ValueError(f"`{flag}` {source} names no item of the checkpoint: is it of another catalogue?")
    if len(kept) < len(set(ids)):
        print(f"{len(set(ids)) - len(kept):,} items of {flag} are not the checkpoint's and left out.", file=sys.stderr)
    return kept


def popular_for_empty(histories: Sequence[Sequence[str]], model: Any, tokenizer: Any) -> Any:
    """Popularity for users of whom nothing is known, where a causal model can say nothing; None where not needed."""
    from ..data.collators import objective_of
    from ..inference.prior import PopularityPrior, item_counts

    empty = sum(not history for history in histories)
    if not empty or objective_of(model) != "causal" or "count" not in tokenizer.items.column_names:
        return None
    counts = item_counts(tokenizer)
    given = "what is popular" if counts.any() else "the first items of the catalogue, of which no popularity is known"
    print(f"{empty:,} users have no item that the checkpoint knows: they get {given}.", file=sys.stderr)
    return PopularityPrior(counts)


def check_overwrites(output: Path, arguments: RecommendArguments) -> None:
    """Refuse an output file that is one of those that are read.

    Raises:
        ValueError: With what would be lost.
    """
    from ..data.readers import find_files

    if not output.exists():
        return
    for name in ("history_file", "users_file", "items_file"):
        source = getattr(arguments, name)
        if source is not None and any(output.samefile(file) for file in find_files(source)):
            raise ValueError(f"`output_file` {output} is the `{name}`, which would be lost: name another file.")


def approximate(
    model: Any, tokenizer: Any, histories: Any, arguments: RecommendArguments, prior: Any, options: Any
) -> list[list[dict[str, Any]]]:
    """Recommend by an index, and print what it misses of the exact lists on some of the users."""
    from ..inference.index import ItemIndex

    if prior is not None:
        raise ValueError("`approximate` knows no prior, and the checkpoint has one: remove its prior.json.")
    if {"allow", "deny"} & set(options):
        raise ValueError("`approximate` searches all items: leave it out, or leave out `allow_file` and `deny_file`.")
    index = ItemIndex(model, tokenizer, num_probes=arguments.num_probes)
    measured = index.recall(histories[:RECALL_USERS], arguments.top_k, **options)
    print(
        f"recall@{arguments.top_k} of the index: {measured['recall']:.4f} on {min(len(histories), RECALL_USERS):,} "
        f"users, {measured['index_seconds']:.2f} s against {measured['exact_seconds']:.2f} s"
    )
    return index.recommend(histories, arguments.top_k, **options)


def read_users(source: str, user_column: str) -> list[str]:
    """The ids of one file of users.

    Raises:
        ValueError: Several files, no such column, or a null id.
    """
    from ..data.validation import read_ids

    ids: list[str] = read_ids(source, user_column, name="users_file")[0].to_pylist()
    return ids
