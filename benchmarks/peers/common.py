"""What all runners share: options, the split, clocks, and one evaluator for every library.

Only the standard library, numpy and torch, and Python 3.10 on: each runner runs in the environment of its own library.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch

warnings.filterwarnings("ignore")  # the libraries' own, hundreds of lines
TOP_K = 10
BATCH_OF_USERS = 256
Scorer = Callable[[str, Sequence[int]], dict[int, list[int]]]


def parse_options(description: str, **extra: Any) -> argparse.Namespace:
    """The flags of a runner; `extra` gives further ones with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, help="CSV of user_id, item_id, timestamp; whole numbers.")
    parser.add_argument("--out", required=True, help="A line of JSON is appended to this file.")
    parser.add_argument("--model", choices=("masked", "causal"), default="causal")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu_limit", type=float, default=0, help="End of training in CPU seconds; 0: all epochs.")
    parser.add_argument("--evaluations", type=int, default=0, help="So many within --cpu_limit; 0: at the end.")
    parser.add_argument("--requests", type=int, default=100, help="Single requests timed; 0: no inference is timed.")
    for name, value in extra.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    return options


class Log:
    """Leave-one-out: of each user with 3 items, the last is for the test, the one before it for validation."""

    def __init__(self, path: str) -> None:
        rows: dict[int, list[tuple[float, int, int]]] = {}
        with open(path, newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                rows.setdefault(int(row["user_id"]), []).append((float(row["timestamp"]), number, int(row["item_id"])))
        self.sequences = {user: [item for _, _, item in sorted(rows[user])] for user in sorted(rows)}
        evaluated = {user: items for user, items in self.sequences.items() if len(items) >= 3}
        self.train = {user: items[:-2] if user in evaluated else items for user, items in self.sequences.items()}
        self.targets = {
            "validation": {user: items[-2] for user, items in evaluated.items()},
            "test": {user: items[-1] for user, items in evaluated.items()},
        }
        self.histories = {
            "validation": {user: items[:-2] for user, items in evaluated.items()},
            "test": {user: items[:-1] for user, items in evaluated.items()},
        }
        self.items = sorted({item for items in self.sequences.values() for item in items})
        self.train_items = sorted({item for items in self.train.values() for item in items})

    def tokens(self, length: int) -> int:
        """Items of the training part that a model reads in an epoch: the newest of each user."""
        return sum(min(len(items), length) for items in self.train.values())

    def columns(self, sequences: dict[int, list[int]]) -> dict[str, np.ndarray]:
        """user_id, item_id and the place in the sequence as timestamp: without ties, and exact in float32."""
        sizes = [len(items) for items in sequences.values()]
        return {
            "user_id": np.repeat(np.array(list(sequences), dtype=np.int64), sizes),
            "item_id": np.concatenate([np.asarray(items, dtype=np.int64) for items in sequences.values()]),
            "timestamp": np.concatenate([np.arange(size, dtype=np.int64) for size in sizes]),
        }


def ndcg(found: dict[int, list[int]], targets: dict[int, int]) -> float:
    """NDCG@10 over all users with a target; a user without a list is a miss."""
    total = 0.0
    for user, target in targets.items():
        items = found.get(user, [])[:TOP_K]
        if len(set(items)) != len(items):
            raise ValueError(f"Expected different items, found {items} for user {user}.")
        if target in items:
            total += 1 / math.log2(items.index(target) + 2)
    return total / len(targets)


def calibrate(size: int = 1024, repeats: int = 15) -> float:
    """GFLOP/s of a float32 matrix product by CPU time, the median of some."""
    left = torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        left @ left
        seconds.append(time.process_time() - start)
    return round(2 * size**3 / statistics.median(seconds) / 1e9, 1)


def top_items(scores: torch.Tensor, seen: Sequence[Sequence[int]]) -> list[list[int]]:
    """Columns of the best unseen scores `(users, columns)`, which is written to."""
    rows = np.repeat(np.arange(len(seen)), [len(columns) for columns in seen])
    columns = np.concatenate([np.asarray(columns, dtype=np.int64) for columns in seen])
    scores[torch.from_numpy(rows), torch.from_numpy(columns)] = -torch.inf
    best: list[list[int]] = scores.topk(TOP_K).indices.tolist()
    return best


def in_batches(users: Sequence[int], score: Callable[[Sequence[int]], list[list[int]]]) -> dict[int, list[int]]:
    """Lists of items by user, 256 users at a time."""
    found: dict[int, list[int]] = {}
    for start in range(0, len(users), BATCH_OF_USERS):
        part = users[start : start + BATCH_OF_USERS]
        found.update(zip(part, score(part), strict=True))
    return found


class Run:
    """Clocks and results of a run: call `start_epoch` and `end_epoch` around each epoch, `finish` once.

    Args:
        peer: Name of the library.
        options: Those of `parse_options`.
        log: The data.
        bare: Gives the ten best unseen items by a call of the model.
        public: The same by what the library offers its users, where that is another thing.
    """

    def __init__(
        self, peer: str, options: argparse.Namespace, log: Log, bare: Scorer, public: Scorer | None = None
    ) -> None:
        self.options, self.log, self.bare, self.public = options, log, bare, public
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.curve: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {"peer": peer, **vars(options), "gflops_before": calibrate()}
        del self.facts["out"]

    def start_epoch(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def end_epoch(self) -> bool:
        """Note an epoch; True when training is to stop."""
        self.cpu.append(time.process_time() - self._cpu)
        self.wall.append(time.perf_counter() - self._wall)
        limit, spent = self.options.cpu_limit, sum(self.cpu)
        if self.options.evaluations and spent >= (len(self.curve) + 1) * limit / self.options.evaluations:
            self.evaluate()
        return bool(limit) and spent >= limit

    def evaluate(self) -> None:
        """Add a point to the curve; outside of the clocks."""
        point: dict[str, float] = {"epoch": len(self.cpu), "cpu_s": round(sum(self.cpu), 2)}
        for part, targets in self.log.targets.items():
            point[part] = round(ndcg(self.bare(part, list(targets)), targets), 5)
        self.curve.append(point)
        print(point, flush=True)

    def finish(self, **facts: Any) -> None:
        """Time inference and append the results to `--out`.

        Args:
            **facts: Of the library: `sequences` of an epoch, real `tokens` in them, where they are not the newest of
                each user, and `slots`, the places that its layers work on, where sequences are not filled up.
        """
        self.facts["tokens"] = facts.get("tokens", self.log.tokens(self.options.length))
        self.facts["slots"] = facts.get("slots", facts["sequences"] * self.options.length)
        if not self.curve or self.curve[-1]["epoch"] != len(self.cpu):
            self.evaluate()
        self.facts |= {"cpu": self.cpu, "wall": self.wall, "curve": self.curve, **facts}
        self.facts["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        if self.options.requests:
            self.facts["bare"] = self._inference(self.bare)
            self.facts["public"] = self._inference(self.public) if self.public else self.facts["bare"]
        self.facts |= {"gflops_after": calibrate(), "load": os.getloadavg()[0], "torch": torch.__version__}
        with open(self.options.out, "a") as file:
            file.write(json.dumps(self.facts) + "\n")

    def _inference(self, scorer: Scorer) -> dict[str, float]:
        users = list(self.log.targets["test"])
        scorer("test", users[:3])
        many = [_timed(lambda: scorer("test", users)) for _ in range(3)]
        end = time.perf_counter() + 30  # a library may take seconds for a request
        one: list[tuple[float, float]] = []
        for user in users[: self.options.requests]:
            one.append(_timed(lambda user=user: scorer("test", [user])))  # type: ignore[misc]
            if time.perf_counter() > end:
                break
        return {
            "users_per_cpu_s": round(len(users) / statistics.median(cpu for cpu, _ in many)),
            "users_per_s": round(len(users) / statistics.median(wall for _, wall in many)),
            "request_cpu_ms": round(1e3 * statistics.median(cpu for cpu, _ in one), 2),
            "request_ms": round(1e3 * statistics.median(wall for _, wall in one), 2),
        }


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall
