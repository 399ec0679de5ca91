"""Flags, or one YAML or JSON file, into the dataclasses of a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parse_arguments(name: str, classes: Sequence[Any], words: Sequence[str]) -> tuple[Any, ...]:
    """Parse `words` into one instance of each dataclass.

    Args:
        name: Subcommand, for the usage line.
        classes: The dataclasses.
        words: Flags, or a single path that ends in `.yaml`, `.yml` or `.json`.

    Raises:
        ValueError: A value outside its range, a key that no dataclass has, a missing file.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(list(classes), prog=f"hfrec {name}", allow_abbrev=False)
    if len(words) == 1 and Path(words[0]).suffix in (".yaml", ".yml", ".json"):
        if not Path(words[0]).is_file():
            raise FileNotFoundError(f"no settings file at {words[0]}")
        read = parser.parse_json_file if words[0].endswith(".json") else parser.parse_yaml_file
        return tuple(read(words[0]))
    return tuple(parser.parse_args_into_dataclasses(list(words)))
