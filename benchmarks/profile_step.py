"""Where a training step of the stock Trainer goes, and how far its parts are from the matrix products they need.

python benchmarks/profile_step.py --data interactions.csv --output_dir outputs/profile

Without `--data` a synthetic log of the size of MovieLens-100K is taken. One thread, CPU seconds, hidden size 64,
2 layers, 2 heads, batch 128, dropout 0.2. Functions of the Trainer and modules of the model are timed where they are
called; the first epoch warms up. Each round runs every case once, the next one in the opposite order.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # threads are counted when it is imported
from torch import nn
from train_speed import calibrate, load_split, timed_training
from transformers import Trainer, TrainerCallback

from hfrec import Bert4RecConfig
from hfrec.data.files import write_json
from hfrec.data.splits import Split
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer, seed_everything

STEP = ("forward", "backward", "clipping", "optimiser", "collator", "dataloader")  # and the rest of the Trainer
PARTS = ("attention", "MLP", "head and loss")
BACKWARD = 2  # a product has two gradients, each of which is a product as large as itself


class Clock(TrainerCallback):
    """CPU seconds by name, and what the batches were, since the end of the first epoch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, float] = defaultdict(float)
        self.steps = self.warm = 0
        self._since: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self._since[name] = time.process_time()

    def end(self, name: str) -> None:
        self.seconds[name] += time.process_time() - self._since.pop(name)

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(name)
            result = function(*args, **kwargs)
            self.end(name)
            return result

        return timed

    def watch(self, module: nn.Module, name: str) -> None:
        """Time a module: forward, and backward from the gradient of its output to that of its input."""
        module.register_forward_pre_hook(lambda *_: self.begin(name))
        module.register_forward_hook(lambda *_: self.end(name))
        module.register_full_backward_pre_hook(lambda *_: self.begin(name))
        module.register_full_backward_hook(lambda *_: self.end(name))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch and state.epoch >= 1 and not self.steps:
            self.seconds.clear()
            self.flops.clear()
            self.warm = state.global_step
        self.begin("step")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end("step")
        if state.epoch > 1:
            self.steps = state.global_step - self.warm

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.begin("optimiser")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.end("optimiser")


def step_flops(
    config: Bert4RecConfig, attention_mask: torch.Tensor, labels: torch.Tensor, is_causal: bool
) -> dict[str, float]:
    """Floating point operations that a step cannot do without, by part: real tokens and labelled positions only.

    Every product of `(n, k)` and `(k, m)` is `2nkm`. In the last layer only labelled positions need queries, output and
    MLP. Norms, activations, dropout, look-ups and the optimiser are not products and count nothing.
    """
    hidden, inner, width = config.hidden_size, config.intermediate_size or 0, config.embedding_size or 0
    labelled = labels != -100
    tokens, asked = int(attention_mask.sum()), int(labelled.sum())
    seen = attention_mask.cumsum(-1) if is_causal else attention_mask.sum(-1, keepdim=True).expand_as(attention_mask)
    layers = config.num_hidden_layers
    mlp = 2 * hidden * inner * (3 if config.gated_mlp else 2)
    whole, last = int((seen * attention_mask).sum()), int(seen[labelled].sum())  # pairs of query and key
    # Of a token: key and value, then query and output; of a pair: score and weighted value.
    half, inner_tokens = 2 * hidden * 2 * hidden, (layers - 1) * tokens
    attention = layers * tokens * half + (inner_tokens + asked) * half + 4 * hidden * ((layers - 1) * whole + last)
    head = asked * 2 * hidden * width * config.head_transform + asked * 2 * width * config.vocab_size
    counts = (attention, (inner_tokens + asked) * mlp, head)
    return {part: float((1 + BACKWARD) * count) for part, count in zip(PARTS, counts, strict=True)}


def instrument(trainer: Trainer, clock: Clock, is_causal: bool) -> None:
    """Time the parts of a step where the Trainer and the model call them."""
    model: Any = trainer.model
    compute_loss, backward = trainer.compute_loss, trainer.accelerator.backward

    def forward(model: Any, inputs: Any, **kwargs: Any) -> Any:
        for name, value in step_flops(model.config, inputs["attention_mask"], inputs["labels"], is_causal).items():
            clock.flops[name] += value
        clock.begin("forward")
        loss = compute_loss(model, inputs, **kwargs)
        clock.end("forward")
        return loss

    def timed_backward(loss: torch.Tensor, **kwargs: Any) -> None:
        clock.begin("backward")
        clock.begin("loss")  # until the gradient arrives at the head
        backward(loss, **kwargs)
        clock.end("backward")

    trainer.compute_loss = forward  # type: ignore[method-assign]
    trainer.accelerator.backward = timed_backward  # type: ignore[method-assign]
    trainer.data_collator = clock.wrap(trainer.data_collator, "collator")
    trainer.get_batch_samples = clock.wrap(trainer.get_batch_samples, "batches")  # type: ignore[method-assign]
    trainer._clip_grad_norm = clock.wrap(trainer._clip_grad_norm, "clipping")  # type: ignore[method-assign]
    model._bounded_loss = clock.wrap(model._bounded_loss, "loss")
    model.head.register_full_backward_pre_hook(lambda *_: clock.end("loss"))
    clock.watch(model.head, "head")
    for layer in model.model.layers:
        clock.watch(layer.attention, "attention")
        clock.watch(layer.mlp, "MLP")


