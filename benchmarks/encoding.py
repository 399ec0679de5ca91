r"""Item texts through a text encoder: items a CPU second, and what precision costs.

python benchmarks/encoding.py --encoder FOLDER --items_file items.csv --output_dir outputs/encoding
python benchmarks/encoding.py --encoder FOLDER --items_file items.csv --number 100000 --precisions bfloat16 \
  --output_dir outputs/encoding-100000

Further texts than the file has are made by joining the first half of one text with the second half of another: all
differ and are about as long as the file's. Each precision encodes all of them into an empty cache and reads them again.
`--plain true` times the plain way too, on the first 500: batches of 64 in the order of the file. One thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from hfrec.commands.parsing import parse_arguments
from hfrec.data.files import write_json
from hfrec.data.item_tables import read_items
from hfrec.evaluation.table import align
from hfrec.transfer.encoding import encode_texts

PLAIN = 500


@dataclass
class EncodingArguments:
    """Encoder, texts and precisions."""

    encoder: str = field(metadata={"help": "Text encoder: a folder or a hub id."})
    items_file: str = field(metadata={"help": "Items with texts."})
    output_dir: str = field(metadata={"help": "Folder of encoding.json."})
    text_column: str = field(default="title", metadata={"help": "Column of the texts."})
    number: int = field(default=2000, metadata={"help": "Texts."})
    precisions: list[str] = field(default_factory=lambda: ["float32", "bfloat16"], metadata={"help": "Of the encoder."})
    plain: bool = field(default=False, metadata={"help": "Time the plain way too."})


def texts_of(path: str, column: str, number: int, *, seed: int = 0) -> list[str]:
    """`number` different texts: those of the file in random order, then halves of two of them joined."""
    own = [text for text in read_items(path, "item_id")[column].to_pylist() if text and text.strip()]
    rng = np.random.default_rng(seed)
    texts = dict.fromkeys(own[index] for index in rng.permutation(len(own))[:number])
    while len(texts) < number:
        first, second = (own[index].split() for index in rng.integers(len(own), size=2))
        texts[" ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])] = None
    return list(texts)


@torch.no_grad()
def plainly(texts: list[str], encoder: str, *, batch_size: int = 64, max_length: int = 128) -> Tensor:
    """Mean-pooled vectors of batches in the order of the texts."""
    tokenizer, model, parts = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder), []
    for start in range(0, len(texts), batch_size):
        some = texts[start : start + batch_size]
        batch = tokenizer(some, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        parts.append((model(**batch).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
    return torch.cat(parts)


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """Result, CPU seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = call()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def main(arguments: EncodingArguments) -> dict[str, Any]:
    """Time each way; returns what `encoding.json` holds."""
    torch.set_num_threads(1)
    texts = texts_of(arguments.items_file, arguments.text_column, arguments.number)
    rows: dict[str, Any] = {}
    exact: Tensor | None = None
    if arguments.plain:
        some = texts[:PLAIN]
        exact, cpu, wall = timed(lambda: plainly(some, arguments.encoder))
        rows["plain, float32"] = {"texts": len(some), "cpu_seconds": cpu, "wall_seconds": wall}
    for precision in arguments.precisions:
        with TemporaryDirectory() as home:
            os.environ["HFREC_HOME"] = home

            def encode(precision: Any = precision) -> Tensor:
                return encode_texts(texts, arguments.encoder, precision=precision)

            found, cpu, wall = timed(encode)
            rows[precision] = {"texts": len(texts), "cpu_seconds": cpu, "wall_seconds": wall}
            if exact is not None:
                rows[precision]["least_cosine"] = float(F.cosine_similarity(found[: len(exact)], exact).min())
            again, cpu, wall = timed(encode)
            rows[f"{precision}, from the cache"] = {"texts": len(texts), "cpu_seconds": cpu, "wall_seconds": wall}
            if not torch.equal(found, again):
                raise ValueError("The cache gave other vectors than the encoder.")
    for row in rows.values():
        row["texts_a_cpu_second"] = row["texts"] / row["cpu_seconds"]
    write_json(Path(arguments.output_dir) / "encoding.json", rows)
    names = ("texts", "cpu_seconds", "wall_seconds", "texts_a_cpu_second", "least_cosine")
    body = [[name, *(f"{row[key]:,.5g}" if key in row else "–" for key in names)] for name, row in rows.items()]
    print(align([["", *names], *body]))
    return rows


if __name__ == "__main__":
    main(*parse_arguments("encoding", (EncodingArguments,), sys.argv[1:]))
