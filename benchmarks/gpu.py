"""What a GPU makes of a training step and of `recommend`, the whole table by one command in about ten minutes.

python benchmarks/gpu.py --output_dir outputs/gpu
python benchmarks/gpu.py --device cpu --items 200 --large_items 500 1000 --batch_size 4 --length 8 --hidden_size 16 \\
  --seconds 0.05 --product_size 128 --copy_megabytes 4 --output_dir outputs/gpu   # whether every row still runs

Rows are synthetic histories of random length up to `--length`, so that padding is half of the slots as in real logs.
Limits are measured first: a matrix product and a copy. Each row has its tokens a second, the share of the product's
FLOP/s that its own products (forward and twice that for backward) make, the share of the copy's bandwidth that reading
and writing weights, gradients and moments once takes, and the device's peak memory. A row that cannot run says why.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM, ItemTokenizer, recommend
from hfrec.models import chunked_loss

LABELLED = {"masked": 0.2, "causal": 1.0}


class NotRun(Exception):
    """What a row lacks."""


@dataclass(frozen=True)
class Case:
    """A row of the table: what is trained, in which way."""

    name: str
    objective: str = "masked"
    items: int = 0
    bf16: bool = True
    attention: str = "sdpa"
    compiled: bool = False
    loss: str = "chunked"
    liger: bool = False


def cases(items: int, large: list[int]) -> list[Case]:
    """All rows of training."""
    rows = []
    for objective in LABELLED:
        plain = Case(f"{objective}, bf16, sdpa, padded", objective, items)
        rows += [
            replace(plain, name=f"{objective}, float32, sdpa, padded", bf16=False),
            plain,
            replace(plain, name=f"{objective}, bf16, flash varlen", attention="flash_attention_2"),
            replace(plain, name=f"{objective}, bf16, sdpa, torch.compile", compiled=True),
            replace(plain, name=f"{objective}, bf16, sdpa, Liger's loss", liger=True),
        ]
    for size in large:
        large_case = Case(f"masked, bf16, chunked, {size:,} items", items=size)
        rows += [large_case, replace(large_case, name=large_case.name + ", Liger's loss", liger=True)]
        sampled = f"masked, bf16, sampled_softmax, {size:,} items"
        rows.append(replace(large_case, name=sampled, loss="sampled_softmax"))
    return rows


class Card:
    """The device and its clock."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise SystemExit("No GPU is at hand: `--device cpu` with small sizes tries the code.")
        self.name = torch.cuda.get_device_name() if self.cuda else "CPU"

    def wait(self) -> None:
        """Until all that was asked for is done."""
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], warm_up: int = 3) -> float:
        """Mean of the calls that fit into `--seconds`, after some that warm up."""
        for _ in range(warm_up):
            call()
        self.wait()
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < self.options.seconds:
            call()
            self.wait()
            count += 1
        return (time.perf_counter() - begin) / count

    @contextlib.contextmanager
    def peak(self) -> Iterator[dict[str, float]]:
        """Peak memory of the device within, in GB as `peak_gb`; nothing on a CPU."""
        found: dict[str, float] = {}
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield found
        if self.cuda:
            found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9

    def limits(self) -> dict[str, float]:
        """FLOP/s of products in both types, and bytes a second of a copy (read and written)."""
        found, size = {}, self.options.product_size
        for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            left = torch.randn(size, size, device=self.device, dtype=dtype)
            found[name] = 2 * size**3 / self.seconds(lambda left=left: left @ left)  # type: ignore[misc]
        source = torch.zeros(self.options.copy_megabytes * 2**18, device=self.device)
        target = torch.empty_like(source)
        found["bandwidth"] = 2 * 4 * len(source) / self.seconds(lambda: target.copy_(source))
        return found


def make_batch(case: Case, options: argparse.Namespace, device: torch.device) -> dict[str, torch.Tensor]:
    """Left-padded histories of uniform lengths with labels `(batch, length)`."""
    draw = torch.Generator().manual_seed(0)
    shape = (options.batch_size, options.length)
    ids = torch.randint(3, case.items + 3, shape, generator=draw)
    sizes = torch.randint(2, options.length + 1, (options.batch_size, 1), generator=draw)
    real = torch.arange(options.length) >= options.length - sizes
    labelled = real & (torch.rand(shape, generator=draw) < LABELLED[case.objective])
    labelled[:, -1] = True
    inputs = ids if case.objective == "causal" else ids.masked_fill(labelled, 1)
    batch = {
        "input_ids": inputs.masked_fill(~real, 0),
        "attention_mask": real.long(),
        "labels": ids.masked_fill(~labelled, -100),
    }
    return {name: value.to(device) for name, value in batch.items()}


def make_model(case: Case, options: argparse.Namespace) -> Any:
    """The model of a row, which says what it lacks."""
    if case.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise NotRun("flash-attn is not installed")
    if case.liger and importlib.util.find_spec("liger_kernel") is None:
        raise NotRun("liger-kernel is not installed")
    if case.liger and options.device == "cpu":
        raise NotRun("Liger's kernel needs a GPU")
    kind = Bert4RecForCausalLM if case.objective == "causal" else Bert4RecForMaskedLM
    torch.manual_seed(0)
    config = Bert4RecConfig(
        vocab_size=case.items + 3,
        max_position_embeddings=options.length,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        loss=case.loss,
    )
    model: Any = kind(config)
    if case.attention != "sdpa":
        model.set_attn_implementation(case.attention)
    return model.to(options.device)


