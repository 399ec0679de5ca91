"""Items like the ones that are named, by id or by title.

hfrec similar out --titles "Star Wars" --top_k 5
hfrec similar me/films --items 50 181 --output_file similar.csv
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from .parsing import parse_into


@dataclass
class SimilarArguments:
    """The checkpoint and the items to start from."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path",)

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    items: list[str] = field(default_factory=list, metadata={"help": "Item ids."})
    titles: list[str] = field(
        default_factory=list, metadata={"help": "Titles, or words of titles: the item that fits each best."}
    )
    output_file: str | None = field(
        default=None, metadata={"help": "A row a pair: .csv, .parquet or .jsonl. Printed as a table in any case."}
    )
    top_k: int = field(default=10, metadata={"help": "Items for each of them."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})

    def __post_init__(self) -> None:
        if not (self.items or self.titles):
            raise ValueError("Expected items to start from: name ids with `--items` or titles with `--titles`.")


parse = parse_into("similar", SimilarArguments)


def main(arguments: SimilarArguments) -> list[list[dict[str, Any]]]:
    """Find the items, print a table for each and write the file."""
    from ..data.titles import TitleIndex
    from ..hub.checkpoint import load_checkpoint
    from ..inference.similar import similar_items
    from .lists import checked_output, write_rows

    output = None if arguments.output_file is None else checked_output(arguments.output_file)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path, revision=arguments.revision)
    index = TitleIndex.from_table(tokenizer.items)
    items = [*arguments.items, *(best_match(index, title) for title in arguments.titles)]
    found = similar_items(model, tokenizer, items, arguments.top_k)
    for item, rows in zip(items, found, strict=True):
        print(f"like {named(item, index.title_of(item))}:")
        for row in rows:
            print(f"{row['rank']:>4}  {row['score']:.4f}  {named(row['item_id'], row.get('title'))}")
    if output is not None:
        pairs = [{"like": item, **row} for item, rows in zip(items, found, strict=True) for row in rows]
        write_rows(pairs, output)
        print(f"{len(pairs):,} pairs: {output}")
    return found


def best_match(index: Any, title: str) -> str:
    """Id of the item whose title fits best.

    Raises:
        ValueError: No title fits.
    """
    hits = index.search(title, 1)
    if not hits:
        raise ValueError(f"`titles`: no item of the checkpoint is called {title!r}. Try fewer or shorter words.")
    return str(hits[0]["item_id"])


def named(item: str, title: str | None) -> str:
    """An item as a person reads it."""
    return f"{title} ({item})" if title else item
