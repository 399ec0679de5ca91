"""The whole way on MovieLens-100K: pretrain on early users, fine-tune on late ones, compare, recommend.

hfrec demo
hfrec demo --output_dir outputs/demo --source_epochs 5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .parsing import parse_into


@dataclass
class DemoArguments:
    """Size of the demonstration; the defaults take minutes on two cores."""

    output_dir: str = field(
        default="outputs/demo", metadata={"help": "New or empty folder; a demo that was cut off goes on."}
    )
    dataset: str = field(default="ml-100k", metadata={"help": "Named data set, file or folder."})
    target_fraction: float = field(default=0.2, metadata={"help": "Share of users, the latest, that are the target."})
    max_length: int = field(default=50, metadata={"help": "Newest items the model reads."})
    source_epochs: float = field(default=40, metadata={"help": "Epochs of pretraining."})
    target_epochs: float = field(default=30, metadata={"help": "Most epochs of each run on the target."})
    l2sp_alpha: float = field(default=0.01, metadata={"help": "Strength of L2-SP, coupled."})
    seed: int = field(default=0, metadata={"help": "Seed of all runs."})


RESULTS_FILE = "demo_results.json"  # written last
# Arms that came from the source, by the folder of their checkpoint.
CHECKPOINTS = {
    "zero-shot": "pretrained",
    "fine-tuned": "finetuned",
    "fine-tuned + L2-SP": "finetuned_l2sp",
}


parse = parse_into("demo", DemoArguments)


def main(arguments: DemoArguments) -> dict[str, Any]:
    """Run every arm, print the table, ten recommendations and how to load the checkpoint."""
    from ..data.files import write_json
    from ..data.interactions import load_interactions
    from ..data.splits import hold_out_users, leave_one_out
    from ..evaluation.protocol import evaluate_checkpoint
    from ..hub.checkpoint import load_checkpoint
    from ..training.runfile import begin_in

    folder = Path(arguments.output_dir)
    check_demo_folder(folder)
    print(f"1/5  Reading {arguments.dataset}", flush=True)
    log = load_interactions(arguments.dataset)
    source, target = hold_out_users(log, fraction=arguments.target_fraction, by="latest")
    settings = {name: value for name, value in vars(arguments).items() if name != "output_dir"}
    logs = {"source": source.fingerprint, "target": target.fingerprint}
    if begin_in(folder, {"log": logs, "demo": settings}):
        print("     goes on with what was done before")
    files = write_logs({"source": source, "target": target}, folder)
    print(f"     source: {source.num_users} users, {len(source):,} interactions (those who came first)")
    print(f"     target: {target.num_users} users, {len(target):,} interactions (those who came later)")
    arms = train_arms(arguments, folder, files)
    split = leave_one_out(source)
    for name, checkpoint in CHECKPOINTS.items():
        model, tokenizer = load_checkpoint(folder / checkpoint)
        if name not in arms:
            arms[name] = evaluate_checkpoint(model, tokenizer, leave_one_out(target), baselines=False)
        arms[name]["source"] = evaluate_checkpoint(model, tokenizer, split, baselines=False)
    print_table(arms)
    show_recommendations(folder / "finetuned_l2sp", target)
    write_json(folder / RESULTS_FILE, arms)
    return arms


def check_demo_folder(folder: Path) -> None:
    """Refuse a folder that holds a demo that is done, or anything else than one that was cut off.

    Raises:
        ValueError: With what is there.
    """
    from ..data.files import RUN_FILE, check_folder, check_new_folder

    check_folder(folder)
    if (folder / RESULTS_FILE).is_file():
        raise ValueError(f"`output_dir` {folder} holds a demo that is done: choose another folder, or remove it.")
    if not (folder / RUN_FILE).is_file():
        check_new_folder(folder)


def write_logs(parts: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write the parts of the log, with the item metadata in reach of the commands; the file of each part."""
    import pyarrow.parquet as pq

    from ..data.files import whole_files

    with whole_files(folder) as draft:
        for name, part in parts.items():
            pq.write_table(part.table, draft / f"{name}.parquet")
            if part.items is not None and "title" in part.items.column_names:
                pq.write_table(part.items, draft / "items.parquet")
    return {name: folder / f"{name}.parquet" for name in parts}


