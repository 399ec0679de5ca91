"""What types, threads and small changes to a step are worth on this CPU, on a log.

OMP_NUM_THREADS=1 python benchmarks/cpu.py steps --data interactions.csv --output_dir outputs/cpu
OMP_NUM_THREADS=1 python benchmarks/cpu.py quality --data interactions.csv --output_dir outputs/cpu
python benchmarks/cpu.py threads --data interactions.csv --output_dir outputs/cpu

`steps`: each variant of a training step in turn with the plain one, in one process; the ratio of the least CPU times,
the median of the paired ratios, and the CPU seconds of the steps that warm up, compiling included.
`quality`: NDCG@10 on the test items of a model that is trained and ranked in float32, in bfloat16, and with linear
layers in 8 bits (torch's dynamic quantisation), and users a CPU second of `recommend`. `threads`: the same training
with one thread, with two, and in two processes (gloo) of one, each a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from train_speed import EpochTimer, calibrate, load_split, timed_training

from hfrec import rank_dataset, recommend
from hfrec.evaluation.metrics import ranking_metrics
from hfrec.evaluation.protocol import evaluation_collator, rows_to_rank
from hfrec.models import grids, packing
from hfrec.models.grids import Block
from hfrec.models.layers import Dropout, positions_from_newest
from hfrec.models.packing import Packing
from hfrec.models.rotary import rotate
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.trainer import build_model, build_trainer, seed_everything

LENGTH, BATCH = 50, 128


def prepared(options: argparse.Namespace, folder: str, epochs: int, **settings: Any) -> tuple[Any, Any, Any]:
    """Split, tokenizer and trainer of a new model."""
    split = load_split(options.data)
    tokenizer = build_tokenizer(split.train)
    data = DataArguments(train_file="unused", max_length=LENGTH, windows="newest")
    training = timed_training(folder, epochs, seed=options.seed, **settings)
    seed_everything(training)
    shape = ModelArguments(objective=options.objective, item_start="random")
    model = build_model(shape, len(tokenizer), LENGTH)
    rows = training_sequences(split.train, tokenizer, options.objective, data, LENGTH)
    return split, tokenizer, build_trainer(model, tokenizer, rows, None, data=data, training=training)


class PooledDropout(torch.nn.Dropout):
    """Dropout whose bits are drawn once a step into a pool and cut out at a random place."""

    pool = torch.zeros(0, dtype=torch.int16)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return input
        start = int(torch.randint(len(self.pool) - input.numel(), ()))
        bits = self.pool[start : start + input.numel()].view(input.shape)
        dropped = round(self.p * 2**16)
        kept = torch.ge(bits, dropped - 2**15, out=torch.empty_like(input))
        return input * kept.mul_(2**16 / (2**16 - dropped))


def pooled(model: Any) -> Any:
    """The model with one draw of bits for all its dropouts."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, PooledDropout(child.p))
    return model


def compiled(model: Any) -> Any:
    """The model with what works token by token and has no random numbers compiled; the packing stays as it is."""
    for layer in model.model.layers:
        layer.mlp._widen = torch.compile(layer.mlp._widen, dynamic=True)
    model.head.forward = torch.compile(model.head.forward, dynamic=True)
    return model


def body_compiled(model: Any) -> Any:
    """The model whose whole body is one compiled function of the packed tokens and of what says how they lie."""
    body = model.model

    @functools.partial(torch.compile, dynamic=True)
    def encode(tokens: torch.Tensor, position_ids: torch.Tensor, packing: Packing) -> torch.Tensor:
        hidden_states = body.embeddings(body.embeddings.look_up(tokens), position_ids)
        rotary = body._rotary(position_ids)
        for number, layer in enumerate(body.layers, start=1):
            packed = packing.last if number == len(body.layers) else packing.inner
            hidden_states = layer.forward(hidden_states, rotary=rotary, packed=packed)
        return packing.unpack(body.final_norm(hidden_states))

    def at_labels(labelled: torch.Tensor, input_ids: Any, attention_mask: Any, **_: Any) -> torch.Tensor:
        real = attention_mask.bool()
        packing = Packing.of(real, labelled, is_causal=body.is_causal)
        places = packing.source
        return encode(input_ids.flatten()[places], positions_from_newest(real).flatten()[places], packing)

    body.at_labels = at_labels
    return model


