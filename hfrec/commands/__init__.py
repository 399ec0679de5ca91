"""The subcommands of `hfrec`; each is a module with `parse(words) -> arguments` and `main(arguments) -> results`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..data.locks import locked_folder

REFUSALS = (ValueError, OSError, TypeError, ImportError, FloatingPointError, StrictDataclassError)


def run(name: str, words: Sequence[str]) -> int:
    """Run a subcommand; a refusal is one line on stderr and exit code 1.

    Results may hold an `exit_code` of their own, such as the verdict of `hfrec refresh`.
    """
    module = import_module(f".{name}", __name__)
    try:
        arguments = module.parse(words)
        with locked_folder(_output_folder(arguments)):
            results = module.main(arguments)
    except REFUSALS as error:
        # A strict dataclass names its validator; the refusal itself is the cause.
        reason = (error.__cause__ or error) if isinstance(error, StrictDataclassError) else error
        print(f"hfrec {name}: {' '.join(str(reason).split())}", file=sys.stderr)
        return 1
    return int(results.get("exit_code", 0)) if isinstance(results, dict) else 0


def _output_folder(arguments: Any) -> Path | None:
    """The folder that a command writes, from its dataclass or dataclasses."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    folder = next((part.output_dir for part in parts if hasattr(part, "output_dir")), None)
    return None if folder is None else Path(folder)