def train_arms(arguments: DemoArguments, folder: Path, files: dict[str, Path]) -> dict[str, Any]:
    """Pretrain, fine-tune with and without L2-SP, train from scratch, and blend; test results by arm."""
    from . import blend, finetune, pretrain

    shared = ["--max_length", arguments.max_length, "--seed", arguments.seed, "--warmup_steps", 50]
    shared += ["--per_device_train_batch_size", 32]
    shared += ["--early_stopping_patience", 8]
    shared += ["--items_file", folder / "items.parquet"] if (folder / "items.parquet").is_file() else []
    on_target = [*shared, "--train_file", files["target"], "--num_train_epochs", arguments.target_epochs]
    start = [*on_target, "--model_name_or_path", folder / "pretrained", "--learning_rate", 5e-4]
    pull = ["--l2sp_mode", "coupled", "--l2sp_alpha", arguments.l2sp_alpha]
    results = {}
    print("2/5  Pretraining on the source", flush=True)
    epochs = ["--num_train_epochs", arguments.source_epochs]
    run(pretrain, [*shared, *epochs, "--train_file", files["source"], "--output_dir", folder / "pretrained"])
    print("3/5  Fine-tuning on the target, without and with L2-SP", flush=True)
    results["fine-tuned"] = run(finetune, [*start, "--output_dir", folder / "finetuned"])
    results["fine-tuned + L2-SP"] = run(finetune, [*start, *pull, "--output_dir", folder / "finetuned_l2sp"])
    print("4/5  Training from scratch on the target, and blending the fine-tuned model", flush=True)
    results["scratch"] = run(pretrain, [*on_target, "--output_dir", folder / "scratch"])
    mixed = ["--model_name_or_path", folder / "finetuned_l2sp", "--train_file", files["target"]]
    results["blend"] = run(blend, [*mixed, "--output_dir", folder / "blend"])
    return results


def run(command: Any, words: Sequence[Any]) -> dict[str, Any]:
    """The test results of a training command, which is left out where it was done before."""
    from ..data.files import read_json_object
    from ..data.locks import locked_folder
    from ..hub.model_card import write_model_card

    given = [str(word) for word in words]
    folder = Path(given[given.index("--output_dir") + 1])
    with locked_folder(folder):  # which also brings to its end what a killed demo began there
        if not (folder / "all_results.json").is_file():
            found: dict[str, Any] = command.main(command.parse(given))
        else:
            found = read_json_object(folder / "all_results.json")
            if not (folder / "README.md").exists():
                write_model_card(folder)
            print(f"     done before: {folder}", flush=True)
    results: dict[str, Any] = found["test"]
    return results


def print_table(arms: dict[str, Any]) -> None:
    """NDCG@10 and HR@10 of the target's test items, and what is kept of the source's, with 95 % intervals."""
    from ..evaluation.table import align, cell
    from ..evaluation.verdict import verdict_text

    baselines = arms["fine-tuned"]["baselines"]
    rows = {"popularity": baselines["popularity"], "item-kNN": baselines["item_knn"]}
    rows |= {"EASE": baselines["ease"]} if "ease" in baselines else {}
    rows |= {name: arms[name] for name in ("scratch", "zero-shot", "fine-tuned", "fine-tuned + L2-SP", "blend")}
    metrics = ("ndcg@10", "hit_rate@10")
    body = [
        [
            name,
            *(cell(row["filter_seen"], metric) for metric in metrics),
            cell(row["source"]["filter_seen"], "ndcg@10") if "source" in row else "",
        ]
        for name, row in rows.items()
    ]
    print(f"\n5/5  Users' last items, whole catalogue, seen filtered; target: {arms['fine-tuned']['n_users']} users")
    print(align([["", "NDCG@10 [95 %]", "HR@10 [95 %]", "source: NDCG@10 [95 %]"], *body]))
    print(verdict_text(arms["fine-tuned + L2-SP"]["verdict"], "The model fine-tuned with L2-SP"))
    print(verdict_text(arms["blend"]["verdict"], "The blend of it with Markov chain, item-kNN and EASE"))


def show_recommendations(checkpoint: Path, target: Any) -> None:
    """One user's history, ten recommendations with titles, and the lines that load the checkpoint."""
    from ..data.interactions import histories_of
    from ..hub.checkpoint import load_checkpoint
    from ..inference.recommend import recommend

    model, tokenizer = load_checkpoint(checkpoint)
    users, histories = histories_of(target.table)
    titles = (
        dict(zip(*(tokenizer.items[name].to_pylist() for name in ("item_id", "title")), strict=True))
        if ("title" in tokenizer.items.column_names)
        else {}
    )
    print(f"\nUser {users[0]} saw last:")
    for item in histories[0][-5:]:
        print(f"    {titles.get(item) or item}")
    print("and is recommended:")
    for found in recommend(model, tokenizer, histories[:1], top_k=10, unknown_items="drop")[0]:
        print(f"    {found['rank']:>2}. {found.get('title') or found['item_id']}  ({found['score']:.2f})")
    print(f"\nThe checkpoint lies in {checkpoint}. Load it with:\n")
    print("    import hfrec")
    print("    from transformers import pipeline")
    print(f'    recommender = pipeline("recommendation", model="{checkpoint}")')
    print(
        "\nNext, train on a log of your own, a file with the columns user_id, item_id and timestamp:\n\n"
        "    hfrec pretrain --train_file interactions.csv --output_dir outputs/mine --final true"
    )
