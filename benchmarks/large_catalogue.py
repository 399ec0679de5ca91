"""Memory of the whole `hfrec pretrain` on a catalogue of a million items by stage, beside what `hfrec estimate` says.

OMP_NUM_THREADS=1 python benchmarks/large_catalogue.py --output_dir outputs/large_catalogue [--item_start svd]

The log is synthetic and holds every item at least once. Each command is a process of its own; its peak is the resident
memory that the kernel reports of it, as `/usr/bin/time -v` does.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

COMMAND = [sys.executable, "-c", "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"]
SHAPE = ["--loss", "chunked", "--max_length", "50"]
STAGES = (
    "--stages"  # this script in the process that is measured: the file of the stages, then flags of `hfrec pretrain`
)
Row = dict[str, float]


def write_log(path: Path, users: int, items: int, length: int) -> None:
    """Users of equal histories: all items in random order, then items at random."""
    draw = np.random.default_rng(0)
    size = users * length
    if size < items:
        raise ValueError(f"`users` x `length` must be at least `items`, found {size:,} and {items:,}.")
    drawn = np.concatenate([draw.permutation(items), draw.integers(0, items, size - items)])
    table = {"user_id": np.arange(size) % users, "item_id": drawn, "timestamp": np.arange(size)}
    pl.DataFrame(table).write_csv(path)


def pretrain(words: list[str], stages_file: Path) -> int:
    """`hfrec pretrain` in this process; what is resident, and the most so far, in GB after each stage."""
    from transformers import Trainer

    import hfrec_command
    from hfrec.commands import new_models
    from hfrec.evaluation import protocol, tuning

    stages: dict[str, Row] = {}

    def note(stage: str) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        stages.pop(stage, None)  # the last time counts, and stands behind what came before it
        stages[stage] = {
            "resident": pages * os.sysconf("SC_PAGE_SIZE") / 1e9,
            "peak": usage.ru_maxrss * 1024 / 1e9,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }
        stages_file.write_text(json.dumps(stages), encoding="utf-8")

    def noted(owner: Any, name: str, before: str | None, after: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                note(before)
            result = call(*args, **kwargs)
            note(after.format(*args))
            return result

        setattr(owner, name, wrapped)

    noted(new_models, "start_from_log", "before the start", "start from the log")
    noted(Trainer, "train", "before training", "training, with its evaluations")
    noted(Trainer, "evaluate", None, "last evaluation")
    noted(protocol, "rank_dataset", None, "test of the model")
    noted(tuning, "_tune", None, "{0} tuned")
    noted(protocol, "rank_baseline", None, "test of the baselines")
    code = hfrec_command.main(["pretrain", *words])
    note("whole command")
    return code


def run(command: list[str], log: Path) -> str:
    """What a command prints.

    Raises:
        RuntimeError: It failed; the message ends with what it said.
    """
    with log.open("w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {log.read_text(encoding='utf-8')[-2000:]}")
    return done.stdout


def estimated(items: int, interactions: int, shape: list[str], log: Path) -> float:
    """GB that `hfrec estimate` says of the whole command."""
    sizes = ["--num_items", str(items), "--num_interactions", str(interactions)]
    printed = run([*COMMAND, "estimate", *sizes, *shape], log)
    found = re.search(r"^whole command +([\d,]+) MiB", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"`hfrec estimate` names no whole command: {printed}")
    return int(found[1].replace(",", "")) * 2**20 / 1e9


def table(stages: dict[str, Row], estimate: float) -> str:
    """The stages in Markdown, with the estimate and its ratio to the peak."""
    lines = ["| after | resident, GB | peak so far, GB | CPU s so far |", "|---|---|---|---|"]
    for name, row in stages.items():
        lines.append(f"| {name} | {row['resident']:.2f} | {row['peak']:.2f} | {row['cpu_s']:.0f} |")
    peak = stages["whole command"]["peak"]
    lines.append(f"| `hfrec estimate` | | {estimate:.2f}, {estimate / peak:.2f} of the peak | |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/large_catalogue")
    parser.add_argument("--users", type=int, default=510)
    parser.add_argument("--items", type=int, default=1_020_000)
    parser.add_argument("--length", type=int, default=2000, help="Interactions of a user.")
    parser.add_argument("--max_steps", type=int, default=2)
    parser.add_argument("--item_start", choices=("random", "svd"), default="random")
    options = parser.parse_args()
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log_{options.users}_{options.items}_{options.length}.csv"
    if not log.exists():
        write_log(log, options.users, options.items, options.length)
    name = f"{options.items}_{options.item_start}"
    output, stages_file = folder / f"run_{name}", folder / f"stages_{name}.json"
    shape = [*SHAPE, "--item_start", options.item_start]
    flags = ["--train_file", str(log), "--recipe", "none", "--windows", "newest", *shape]
    flags += ["--output_dir", str(output), "--max_steps", str(options.max_steps)]
    run([sys.executable, __file__, STAGES, str(stages_file), *flags], folder / "pretrain.log")
    items = json.loads((output / "all_results.json").read_text(encoding="utf-8"))["sizes"]["items"]
    estimate = estimated(items, options.users * (options.length - 2), shape, folder / "estimate.log")
    stages = json.loads(stages_file.read_text(encoding="utf-8"))
    text = table(stages, estimate)
    (folder / f"large_catalogue_{name}.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(pretrain(sys.argv[3:], Path(sys.argv[2])) if sys.argv[1:2] == [STAGES] else main())