def heads_by_operations(self: Block, tokens: torch.Tensor, shape: Any, angles: Any) -> Any:
    """`Block.heads` without writes in place, for the compiler to put together."""
    size = shape[0] * shape[1]
    parts = [part.unflatten(-1, shape) for part in tokens.split(size, dim=1)]  # each (tokens, heads, head_size)
    if angles is not None:
        turned = len(parts) if len(parts) == 1 else len(parts) - 1
        parts = [rotate(part, angles[:, None]) if n < turned else part for n, part in enumerate(parts)]
    if self.places is not None:
        grids = [part.new_zeros(self.rows * self.width, *shape) for part in parts]
        parts = [grid.index_copy(0, self.places, part) for grid, part in zip(grids, parts, strict=True)]
    return tuple(part.view(self.rows, self.width, *shape).transpose(1, 2) for part in parts)


@contextlib.contextmanager
def plain_grids() -> Iterator[None]:
    """Grids of attention by operations that the compiler knows."""
    before = Block.heads, grids.collect, packing.collect
    Block.heads = heads_by_operations
    grids.collect = packing.collect = lambda grid, places: grid.index_select(0, places)
    yield
    Block.heads, grids.collect, packing.collect = before


def cpu_seconds() -> float:
    """Of this process and of the compilers that it ran."""
    return sum(os.times()[:4])


def written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any, is_causal: bool, **_: Any
) -> torch.Tensor:
    """Attention as two batched products and a softmax."""
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)  # (rows, num_heads, queries, keys)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(dim=-1) @ value


@contextlib.contextmanager
def attention_written_out() -> Iterator[None]:
    """Without torch's fused kernel."""
    before = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = written_out
    yield
    torch.nn.functional.scaled_dot_product_attention = before


@contextlib.contextmanager
def products_in_bf16() -> Iterator[None]:
    """float32 everywhere, but matrix products of numbers rounded to bfloat16."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time of a step beside that of the plain one."""
    with tempfile.TemporaryDirectory() as folder:
        _, _, trainer = prepared(options, folder, 1)
        loader = trainer.get_train_dataloader()
        batches, model = list(loader)[:4], trainer.model
    AdamW = torch.optim.AdamW
    variants: dict[str, tuple[Any, Callable[[Any], Any], Any]] = {
        "plain": (lambda net: net, lambda net: AdamW(net.parameters(), lr=1e-3), contextlib.nullcontext),
        "adamw_torch_fused": (lambda n: n, lambda net: AdamW(net.parameters(), fused=True), contextlib.nullcontext),
        "dropout bits once a step": (pooled, lambda net: AdamW(net.parameters()), contextlib.nullcontext),
        "bfloat16 (--bf16 true)": (
            lambda net: net,
            lambda net: AdamW(net.parameters()),
            lambda: torch.autocast("cpu", torch.bfloat16),
        ),
        "products alone in bfloat16": (lambda net: net, lambda net: AdamW(net.parameters()), products_in_bf16),
        "attention written out": (lambda net: net, lambda net: AdamW(net.parameters()), attention_written_out),
    }
    variants = {name: variant for name, variant in variants.items() if name in ("plain", *(options.only or variants))}
    if options.compile:
        variants["torch.compile of the whole packed body, dynamic shapes"] = (
            body_compiled,
            lambda net: AdamW(net.parameters()),
            plain_grids,
        )
        variants["torch.compile of feed-forward parts and head, dynamic shapes"] = (
            compiled,
            lambda net: AdamW(net.parameters()),
            contextlib.nullcontext,
        )
    times: dict[str, list[float]] = {name: [] for name in variants}
    warming = dict.fromkeys(variants, 0.0)
    made = {}
    for name, (change, optimiser, around) in variants.items():
        net = copy.deepcopy(model).train()
        made[name] = (change(net), optimiser(net), net, around)
    for number in range(options.rounds + 1):
        for name, (call, optimizer, net, around) in made.items():
            batch = batches[number % len(batches)]
            start, started = time.process_time(), cpu_seconds()
            PooledDropout.pool = (
                torch.empty(2**19, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
                if name.startswith("dropout")
                else PooledDropout.pool
            )
            with around():
                loss = call(**batch).loss
            with around():
                loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if number >= min(len(batches), options.rounds):  # the first ones warm up
                times[name].append(time.process_time() - start)
            else:
                warming[name] += cpu_seconds() - started
    found = {}
    for name, spent in times.items():
        ratios = [one / plain for one, plain in zip(spent, times["plain"], strict=True)]
        least = min(spent) / min(times["plain"])
        found[name] = {"ms": 1e3 * min(spent), "ratio": least, "paired": statistics.median(ratios)}
        found[name]["warming_cpu_s"] = warming[name]
    return found


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """NDCG@10 and speed of training and of `recommend` by type."""
    results: dict[str, Any] = {}
    for trained in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"bf16": trained == "bfloat16", "learning_rate": 0.002, "per_device_train_batch_size": 64}
            split, tokenizer, trainer = prepared(options, folder, options.epochs, **settings)
            start = time.process_time()
            trainer.train()
            seconds = time.process_time() - start
        model = trainer.model.eval()
        quantised = copy.deepcopy(model)
        quantised.model = torch.ao.quantization.quantize_dynamic(quantised.model, {torch.nn.Linear}, torch.qint8)
        rows = rows_to_rank(model, tokenizer, split, "test")
        ids = [tokenizer.decode_items(row) for row in rows["input_ids"]]
        for name, network, around in (
            ("float32", model, contextlib.nullcontext()),
            ("bfloat16", model, torch.autocast("cpu", torch.bfloat16)),
            ("int8", quantised, contextlib.nullcontext()),
        ):
            with around:
                ranks = rank_dataset(network, rows, evaluation_collator(model, tokenizer))["filter_seen"]
                spent = []
                for _ in range(3):
                    start = time.process_time()
                    recommend(network, tokenizer, ids, 10)
                    spent.append(time.process_time() - start)
            results[f"trained in {trained}, ranked in {name}"] = {
                "train_cpu_s": seconds,
                "ndcg@10": ranking_metrics(ranks, ks=[10], n_bootstrap=0)["ndcg@10"],
                "users_per_cpu_s": len(ids) / min(spent),
            }
            print(results, flush=True)
    return results


