"""The subcommands of `hfrec`; each is a module with `parse(words) -> arguments` and `main(arguments) -> results`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from huggingface_hub.errors import StrictDataclassError

REFUSALS = (ValueError, OSError, TypeError, FloatingPointError, StrictDataclassError)


def run(name: str, words: Sequence[str]) -> int:
    """Run a subcommand; a refusal is one line on stderr and exit code 1."""
    module = import_module(f".{name}", __name__)
    try:
        module.main(module.parse(words))
    except REFUSALS as error:
        print(f"hfrec {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