def flops(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Of the products that a step needs: real tokens, labelled positions, backward twice forward."""
    config, sizes = model.config, batch["attention_mask"].sum(dim=1).double()
    hidden, tokens, labels = config.hidden_size, float(sizes.sum()), float((batch["labels"] >= 0).sum())
    layer = 12 * hidden**2 * tokens + 2 * hidden * float((sizes**2).sum())
    candidates = config.num_negatives if config.loss == "sampled_softmax" else config.vocab_size
    return 3 * 2 * (config.num_hidden_layers * layer + labels * candidates * hidden)


@contextlib.contextmanager
def loss_kernel(liger: bool) -> Iterator[None]:
    """The chunked loss through Liger's kernel, or written out, whatever is installed."""
    ours = chunked_loss._liger
    if not liger:
        chunked_loss._liger = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        chunked_loss._liger = ours


def train(case: Case, card: Card, limits: dict[str, float]) -> dict[str, Any]:
    """A row of training: forward, backward, clipping and AdamW."""
    model = make_model(case, card.options).train()
    batch = make_batch(case, card.options, card.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=card.cuda)
    forward = torch.compile(model, dynamic=True) if case.compiled else model

    def step() -> None:
        with torch.autocast(card.device.type, dtype=torch.bfloat16, enabled=case.bf16):
            loss = forward(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with loss_kernel(case.liger), card.peak() as peak:
        seconds = card.seconds(step)
    moved = 4 * sum(weight.numel() for weight in model.parameters()) * 7  # gradient written and read, the rest both
    return {
        "tokens_per_s": float(batch["attention_mask"].sum()) / seconds,
        "step_ms": 1e3 * seconds,
        "of_flops": flops(model, batch) / seconds / limits["bf16" if case.bf16 else "float32"],
        "of_bandwidth": moved / seconds / limits["bandwidth"],
        **peak,
    }


def recommending(items: int, card: Card) -> dict[str, Any]:
    """Users a second of `recommend`, raw ids in and out."""
    options = card.options
    model = make_model(Case("", items=items), options).eval()
    tokenizer = ItemTokenizer.from_items([str(item) for item in range(items)])
    draw = torch.Generator().manual_seed(0)
    users = torch.randint(items, (options.users, options.length - 1), generator=draw).tolist()
    histories = [[str(item) for item in user] for user in users]
    with card.peak() as peak:
        seconds = card.seconds(lambda: recommend(model, tokenizer, histories, 10), warm_up=1)
        request = card.seconds(lambda: recommend(model, tokenizer, histories[:1], 10))
    return {"users_per_s": len(users) / seconds, "request_ms": 1e3 * request, **peak}


def attempt(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Figures of a row, or why there are none; another error than these is one of this program."""
    try:
        return call()
    except NotRun as reason:
        return {"not_run": str(reason)}
    except torch.OutOfMemoryError:
        return {"not_run": "out of the device's memory"}
    finally:
        torch.compiler.reset()


COLUMNS = {
    "tokens_per_s": ("tokens/s", ",.0f"),
    "step_ms": ("ms a step", ".2f"),
    "of_flops": ("of the product's FLOP/s", ".1%"),
    "of_bandwidth": ("of the copy's bandwidth", ".1%"),
    "users_per_s": ("users/s", ",.0f"),
    "request_ms": ("ms a request", ".2f"),
    "peak_gb": ("peak GB", ".2f"),
}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| row | " + " | ".join(head for head, _ in COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        cells = [format(row[key], form) if key in row else "" for key, (_, form) in COLUMNS.items()]
        if "not_run" in row:
            cells[0] = f"not run: {row['not_run']}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> dict[str, dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", default="outputs/gpu")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--large_items", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--users", type=int, default=2048, help="Of `recommend`.")
    parser.add_argument("--seconds", type=float, default=5.0, help="That each row is timed for.")
    parser.add_argument("--only", default="", help="Rows that have this in their name; all without.")
    parser.add_argument("--product_size", type=int, default=8192)
    parser.add_argument("--copy_megabytes", type=int, default=1024)
    options = parser.parse_args(words)
    card = Card(options)
    limits = card.limits()
    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        case.name: lambda case=case: train(case, card, limits)  # type: ignore[misc]
        for case in cases(options.items, options.large_items)
    }
    for items in (options.items, *options.large_items[:1]):
        calls[f"recommend, {items:,} items"] = lambda items=items: recommending(items, card)  # type: ignore[misc]
    for name, call in calls.items():
        rows[name] = attempt(call) if options.only in name else {"not_run": f"left out by --only {options.only!r}"}
        print(name, rows[name], flush=True)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    said = {"device": card.name, "torch": torch.__version__, "limits": limits, "settings": vars(options), "rows": rows}
    (folder / "gpu.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    flop = [f"{limits[name] / 1e12:.3g}" for name in ("float32", "bf16")]
    head = f"{card.name}, torch {torch.__version__}: {flop[0]} TFLOP/s in float32, {flop[1]} in bf16"
    text = f"{head}, {limits['bandwidth'] / 1e9:,.0f} GB/s.\n\n{table(rows)}\n"
    (folder / "gpu.md").write_text(text, encoding="utf-8")
    print(text)
    return rows


if __name__ == "__main__":
    main()
