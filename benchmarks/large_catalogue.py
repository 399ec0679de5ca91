"""Peak memory of the whole `hfrec pretrain` on a catalogue of a million items, beside what `hfrec estimate` says.

OMP_NUM_THREADS=1 python benchmarks/large_catalogue.py --output_dir outputs/large_catalogue

The log is synthetic and holds every item at least once. Each command is a process of its own; its peak is the resident
memory that the kernel reports of it, as `/usr/bin/time -v` does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

COMMAND = [sys.executable, "-c", "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"]
SHAPE = ["--loss", "chunked", "--item_start", "random", "--max_length", "50"]


def write_log(path: Path, users: int, items: int, length: int) -> None:
    """Users of equal histories: all items in random order, then items at random."""
    draw = np.random.default_rng(0)
    size = users * length
    if size < items:
        raise ValueError(f"`users` x `length` must be at least `items`, found {size:,} and {items:,}.")
    drawn = np.concatenate([draw.permutation(items), draw.integers(0, items, size - items)])
    table = {"user_id": np.arange(size) % users, "item_id": drawn, "timestamp": np.arange(size)}
    pl.DataFrame(table).write_csv(path)


def peak_of(words: list[str], log: Path) -> tuple[str, float, float]:
    """What a command of hfrec prints, its peak resident GB and its CPU seconds.

    Raises:
        RuntimeError: It failed; the message ends with what it said.
    """
    with log.open("w") as errors:
        process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=errors, text=True)
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"`hfrec {' '.join(words)}` failed: {log.read_text(encoding='utf-8')[-2000:]}")
    return output, usage.ru_maxrss * 1024 / 1e9, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/large_catalogue")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=1_020_000)
    parser.add_argument("--length", type=int, default=600, help="Interactions of a user.")
    parser.add_argument("--max_steps", type=int, default=2)
    options = parser.parse_args()
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log_{options.users}_{options.items}_{options.length}.csv"
    if not log.exists():
        write_log(log, options.users, options.items, options.length)
    run = folder / f"run_{options.items}"
    words = ["--train_file", str(log), "--output_dir", str(run), "--recipe", "none", "--windows", "newest"]
    words += ["--max_steps", str(options.max_steps), *SHAPE]
    _, peak, seconds = peak_of(["pretrain", *words], folder / "pretrain.log")
    items = json.loads((run / "all_results.json").read_text(encoding="utf-8"))["sizes"]["items"]
    interactions = options.users * (options.length - 2)
    sizes = ["--num_items", str(items), "--num_interactions", str(interactions)]
    printed, _, _ = peak_of(["estimate", *sizes, *SHAPE], folder / "estimate.log")
    found = re.search(r"^whole command +([\d,]+) MiB", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"`hfrec estimate` names no whole command: {printed}")
    estimate = int(found[1].replace(",", "")) * 2**20 / 1e9
    row = {"items": items, "peak_gb": round(peak, 2), "estimate_gb": round(estimate, 2)}
    row |= {"ratio": round(estimate / peak, 2), "cpu_s": round(seconds)}
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
