"""The console command `hfrec`; each subcommand is a module with `main(arguments) -> results`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from huggingface_hub.errors import StrictDataclassError

COMMANDS = {
    "pretrain": "Train a model on an interaction log.",
    "finetune": "Go on from a checkpoint on another log, held to it by L2-SP.",
    "evaluate": "Rank the last item of each user over the whole catalogue.",
    "recommend": "Recommend items for the histories in a file.",
    "prepare": "Read, filter and report a log; write it as Parquet.",
    "demo": "The whole way on MovieLens-100K.",
    "env": "Print versions and devices.",
}


def usage() -> str:
    """The text of `hfrec --help`."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return "\n".join(
        [
            "usage: hfrec COMMAND [--flags | settings.yaml | settings.json]",
            "",
            *lines,
            "",
            "hfrec COMMAND --help lists its flags.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; a refusal is one line on stderr and exit code 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"hfrec: unknown command {words[0]!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = import_module(f".{words[0]}", __name__)
    try:
        module.main(module.parse(words[1:]))
    except (ValueError, OSError, TypeError, FloatingPointError, StrictDataclassError) as error:
        print(f"hfrec {words[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
