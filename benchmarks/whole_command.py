"""CPU seconds of a whole `hfrec pretrain` by part; the flags are those of the command.

OMP_NUM_THREADS=1 python benchmarks/whole_command.py interactions.csv --output_dir out --max_length 50 \\
  --num_train_epochs 20 --early_stopping_patience 0 --windows newest --recipe none --item_start random

With the folder of another revision in PYTHONPATH, it is that one which is measured.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if "PYTHONPATH" not in os.environ:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hfrec_command

PARTS = {
    "train": "train",
    "training_step": "steps",
    "evaluation_loop": "evaluations",
    "_save_checkpoint": "checkpoints",
}


def timed(name: str, label: str, seconds: dict[str, float]) -> None:
    """Add the CPU time of a method of the Trainer to `seconds`."""
    from transformers import Trainer  # after hfrec, as the command itself loads it

    method = getattr(Trainer, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        begin = time.process_time()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[label] = seconds.get(label, 0.0) + time.process_time() - begin

    setattr(Trainer, name, call)


def main() -> int:
    import hfrec.commands.pretrain  # what the command imports counts as imports
    import hfrec.training.trainer  # noqa: F401

    seconds = {"imports": time.process_time()}
    for name, label in PARTS.items():
        timed(name, label, seconds)
    code = hfrec_command.main(["pretrain", *sys.argv[1:]])
    seconds["whole"] = time.process_time()
    print(json.dumps({name: round(value, 2) for name, value in seconds.items()}), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
