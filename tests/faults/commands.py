"""Every command that writes: its words, and what of its output must be equal from run to run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from hfrec import synthetic_tables
from hfrec.data.files import SEAL_FILE

from .harness import Outcome, Server

TINY = [
    "--max_length",
    12,
    "--per_device_train_batch_size",
    16,
    "--disable_tqdm",
    "true",
    "--early_stopping_patience",
    0,
]
STEPS = ["--save_strategy", "steps", "--save_steps", 3, "--eval_strategy", "steps", "--eval_steps", 3]
SMALL = ["--hidden_size", 16, "--num_hidden_layers", 1]
ONE_EPOCH = [*TINY, *STEPS, "--num_train_epochs", 1]
# Times, speeds and sizes of processes are of one run; so is where it lay.
_OF_ONE_RUN = re.compile(
    r"runtime|train_loss|per_second|second|elapsed|memory|milliseconds|versions|what_more|duration"
)


@dataclass(frozen=True)
class Inputs:
    """What the commands read.

    Args:
        folder: Holds all of it.
        log, newer, labels: CSV files: a log, one of other interactions, and a label of each user.
        sequences: The log prepared for streaming.
        model: A trained checkpoint.
        catalogue: Items with titles, of which the model knows most.
        content: A checkpoint whose items are made of categories.
        prior: `model` with a prior for short histories.
        shop, visits: Another catalogue with categories and a log of its items alone.
    """

    folder: Path
    log: Path
    newer: Path
    labels: Path
    sequences: Path
    model: Path
    catalogue: Path
    content: Path
    prior: Path
    shop: Path
    visits: Path


def make_inputs(server: Server, folder: Path) -> Inputs:
    """Logs, a checkpoint and a catalogue, made once."""
    names = ("log.csv", "newer.csv", "labels.csv", "sequences", "model", "items.csv")
    found = Inputs(folder, *(folder / name for name in (*names, "content", "prior", "shop.csv", "visits.csv")))
    folder.mkdir(parents=True, exist_ok=True)
    for seed, path in ((0, found.log), (1, found.newer)):
        table = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14, seed=seed)[0]
        pyarrow.csv.write_csv(table, path)
    users = dict.fromkeys(row.split(",")[0].strip('"') for row in found.log.read_text().splitlines()[1:])
    found.labels.write_text("user_id,group\n" + "".join(f"{user},{'ab'[hash_of(user) < '8']}\n" for user in users))
    run_whole(server, ["prepare", "--layout", "sequences", "--train_file", found.log, "--output_dir", found.sequences])
    words = ["pretrain", "--train_file", found.log, "--output_dir", found.model]
    run_whole(server, [*words, *ONE_EPOCH, *SMALL, "--objective", "masked"])
    items = pq.read_table(found.model / "items.parquet")["item_id"].to_pylist()
    lines = ["item_id,title", *(f"{item},Title {item} (1999)" for item in [*items[2:], "new-1", "new-2"])]
    found.catalogue.write_text("\n".join(lines) + "\n")
    rows = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14, seed=0)[1]
    pyarrow.csv.write_csv(rows, folder / "rows.csv")
    words = ["pretrain", "--train_file", found.log, "--output_dir", found.content, *ONE_EPOCH, *SMALL]
    words += ["--items_file", folder / "rows.csv", "--item_representation", "content+id"]
    run_whole(server, [*words, "--category_column", "genres", "--objective", "causal"])
    sizes = {"num_users": 50, "num_items": 24, "num_groups": 4, "min_length": 5, "max_length": 12}
    for table, path in zip(synthetic_tables(**sizes, seed=2), (found.visits, found.shop), strict=True):
        ids = pa.array([f"shop-{item}" for item in table["item_id"].to_pylist()])
        pyarrow.csv.write_csv(table.set_column(table.column_names.index("item_id"), "item_id", ids), path)
    shutil.copytree(found.model, found.prior)
    words = ["evaluate", "--model_name_or_path", found.prior, "--test_file", found.log, "--fit_prior", "true"]
    run_whole(server, [*words, "--output_dir", folder / "prior-results"])
    return found


def hash_of(text: str) -> str:
    """A digest that is the same in every process."""
    return hashlib.sha256(text.encode()).hexdigest()


def run_whole(server: Server, words: list[Any]) -> Outcome:
    """Run a command that must succeed."""
    outcome = server.run(words)
    if outcome.code:
        raise RuntimeError(f"{words}: {outcome}")
    return outcome


Words = Callable[[Inputs, Path], list[Any]]


def _of(model: Path, command: str, *words: Any) -> list[Any]:
    return [*command.split(), "--model_name_or_path", model, *words]


COMMANDS: dict[str, Words] = {
    "pretrain": lambda i, o: [
        "pretrain", "--train_file", i.log, "--output_dir", o, *ONE_EPOCH, *SMALL, "--objective", "masked"
    ],
    "pretrain final": lambda i, o: [*COMMANDS["pretrain"](i, o), "--final", "true"],
    "pretrain streaming": lambda i, o: [
        "pretrain", "--train_file", i.sequences, "--streaming", "true", "--output_dir", o, *ONE_EPOCH, *SMALL
    ],
    "finetune": lambda i, o: _of(
        i.model, "finetune", "--train_file", i.log, "--output_dir", o, *ONE_EPOCH, "--l2sp_alpha", "0.1"
    ),
    "finetune adopted": lambda i, o: _of(
        i.content, "finetune", "--train_file", i.visits, "--items_file", i.shop, "--output_dir", o, *ONE_EPOCH,
        "--l2sp_alpha", "0.1", "--l2sp_residual", "0.1",
    ),
    "finetune classification": lambda i, o: _of(
        i.model, "finetune", "--train_file", i.log, "--output_dir", o, *TINY, "--num_train_epochs", 1,
        "--task", "classification", "--label_file", i.labels, "--label_column", "group", "--folds", 2,
    ),
    "refresh": lambda i, o: _of(
        i.model, "refresh", "--train_file", i.log, "--output_dir", o, *ONE_EPOCH,
        "--refresh_start", 1600030000, "--test_start", 1600070000,
    ),
    "baseline": lambda i, o: ["baseline", "--method", "item_knn", "--train_file", i.log, "--output_dir", o],
    "baseline final": lambda i, o: [*COMMANDS["baseline"](i, o), "--final", "true"],
    "blend": lambda i, o: _of(i.model, "blend", "--methods", "item_knn", "--train_file", i.log, "--output_dir", o),
    "evaluate": lambda i, o: _of(i.model, "evaluate", "--test_file", i.log, "--output_dir", o),
    "recommend": lambda i, o: _of(
        i.model, "recommend", "--history_file", i.log, "--output_file", o / "lists.csv", "--unknown_items", "drop"
    ),
    "recommend zero-shot": lambda i, o: _of(
        i.content, "recommend", "--history_file", i.visits, "--items_file", i.shop, "--output_file", o / "lists.csv"
    ),
    "export": lambda i, o: _of(i.model, "export", "--output_dir", o),
    "items add": lambda i, o: _of(i.model, "items add", "--items_file", i.catalogue, "--output_dir", o),
    "items align": lambda i, o: _of(i.model, "items align", "--items_file", i.catalogue, "--output_dir", o),
    "items adopt": lambda i, o: _of(i.content, "items adopt", "--items_file", i.shop, "--output_dir", o),
    "prepare": lambda i, o: ["prepare", "--train_file", i.log, "--output_dir", o],
    "prepare sequences": lambda i, o: [
        "prepare", "--layout", "sequences", "--train_file", i.log, "--output_dir", o
    ],
    "tune": lambda i, o: [
        "tune", "--train_file", i.log, "--output_dir", o, "--n_trials", 2, "--n_jobs", 1, "--trial_steps", 4,
        "--objective", "masked", *SMALL, "--disable_tqdm", "true",
    ],
    "study": lambda i, o: _of(
        i.model, "study", "--source_file", i.log, "--target_file", i.newer, "--output_dir", o, "--max_steps", 2,
        "--fractions", 1.0, "--seeds", 0, "--arms", "popularity", "zero_shot", "--num_processes", 1,
    ),
    "demo": lambda i, o: [
        "demo", "--dataset", i.log, "--output_dir", o, "--source_epochs", 1, "--target_epochs", 1, "--max_length", 12,
    ],
    "compare": lambda i, o: ["compare", i.model, "--output_file", o / "compare.json", "--report", o / "compare.html",
        "--n_bootstrap", 200,
    ],
}  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """What of an output must be equal from run to run, by the name of the file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            not path.is_file()
            or name.startswith(("checkpoint-", "runs/", "_"))
            or "/checkpoint-" in name
            or "/_" in name
        ):
            continue
        if path.name == SEAL_FILE:
            found[name] = " ".join(sorted(json.loads(path.read_text())))  # of files with times in them
        elif path.suffix == ".json":
            found[name] = hash_of(json.dumps(_of_every_run(json.loads(path.read_text()), folder), sort_keys=True))
        elif path.suffix in (".md", ".db", ".csv") and path.name != "lists.csv":
            found[name] = "there"  # a card tells of times
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _of_every_run(content: Any, folder: Path) -> Any:
    if isinstance(content, dict):
        kept = {key: value for key, value in content.items() if not _OF_ONE_RUN.search(key)}
        return {key: _of_every_run(value, folder) for key, value in kept.items()}
    if isinstance(content, list):
        return [_of_every_run(value, folder) for value in content]
    return content.replace(str(folder), "") if isinstance(content, str) else content
