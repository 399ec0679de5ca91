"""One mutation of one file of a checkpoint at a time: the same lists as before, or one line that says why not."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 1e308, -0.5, float("nan"), 2**31, 2**63, 10**30, "", "x", "../../etc/passwd",
    "a/b", [], [1], ["x"], {}, {"a": 1}, "\ud800", "\0", [[]], "true", "0", "1e9",
)  # fmt: skip


# In the place of a file: what never ends, what leads nowhere.
NO_FILE: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo, "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("gone"),
}  # fmt: skip
TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "order mark": lambda content: b"\xef\xbb\xbf" + content,
    "two bytes a letter": lambda content: content.decode("latin-1").encode("utf-16"),
    "nest": lambda content: b"[" * 100_000 + b"]" * 100_000,
    "other ends of lines": lambda content: content.replace(b"\n", b"\r\n") + b"\r\n",
}


def mutate_json(path: Path, draw: random.Random) -> str:
    """Change, remove, add or move one value somewhere in a JSON file; returns what was done."""
    content = json.loads(path.read_text(encoding="utf-8"))
    places = list(_places(content))
    holder, key = draw.choice(places)
    done = draw.choice(("set", "remove", "wrap", "rename", "swap", "neighbours", "more", "nudge", "accent", "twice"))
    if done == "twice" and isinstance(content, dict):  # a name with two values, of which readers take the last
        name = draw.choice(sorted(content))
        path.write_text(
            f"{json.dumps(content)[:-1]}, {json.dumps(name)}: {json.dumps(draw.choice((None, 1, 'x', [])))}}}"
        )
        return f"{done} {name}"
    value = holder[key]
    if isinstance(value, list) and value and done in ("neighbours", "more"):
        value.insert(0, value.pop(min(1, len(value) - 1)) if done == "neighbours" else value[-1])
    elif isinstance(value, (int, float)) and done == "nudge":
        holder[key] = value + draw.choice((1, -1, 0.5, float("inf")))
    elif isinstance(value, str) and done == "accent":
        holder[key] = value.swapcase() + draw.choice((" ", "\u0301", "\r"))
    elif done in ("neighbours", "more", "nudge", "accent", "twice"):
        holder[key] = float(value) if isinstance(value, bool) else [value]
    elif done == "set":
        holder[key] = draw.choice(STRANGE)
    elif done == "wrap":
        holder[key] = draw.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
    elif done == "swap":
        other, place = draw.choice(places)
        holder[key], other[place] = other[place], holder[key]
    elif isinstance(holder, dict):
        value = holder.pop(key)
        if done == "rename":
            holder[f"{key}x"] = value
    else:
        del holder[key]
    try:
        text = json.dumps(content)
    except (ValueError, RecursionError):  # a value that was swapped into itself
        text = "{"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"{done} {key}"


def _places(content: Any) -> Any:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _places(value)


def mutate_bytes(path: Path, draw: random.Random) -> str:
    """Cut, empty, zero-fill, flip, double or lengthen a file, or put another kind of content in its place."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content)) if content else 0
    done = draw.choice(
        ("cut", "empty", "zeros", "hole", "flip", "double", "longer", "text", "remove", "folder", *NO_FILE, *TEXTS)
    )
    if done in NO_FILE:
        path.unlink()
        NO_FILE[done](path)
        return done
    if done in TEXTS:
        path.write_bytes(TEXTS[done](bytes(content)))
        return done
    if done == "remove":
        path.unlink()
        return done
    if done == "folder":
        path.unlink()
        path.mkdir()
        return done
    if done == "flip" and content:
        content[place] ^= 1 << draw.randrange(8)
    elif done == "hole":
        content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    changed = {
        "cut": content[:place], "empty": b"", "zeros": bytes(len(content)), "double": content * 2,
        "longer": content + b"\0" * 9, "text": b"not what it was",
    }  # fmt: skip
    path.write_bytes(changed.get(done, content))
    return f"{done} at {place}"


