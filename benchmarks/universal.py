r"""Pretrain a checkpoint by the content of items from open data, as the template of one that fits any catalogue.

python benchmarks/universal.py --output_dir outputs/universal
python benchmarks/universal.py --retail_file retail.csv --retail_items retail_items.csv --output_dir outputs/universal

MovieLens-100K is fetched as `--dataset ml-100k` is; the UCI Online Retail log (user_id, item_id, timestamp; items with
a title) joins it where it is given. Items are the words of their titles and, with `--encoder`, what it makes of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from hfrec.commands.parsing import parse_arguments
from hfrec.commands.pretrain import main as pretrain
from hfrec.commands.pretrain import parse

MOVIES = {"train_file": "ml-100k", "name": "movies", "domain": "films (ratings of 1997-98)"}
RETAIL = {
    "name": "retail",
    "domain": "gifts, wholesale in the United Kingdom (2010-11)",
    "license": "cc-by-4.0",
    "duplicates": "consecutive",
}


@dataclass
class UniversalArguments:
    """Data and encoder."""

    output_dir: str = field(metadata={"help": "New or empty folder of the checkpoint."})
    encoder: str | None = field(default=None, metadata={"help": "Text encoder: a folder or a hub id."})
    retail_file: str | None = field(default=None, metadata={"help": "Log of Online Retail."})
    retail_items: str | None = field(default=None, metadata={"help": "Its items, with a title."})
    recipe: str = field(default="fast", metadata={"help": "fast, balanced or best."})

    def __post_init__(self) -> None:
        if (self.retail_file is None) != (self.retail_items is None):
            raise ValueError("`--retail_file` and `--retail_items` go together: give both or none.")


def main(arguments: UniversalArguments) -> dict[str, Any]:
    """Pretrain; returns what `all_results.json` holds."""
    words = ["--output_dir", arguments.output_dir, "--recipe", arguments.recipe, "--objective", "causal"]
    words += ["--item_representation", "content", "--text_column", "title"]
    words += [] if arguments.encoder is None else ["--encoder", arguments.encoder]
    if arguments.retail_file is None:
        words += ["--train_file", MOVIES["train_file"]]
    else:
        retail = {**RETAIL, "train_file": arguments.retail_file, "items_file": arguments.retail_items}
        words += ["--sources", json.dumps(MOVIES), json.dumps(retail), "--source_temperature", "2"]
    return pretrain(parse(words))


if __name__ == "__main__":
    main(*parse_arguments("universal", (UniversalArguments,), sys.argv[1:]))
