"""Whether a step, a request, an evaluation, an import or help became slower than what is committed.

OMP_NUM_THREADS=1 python benchmarks/guard.py            # `make bench-guard`: exit code 1 above 15 %
OMP_NUM_THREADS=1 python benchmarks/guard.py --write true

CPU time on another or a busy machine says little, so each figure is a ratio: to plain products of the width of the
model that are timed in turn with it, and for imports and help to `import torch`. Of the rounds the fastest count, as
other work only slows down; what seems slower is measured again, up to three times in all, and the fastest of all rounds
counts. `guard.json` holds the committed ratios, the fastest of as many.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hfrec import (
    Bert4RecConfig,
    Bert4RecForMaskedLM,
    DataCollatorForMaskedItems,
    DataCollatorForNextItem,
    ItemTokenizer,
    rank_dataset,
    recommend,
)
from hfrec.commands.parsing import parse_arguments

COMMITTED = Path(__file__).with_suffix(".json")
ROOT = COMMITTED.parents[1]
MARGIN, PASSES = 0.15, 3
HELPS = 6  # times that the short process of help runs in a round
ITEMS, LENGTH, USERS = 3000, 50, 512
Times = defaultdict[str, list[float]]  # CPU seconds of each round, by name
PROCESSES = {
    "import of config, data and tokenizer": "from hfrec import Bert4RecConfig, ItemTokenizer, load_interactions",
    "import of a model": "from hfrec import Bert4RecForMaskedLM",
    "help of pretrain": "from hfrec_command import main; main(['pretrain', '--help'])",
}


@dataclass
class GuardArguments:
    """What is compared and how often."""

    rounds: int = field(default=15, metadata={"help": "Rounds of the calls in this process."})
    imports: int = field(default=3, metadata={"help": "Rounds of the imports, each a process of its own."})
    write: bool = field(default=False, metadata={"help": "Write guard.json in place of comparing with it."})


def main(arguments: GuardArguments) -> int:
    """Measure, print the table, and compare or write; returns the exit code."""
    calls, times = {"product": product(), **model_calls()}, Times(list)
    committed = {} if arguments.write else json.loads(COMMITTED.read_text(encoding="utf-8"))
    for _ in range(PASSES):
        time_calls(times, calls, arguments.rounds)
        time_processes(times, arguments.imports)
        ratios = ratios_of(times)
        slower = [] if arguments.write else slower_than(committed, ratios)
        if not slower and not arguments.write:
            break
    if arguments.write:
        COMMITTED.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(ratios, indent=2))
        return 0
    for name, ratio in ratios.items():
        print(f"{name:<40}{ratio:>9.3f}{committed[name]:>9.3f}{'  SLOWER' if name in slower else ''}")
    return 1 if slower else 0


def slower_than(committed: dict[str, float], ratios: dict[str, float]) -> list[str]:
    """Names of what is more than the margin above its committed ratio.

    Raises:
        ValueError: One of the two lacks a name.
    """
    if committed.keys() != ratios.keys():
        raise ValueError(f"guard.json holds {sorted(committed)}, measured {sorted(ratios)}: write it anew.")
    return [name for name, ratio in ratios.items() if ratio > committed[name] * (1 + MARGIN)]


def ratios_of(times: Times) -> dict[str, float]:
    """CPU time of each over that of the product, or of processes over that of `import torch`, the fastest of both."""
    least = {name: min(found) for name, found in times.items()}
    return {
        name: round(value / least["torch" if name in PROCESSES else "product"], 4)
        for name, value in least.items()
        if name not in ("product", "torch")
    }


def time_calls(times: Times, calls: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Add the CPU seconds of each call in so many rounds, all in turn."""
    for number in range(rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            if number:  # the first round warms up
                times[name].append(time.process_time() - begin)


def product() -> Callable[[], Any]:
    """Products of 6,400 x 64 with 64 x 256 and back, in place: machines and loads slow them down as they do a model."""
    random = torch.Generator().manual_seed(0)
    tokens, widen, back = (torch.rand(shape, generator=random) for shape in ((6400, 64), (64, 256), (256, 64)))
    wide, narrow = torch.empty(6400, 256), torch.empty(6400, 64)

    def call() -> None:
        for _ in range(8):
            torch.mm(tokens, widen, out=wide).sigmoid_()
            torch.mm(wide, back, out=narrow)

    return call


def model_calls() -> dict[str, Callable[[], Any]]:
    """What is guarded, on a model and histories drawn with a fixed seed."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    tokenizer = ItemTokenizer.from_items([str(item) for item in range(ITEMS)])
    rows = [random.integers(3, ITEMS + 3, random.integers(5, 2 * LENGTH)).tolist() for _ in range(USERS)]
    histories = [[str(token - 3) for token in row] for row in rows]
    config = Bert4RecConfig(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, loss="chunked")
    model, ranked = Bert4RecForMaskedLM(config).train(), Bert4RecForMaskedLM(config).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    training = DataCollatorForMaskedItems(tokenizer, max_length=LENGTH, seed=0)
    evaluation = DataCollatorForNextItem(tokenizer, "masked", max_length=LENGTH)
    tested = Dataset.from_dict({"input_ids": [row[:-1] for row in rows], "target": [row[-1] for row in rows]})

    def step() -> None:
        model(**training([{"input_ids": row[-LENGTH:]} for row in rows[:128]])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {
        "training step, 128 rows": step,
        "evaluation of 512 users": lambda: rank_dataset(ranked, tested, evaluation),
        "recommend for 512 users": lambda: recommend(ranked, tokenizer, histories),
        "16 requests of recommend": lambda: [recommend(ranked, tokenizer, [row]) for row in histories[:16]],
    }


def time_processes(times: Times, rounds: int) -> None:
    """Add the CPU seconds of new interpreters in so many rounds, all in turn."""
    for _ in range(rounds):
        for name, code in {"torch": "import torch", **PROCESSES}.items():
            times[name] += [process_time(code) for _ in range(HELPS if name.startswith("help") else 1)]


def process_time(code: str) -> float:
    """CPU seconds of an interpreter that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(parse_arguments("bench-guard", (GuardArguments,), sys.argv[1:])[0]))