def mutate_tensors(path: Path, draw: random.Random) -> str:
    """Remove, add, rename, reshape, recast or exchange tensors of a safetensors file."""
    tensors = load_file(path)
    name = draw.choice(sorted(tensors))
    tensor = tensors.pop(name)
    done = draw.choice(
        ("remove", "rename", "reshape", "float16", "int32", "transpose", "scalar", "add", "longer", "nan", "exchange",
         "minus", "infinite", "float64 all")
    )  # fmt: skip
    changed: dict[str, Callable[[], Any]] = {
        "reshape": lambda: tensor.reshape(1, *tensor.shape), "float16": lambda: tensor.astype(np.float16),
        "int32": lambda: tensor.astype(np.int32), "transpose": lambda: np.ascontiguousarray(tensor.T[..., None]),
        "scalar": lambda: np.zeros((), np.float32), "longer": lambda: np.concatenate([tensor, tensor]),
        "nan": lambda: np.full_like(tensor, np.nan), "minus": lambda: -tensor,
        "infinite": lambda: np.where(tensor == tensor.max(), np.inf, tensor).astype(tensor.dtype),
    }  # fmt: skip
    if done in changed:
        tensors[name] = changed[done]()
    elif done == "rename":
        tensors[f"{name}_x"] = tensor
    elif done == "float64 all":
        tensors = {one: values.astype(np.float64) for one, values in {**tensors, name: tensor}.items()}
    elif done == "exchange":  # with another one of its shape
        other = next((one for one, values in tensors.items() if values.shape == tensor.shape), None)
        tensors |= {name: tensor} if other is None else {name: tensors[other], other: tensor}
    elif done == "add":
        tensors |= {name: tensor, "model.extra.weight": np.zeros(3, np.float32)}
    save_file(tensors, path, metadata={"format": "pt"})
    return f"{done} {name}"


def mutate_parquet(path: Path, draw: random.Random) -> str:
    """Drop, double, rename, recast or shuffle columns and rows of a Parquet file."""
    table = pq.read_table(path)
    name = draw.choice(table.column_names)
    place = table.column_names.index(name)
    done = draw.choice(
        ("drop", "rename", "null", "shorter", "longer", "reverse", "numbers", "lists", "binary", "double", "twice",
         "one cell", "next", "dictionary", "nested", "minus", "pieces")
    )  # fmt: skip
    rows = len(table)
    if done == "drop":
        table = table.drop_columns([name])
    elif done == "rename":
        table = table.rename_columns([f"{one}x" if one == name else one for one in table.column_names])
    elif done == "null":
        table = table.set_column(place, name, pa.nulls(rows, table[name].type))
    elif done == "shorter":
        table = table.slice(0, rows - 1)
    elif done == "longer":
        table = pa.concat_tables([table, table.slice(0, 1)])
    elif done == "reverse":
        table = table.take(pa.array(range(rows - 1, -1, -1)))
    elif done == "double":
        table = table.append_column(name, table[name])
    elif done == "twice":
        table = pa.concat_tables([table, table])
    elif done == "nested":
        table = table.append_column("more", pa.array([{"a": [1, None]}] * rows))
    elif done == "dictionary" and not pa.types.is_nested(table[name].type):
        table = table.set_column(place, name, table[name].combine_chunks().dictionary_encode())
    elif done in ("one cell", "next"):  # a value that is missing, or the one of the next row
        values = table[name].to_pylist()
        row = draw.randrange(rows)
        values[row] = None if done == "one cell" else values[row - 1]
        table = table.set_column(place, name, pa.array(values, table[name].type))
    elif done == "minus" and pa.types.is_integer(table[name].type):
        table = table.set_column(place, name, pc.negate(table[name]))
    elif done in ("minus", "dictionary", "pieces"):
        pq.write_table(table, path, row_group_size=1)
        return done
    else:
        columns = {
            "numbers": pa.array(np.arange(rows) / 2), "lists": pa.array([[1]] * rows),
            "binary": pa.array([b"\xff"] * rows),
        }  # fmt: skip
        table = table.set_column(place, name, columns[done])
    pq.write_table(table, path)
    return f"{done} {name}"


def mutate(folder: Path, draw: random.Random, names: list[str] | None = None) -> tuple[str, str]:
    """One mutation in a folder: the name of the file and what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py")
    path = draw.choice([file for file in files if names is None or file.name in names])
    kinds = {".json": mutate_json, ".safetensors": mutate_tensors, ".parquet": mutate_parquet}
    known = kinds.get(path.suffix)
    if known is None or draw.random() < 0.4:
        known = mutate_bytes
    return path.relative_to(folder).as_posix(), known(path, draw)


def copy_of(folder: Path, target: Path) -> Path:
    """A fresh copy to mutate."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("checkpoint-*")))