def train_once(options: argparse.Namespace) -> None:
    """A process of `threads`: prints wall and CPU seconds of each epoch but the first."""
    timer, walls = EpochTimer(), []
    with tempfile.TemporaryDirectory() as folder:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        settings = {"per_device_train_batch_size": BATCH // world}
        _, _, trainer = prepared(options, folder, options.epochs, **settings)
        trainer.add_callback(timer)
        begin = timer.on_epoch_begin, timer.on_epoch_end

        def started(*args: Any, **kwargs: Any) -> None:
            begin[0]()
            walls.append(-time.perf_counter())

        def ended(*args: Any, **kwargs: Any) -> None:
            walls[-1] += time.perf_counter()
            begin[1]()

        timer.on_epoch_begin, timer.on_epoch_end = started, ended  # type: ignore[method-assign]
        trainer.train()
    if trainer.is_world_process_zero():
        print(json.dumps({"wall": walls[1:], "cpu": timer.seconds[1:], "world": world}))


def threads(options: argparse.Namespace) -> dict[str, Any]:
    """The ways to use two cores, in turn."""
    own = [str(Path(__file__).resolve()), "once", "--objective", options.objective, "--epochs", str(options.epochs)]
    own += ["--data", options.data] if options.data else []
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ways = {
        "1 thread": ("1", [sys.executable, *own]),
        "2 threads": ("2", [sys.executable, *own]),
        "2 processes of 1 thread (gloo)": ("1", [*launch, *own]),
    }
    found: dict[str, dict[str, Any]] = {name: {"wall": [], "cpu": []} for name in ways}
    for _ in range(options.rounds):
        for name, (number, command) in ways.items():
            environment = {**os.environ, "OMP_NUM_THREADS": number}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            row = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
            found[name]["wall"] += row["wall"]
            found[name]["cpu"] += [row["world"] * value for value in row["cpu"]]
    least = {name: {kind: min(values) for kind, values in row.items()} for name, row in found.items()}
    return {**least, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("steps", "quality", "threads", "once"))
    parser.add_argument("--data", default=os.environ.get("HFREC_BENCH_DATA"), help="Log with user, item and time.")
    parser.add_argument("--output_dir", default="outputs/cpu")
    parser.add_argument("--objective", choices=("masked", "causal"), default="masked")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="Variants of `steps` beside the plain one; all without.")
    parser.add_argument("--compile", action="store_true", help="Also torch.compile of parts of the model.")
    options = parser.parse_args()
    if options.what == "once":
        train_once(options)
        return
    if options.what != "threads":
        torch.set_num_threads(1)
    calls = {"steps": steps, "quality": quality, "threads": threads}
    found = {"what": options.what, **vars(options), "gflops": calibrate(), "found": calls[options.what](options)}
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cpu.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    print(json.dumps(found["found"], indent=1))


if __name__ == "__main__":
    main()
