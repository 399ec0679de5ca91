"""One request through `recommend`, in PyTorch and on ONNX Runtime: parity, quality and latency.

python benchmarks/latency.py --model_name_or_path out --train_file ml-100k --output_dir outputs/latency

Exports the checkpoint with its int8 variant and checks it on all users' histories and on prefixes of them, a thousand
in all. Quality is NDCG@10 of each user's last item, seen items left out. Latency is that of one history of the newest
`length` items, ids in and ids out, in rounds in which every way answers the same requests, one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfrec import OnnxRecommender, export_onnx, load_checkpoint, load_interactions, recommend
from hfrec.commands.parsing import parse_arguments
from hfrec.data.files import write_json
from hfrec.data.interactions import histories_of

Lists = list[list[dict[str, Any]]]


@dataclass
class LatencyArguments:
    """The checkpoint, the log and the number of requests."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    train_file: str = field(metadata={"help": "Log whose users ask: a file or a named data set."})
    output_dir: str = field(metadata={"help": "Folder of the export and of latency.json."})
    length: int = field(default=50, metadata={"help": "Newest items of a timed history."})
    histories: int = field(default=1000, metadata={"help": "Histories of the parity check: users, then prefixes."})
    requests: int = field(default=200, metadata={"help": "Requests of a round."})
    rounds: int = field(default=5, metadata={"help": "Rounds; each way in turn answers a round's requests."})


def with_prefixes(histories: list[list[str]], count: int, seed: int = 0) -> list[list[str]]:
    """The histories, then prefixes of random ones up to `count` in all."""
    rng = np.random.default_rng(seed)
    taken = histories[:count]
    while len(taken) < count:
        row = histories[int(rng.integers(len(histories)))]
        taken.append(row[: int(rng.integers(1, len(row) + 1))])
    return taken


def ndcg(found: Lists, targets: list[str]) -> float:
    """NDCG@10 of one target a user."""
    ranks = [
        next((item["rank"] for item in items if item["item_id"] == target), None)
        for items, target in zip(found, targets, strict=True)
    ]
    return float(np.mean([0.0 if rank is None else 1.0 / np.log2(rank + 1) for rank in ranks]))


def overlap(found: Lists, expected: Lists) -> float:
    """Share of the expected items that were found, over users."""
    sets = [[{item["item_id"] for item in items} for items in lists] for lists in (found, expected)]
    return float(np.mean([len(ours & theirs) / len(theirs) for ours, theirs in zip(*sets, strict=True)]))


def timed(ways: dict[str, Callable[..., Lists]], requests: list[list[str]], rounds: int) -> dict[str, Any]:
    """Median CPU and wall milliseconds of a request, over all rounds and the range of the rounds' medians."""
    times: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            row = []
            for history in requests:
                cpu, wall = time.process_time(), time.perf_counter()
                ways[name]([history])
                row.append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
            times[name].append(row)
    results: dict[str, Any] = {}
    for name, turns in times.items():
        medians = [
            [statistics.median(part) for part in zip(*row, strict=True)] for row in turns[1:]
        ]  # the first warms up
        results[name] = {
            kind: {"median": statistics.median(values), "low": min(values), "high": max(values)}
            for kind, values in zip(("cpu_ms", "wall_ms"), zip(*medians, strict=True), strict=True)
        }
    return results


def main(arguments: LatencyArguments) -> dict[str, Any]:
    """Export, compare, time and print a table."""
    torch.set_num_threads(1)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path)
    known = set(tokenizer.items["item_id"].to_pylist())
    rows = [
        [item for item in row if item in known]
        for row in histories_of(load_interactions(arguments.train_file).table)[1]
    ]
    rows = [row for row in rows if len(row) > 1]
    folder = Path(arguments.output_dir) / "exported"
    checked = with_prefixes(rows, arguments.histories)
    results: dict[str, Any] = {"parity": export_onnx(model, tokenizer, folder, int8=True, histories=checked)}
    onnx, int8 = (OnnxRecommender.from_pretrained(folder, int8=flag) for flag in (False, True))
    ways: dict[str, Callable[..., Lists]] = {
        "PyTorch": lambda histories: recommend(model, tokenizer, histories),
        "ONNX Runtime": onnx.recommend,
        "ONNX Runtime, int8": int8.recommend,
    }
    expected = recommend(model, tokenizer, checked)
    results["overlap@10"] = {name: overlap(way(checked), expected) for name, way in ways.items()}
    same = [[[item["item_id"] for item in items] for items in lists] for lists in (onnx.recommend(checked), expected)]
    results["same_ten_items"] = float(np.mean([ours == theirs for ours, theirs in zip(*same, strict=True)]))
    histories, targets = [row[:-1] for row in rows], [row[-1] for row in rows]
    results["ndcg@10"] = {name: ndcg(way(histories), targets) for name, way in ways.items()}
    requests = [row[-arguments.length :] for row in rows if len(row) >= arguments.length][: arguments.requests]
    results["requests"], results["latency"] = len(requests), timed(ways, requests, arguments.rounds)
    write_json(Path(arguments.output_dir) / "latency.json", results)
    print("| | CPU ms | wall ms | NDCG@10 | top-10 overlap |\n|---|---|---|---|---|")
    for name, clocks in results["latency"].items():
        cells = [f"{c['median']:.2f} ({c['low']:.2f}–{c['high']:.2f})" for c in clocks.values()]
        print(
            f"| {name} | {cells[0]} | {cells[1]} | {results['ndcg@10'][name]:.4f} | {results['overlap@10'][name]:.3f} |"
        )
    print(f"parity: {results['parity']}, same ten items in order: {results['same_ten_items']:.4f}")
    return results


if __name__ == "__main__":
    main(parse_arguments("latency", (LatencyArguments,), sys.argv[1:])[0])