def measure(split: Split, objective: Any, length: int, epochs: int) -> dict[str, Any]:
    """Train a new model; seconds and FLOPs of a step, by part."""
    tokenizer = build_tokenizer(split.train)
    data = DataArguments(train_file="unused", max_length=length, windows="newest")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        training = timed_training(folder, epochs + 1)  # one to warm up
        seed_everything(training)
        model = build_model(ModelArguments(objective=objective), len(tokenizer), length)
        rows = training_sequences(split.train, tokenizer, objective, data, length)
        trainer = build_trainer(model, tokenizer, rows, None, data=data, training=training, callbacks=[clock])
        instrument(trainer, clock, objective == "causal")
        before = calibrate()
        trainer.train()
    spent = {name: value / clock.steps for name, value in clock.seconds.items()}
    spent["dataloader"] = spent["batches"] - spent["collator"]
    spent["Trainer"] = spent["step"] - sum(spent[name] for name in STEP)
    achieved = {
        "attention": spent["attention"],
        "MLP": spent["MLP"],
        "head and loss": spent["head"] + spent["loss"],
    }
    achieved["everything else"] = spent["step"] - sum(achieved.values())
    return {
        "objective": objective,
        "length": length,
        "seconds": {name: spent[name] for name in (*STEP, "Trainer", "step")},
        "achieved": achieved,
        "flops": {name: value / clock.steps for name, value in clock.flops.items()},
        "gflops": [before, calibrate()],
        "load": os.getloadavg()[0],
    }


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median over the rounds of each case."""
    cases = list(dict.fromkeys((run["objective"], run["length"]) for run in runs))
    rows = []
    for case in cases:
        group = [run for run in runs if (run["objective"], run["length"]) == case]
        row: dict[str, Any] = {"objective": case[0], "length": case[1], "flops": group[0]["flops"]}
        for name in ("seconds", "achieved"):
            row[name] = {part: statistics.median(run[name][part] for run in group) for part in group[0][name]}
        row["gflops"] = statistics.median(value for run in group for value in run["gflops"])
        rows.append(row)
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """Shares of a step, and the distance from the limit, as Markdown."""
    names = (*STEP, "Trainer")
    lines = ["| | ms a step | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for row in rows:
        whole = row["seconds"]["step"]
        shares = " | ".join(f"{100 * row['seconds'][name] / whole:.1f} %" for name in names)
        lines.append(f"| {row['objective']}, {row['length']} | {1e3 * whole:.1f} | {shares} |")
    lines += ["", "| | part | GFLOP | limit, ms | achieved, ms | achieved / limit |", "|---|---|---|---|---|---|"]
    for row in rows:
        limits = {part: row["flops"][part] / row["gflops"] / 1e9 for part in PARTS}
        for part, seconds in row["achieved"].items():
            limit, flops = limits.get(part, 0.0), row["flops"].get(part, 0.0) / 1e9
            ratio = f"{seconds / limit:.1f}" if limit else ""
            cells = f"{flops:.2f} | {1e3 * limit:.1f} | {1e3 * seconds:.1f} | {ratio}"
            lines.append(f"| {row['objective']}, {row['length']} | {part} | {cells} |")
        whole, limit = row["seconds"]["step"], sum(limits.values())
        cells = f"{sum(row['flops'].values()) / 1e9:.2f} | {1e3 * limit:.1f} | {1e3 * whole:.1f} | {whole / limit:.1f}"
        lines.append(f"| {row['objective']}, {row['length']} | **step** | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("HFREC_BENCH_DATA"), help="Log with user, item and time.")
    parser.add_argument("--output_dir", default="outputs/profile")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200])
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split(options.data)
    cases = [(objective, length) for length in options.lengths for objective in ("masked", "causal")]
    runs: list[dict[str, Any]] = []
    for number in range(options.rounds):
        runs += [measure(split, *case, options.epochs) for case in cases[:: -1 if number % 2 else 1]]
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(summarise(runs), key=lambda row: cases.index((row["objective"], row["length"])))
    write_json(folder / "profile_step.json", {"runs": runs, "summary": rows})
    (folder / "profile_step.md").write_text(tables(rows) + "\n", encoding="utf-8")
    print(tables(rows))


if __name__ == "__main__":
    main()
