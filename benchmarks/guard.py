"""Whether a step, a request, an evaluation, an import or help became slower than what is committed.

OMP_NUM_THREADS=1 python benchmarks/guard.py            # `make bench-guard`: exit code 1 above 15 %
OMP_NUM_THREADS=1 python benchmarks/guard.py --write true

CPU time on another or a busy machine says little, so each figure is a ratio: to matrix products of 1024 x 1024 that are
timed in turn with it, and for imports and help to `import torch`. Of the rounds the fastest count, as other work
only slows down. `guard.json` holds the committed ratios.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
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
MARGIN = 0.15
ITEMS, LENGTH, USERS = 3000, 50, 512
PROCESSES = {
    "import of config, data and tokenizer": "from hfrec import Bert4RecConfig, ItemTokenizer, load_interactions",
    "import of a model": "from hfrec import Bert4RecForMaskedLM",
    "help of pretrain": "from hfrec_command import main; main(['pretrain', '--help'])",
}


@dataclass
class GuardArguments:
    """What is compared and how often."""

    rounds: int = field(default=15, metadata={"help": "Rounds of the calls in this process."})
    imports: int = field(default=5, metadata={"help": "Rounds of the imports, each a process of its own."})
    write: bool = field(default=False, metadata={"help": "Write guard.json in place of comparing with it."})


def main(arguments: GuardArguments) -> int:
    """Measure, print the table, and compare or write; returns the exit code."""
    ratios = call_ratios(arguments.rounds) | process_ratios(arguments.imports)
    if arguments.write:
        COMMITTED.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(ratios, indent=2))
        return 0
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    slower = slower_than(committed, ratios)
    for name, ratio in ratios.items():
        print(f"{name:<40}{ratio:>9.2f}{committed[name]:>9.2f}{'  SLOWER' if name in slower else ''}")
    return 1 if slower else 0


def slower_than(committed: dict[str, float], ratios: dict[str, float]) -> list[str]:
    """Names of what is more than the margin above its committed ratio.

    Raises:
        ValueError: One of the two lacks a name.
    """
    if committed.keys() != ratios.keys():
        raise ValueError(f"guard.json holds {sorted(committed)}, measured {sorted(ratios)}: write it anew.")
    return [name for name, ratio in ratios.items() if ratio > committed[name] * (1 + MARGIN)]


def call_ratios(rounds: int) -> dict[str, float]:
    """CPU time of each call over that of the product, the fastest of the rounds of both."""
    calls = {"product": product(), **model_calls()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            if number:  # the first round warms up
                times[name].append(time.process_time() - begin)
    least = {name: min(found) for name, found in times.items()}
    return {name: round(value / least["product"], 3) for name, value in least.items() if name != "product"}


def product() -> Callable[[], Any]:
    """Four products of 1024 x 1024."""
    left = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0))
    return lambda: [left @ left for _ in range(4)]


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


def process_ratios(rounds: int) -> dict[str, float]:
    """CPU time of new interpreters over that of one that imports torch."""
    codes = {"torch": "import torch", **PROCESSES}
    times = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            times[name].append(process_time(code))
    return {name: round(min(found) / min(times["torch"]), 3) for name, found in times.items() if name != "torch"}


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
