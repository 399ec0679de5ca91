"""Entry point of the console command `hfrec`.

It stands outside the package because importing the package loads torch and transformers, and help must not wait for
them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "pretrain": "Train a model on an interaction log.",
    "finetune": "Go on from a checkpoint on another log, held to it by L2-SP.",
    "refresh": "Train a checkpoint on a newer log and judge whether it should take the old one's place.",
    "baseline": "Fit a classical method, or a blend of all of them, on an interaction log.",
    "blend": "Mix trained checkpoints with classical methods.",
    "evaluate": "Rank held-out items of users over the whole catalogue.",
    "compare": "Compare runs, or a run with its baselines, on the same test users.",
    "recommend": "Recommend items for the histories in a file.",
    "app": "Open a page: recommendations, why, and a second checkpoint side by side.",
    "similar": "Find the items that are like others, by id or title.",
    "export": "Write a checkpoint as an ONNX graph that recommends without torch.",
    "serve": "Recommend over HTTP, from a checkpoint or an export.",
    "push": "Push a checkpoint to a hub as one commit.",
    "pull": "Pull a checkpoint from a hub, pinned and checked.",
    "items": "Add, remove or rename items of a checkpoint, or align it with another catalogue.",
    "prepare": "Read, filter and report a log; write it as Parquet.",
    "tune": "Search for better settings of pretrain than the recipe's, on validation.",
    "study": "Compare ways of transfer on ever larger shares of a target's users (of a checkout).",
    "cold_items": "Measure how well items that were never trained are ranked (of a checkout).",
    "estimate": "Estimate the memory of a training run before it starts.",
    "demo": "The whole way on MovieLens-100K.",
    "env": "Print versions and devices.",
}


def usage() -> str:
    """The text of `hfrec --help`."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    head = "usage: hfrec COMMAND [--flags] | COMMAND settings.yaml [--flags]"
    return "\n".join([head, "", *lines, "", "hfrec COMMAND --help shows its flags and examples."])


def main(argv: Sequence[str] | None = None) -> int:
    """Print help, refuse an unknown command, or hand over to `hfrec.commands`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"hfrec: unknown command {words[0]!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # OpenMP reads this when torch loads it: spinning idle threads can slow a step on a busy machine thirty-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from hfrec.commands import run

    return run(words[0], words[1:])


if __name__ == "__main__":  # `accelerate launch --module hfrec_command pretrain …`
    sys.exit(main())
