"""Cost of one training step, CPU seconds and peak memory, against the size of the catalogue.

python benchmarks/catalogue.py --output_dir outputs/catalogue

Masked objective, hidden size 64, 2 layers, batches of 128 synthetic rows of 50 items without padding, one thread. Each
run is a process of its own; in a round every size and variant runs once, in the next one in the opposite order. A run
whose memory, by `hfrec estimate` and a reserve, is not there is left out. Items are drawn uniformly, the hardest case
for `--rowwise_embeddings`: hardly a row is touched twice.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # threads are counted when it is imported
from train_speed import calibrate
from transformers import Trainer

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
from hfrec.data.files import write_json
from hfrec.training.estimate import Workload, estimate_memory
from hfrec.training.rowwise import rowwise_optimizer
from hfrec.training.trainer_arguments import RecommenderTrainingArguments

BATCH, LENGTH, MLM_PROBABILITY = 128, 50, 0.2
VARIANTS = {  # name: (loss, rowwise_embeddings, largest catalogue)
    "chunked": ("chunked", False, 1_000_000),
    "sampled_softmax": ("sampled_softmax", False, 10_000_000),
    "sampled_softmax, rowwise": ("sampled_softmax", True, 10_000_000),
}
RESERVE = 2**31  # bytes: Python, its libraries and the neighbours


def make_config(num_items: int, variant: str) -> Bert4RecConfig:
    """The model of a run."""
    return Bert4RecConfig(vocab_size=num_items + 3, max_position_embeddings=LENGTH, loss=VARIANTS[variant][0])


def make_batch(num_items: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random items, a fifth of them masked, all `(batch, length)`."""
    ids = torch.randint(3, num_items + 3, (BATCH, LENGTH), generator=generator)
    masked = torch.rand(ids.shape, generator=generator) < MLM_PROBABILITY
    return {
        "input_ids": ids.masked_fill(masked, 1),
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(~masked, -100),
    }


def measure(num_items: int, variant: str, steps: int) -> dict[str, Any]:
    """Steps of one model; the first makes the moments and does not count."""
    torch.manual_seed(0)
    model = Bert4RecForMaskedLM(make_config(num_items, variant)).train()
    with tempfile.TemporaryDirectory() as folder:
        training = RecommenderTrainingArguments(
            output_dir=folder, use_cpu=True, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
        )
        if VARIANTS[variant][1]:
            optimizer: Any = rowwise_optimizer(model, training)
        else:
            optimizer = Trainer(model=model, args=training).create_optimizer()
    generator, rows = torch.Generator().manual_seed(0), []
    before = calibrate()
    for _ in range(steps + 1):
        batch = make_batch(num_items, generator)
        start = time.process_time()
        model(**batch).loss.backward()
        middle = time.process_time()
        if training.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        rows.append((middle - start, time.process_time() - middle))
    kept = [statistics.median(part) for part in zip(*rows[1:], strict=True)]
    return {
        "items": num_items,
        "variant": variant,
        "model_s": kept[0],
        "optimizer_s": kept[1],
        "step_s": statistics.median(sum(row) for row in rows[1:]),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "optimizer_gb": sum(
            value.numel() * value.element_size() for state in optimizer.state.values() for value in state.values()
        )
        / 1e9,
        "gflops": [before, calibrate()],
        "load": os.getloadavg()[0],
    }


def available() -> int:
    """Bytes that the machine can still give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def run_one(num_items: int, variant: str, steps: int) -> dict[str, Any] | None:
    """A run in a process of its own, or None where memory is short."""
    workload = Workload(
        batch_size=BATCH, length=LENGTH, labelled=MLM_PROBABILITY, rowwise_embeddings=VARIANTS[variant][1]
    )
    needed = RESERVE + estimate_memory(make_config(num_items, variant), workload).training
    if available() < needed:
        print(f"left out: {variant}, {num_items:,} items need {needed / 1e9:.1f} GB", file=sys.stderr, flush=True)
        return None
    command = [sys.executable, __file__, "--run", str(num_items), variant, "--steps", str(steps)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(result.splitlines()[-1])
    return found


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over rounds, and the range of the step."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["variant"], run["items"]), []).append(run)
    return [
        {
            "variant": variant,
            "items": items,
            "runs": len(group),
            **{
                name: statistics.median(run[name] for run in group)
                for name in ("model_s", "optimizer_s", "step_s", "peak_gb", "optimizer_gb")
            },
            "low_s": min(run["step_s"] for run in group),
            "high_s": max(run["step_s"] for run in group),
        }
        for (variant, items), group in sorted(groups.items())
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as Markdown."""
    lines = ["| loss | items | step, CPU s | forward and backward | optimiser | peak RSS, GB | of it moments |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        step = f"{row['step_s']:.3f} ({row['low_s']:.3f}–{row['high_s']:.3f})"
        parts = f"{row['model_s']:.3f} | {row['optimizer_s']:.3f} | {row['peak_gb']:.2f} | {row['optimizer_gb']:.2f}"
        lines.append(f"| {row['variant']} | {row['items']:,} | {step} | {parts} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds and peak memory of a step against the number of items, both log-log."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, both = plt.subplots(1, 2, figsize=(11, 4.5))
    for axes, name, label in zip(both, ("step_s", "peak_gb"), ("CPU s a step", "peak RSS, GB"), strict=True):
        for variant in VARIANTS:
            points = [(row["items"], row[name]) for row in rows if row["variant"] == variant]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=variant)
        axes.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
        axes.grid(alpha=0.3)
    both[0].legend(fontsize=8)
    drawn.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/catalogue")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="Timed steps of a run, after one that warms up.")
    parser.add_argument("--run", nargs=2, metavar=("ITEMS", "VARIANT"), help="One run in this process, as JSON.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.run:
        print(json.dumps(measure(int(options.run[0]), options.run[1], options.steps)))
        return
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(size, name) for size in options.sizes for name in VARIANTS if size <= VARIANTS[name][2]]
    runs: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for case in cases[:: -1 if number % 2 else 1]:
            result = run_one(*case, options.steps)
            runs += [] if result is None else [{**result, "round": number}]
            write_json(folder / "catalogue.json", {"runs": runs, "summary": summarise(runs)})
    rows = summarise(runs)
    (folder / "catalogue.md").write_text(table(rows) + "\n", encoding="utf-8")
    plot(rows, folder / "catalogue.png")
    print(table(rows))


if __name__ == "__main__":
    main()
