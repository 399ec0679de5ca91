"""Measure how well items that were never trained are ranked, by where they start.

hfrec cold_items --dataset ml-100k --category_column genres --encoder path/to/encoder --output_dir cold
hfrec cold_items interactions.csv --items_file items.csv --category_column genres --output_dir cold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hfrec.commands.content import ContentArguments, each_and_all, read_content
from hfrec.commands.parsing import parse_arguments
from hfrec.training.arguments import DataArguments, ModelArguments, TrainingFlags

if TYPE_CHECKING:
    from hfrec.training.trainer_arguments import RecommenderTrainingArguments


@dataclass
class ColdItemsArguments(ContentArguments):
    """What is held out, and the content of the items."""

    cold_fraction: float = field(default=0.2, metadata={"help": "Share of the items, drawn at random, held out."})


Arguments: TypeAlias = "tuple[DataArguments, ModelArguments, ColdItemsArguments, RecommenderTrainingArguments]"


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    classes = (DataArguments, ModelArguments, ColdItemsArguments, TrainingFlags)
    data, shape, content, training = parse_arguments("cold_items", classes, words)
    return data, shape, content, training


def main(arguments: Arguments) -> dict[str, Any]:
    """Train without the held-out items, rank them under every start, write `cold_items.json` and print a table."""
    from hfrec.data.files import check_new_folder, write_json
    from hfrec.evaluation.protocol import versions
    from hfrec.training.rows import load_log
    from hfrec.transfer.content import join_features
    from hfrec.transfer.features import unit_features

    from ..cold_items import hold_out_items, summary

    data, shape, content, training = arguments
    check_new_folder(Path(training.output_dir))
    log = load_log(data)
    if log.items is None:
        raise ValueError("The log has no item metadata: name the table with `--items_file`.")
    items = log.items["item_id"].to_pylist()
    blocks = read_content(log.items, content)
    features = each_and_all(blocks, join_features)
    split = hold_out_items(log, fraction=content.cold_fraction, seed=training.seed)
    print(f"{len(split.items):,} items held out, {len(split.targets):,} users have one as target", flush=True)
    shape.item_representation = "id"
    ranks = rank_starts(trained(data, shape, training, split), items, features, training.seed)
    shape.item_representation, shape.head_transform = "content", False
    for name, chosen in each_and_all(blocks, unit_features).items():
        test = trained(data, shape, training, split, items=items, features=chosen)
        ranks[f"content: {name}"] = test.start(items, chosen, "features", seed=training.seed)
    results = {
        "num_cold_items": len(split.items),
        "num_targets": len(split.targets),
        "fingerprint": log.fingerprint,
        "content": vars(content),
        "seed": training.seed,
        "versions": versions(),
        **summary(ranks, ("random", "popularity")),
    }
    write_json(Path(training.output_dir) / "cold_items.json", results)
    print(table(results["metrics"]))
    for name, difference in results["differences in ndcg@10"].items():
        low, high = difference["cold"]["difference_ci"]
        print(f"{name}, cold candidates: {difference['cold']['difference']:+.4f} [{low:+.4f}, {high:+.4f}]")
    return results


def trained(
    data: DataArguments,
    shape: ModelArguments,
    training: RecommenderTrainingArguments,
    split: Any,
    *,
    items: list[str] | None = None,
    features: Any = None,
) -> Any:
    """A model of the warm log, stopped on each user's last warm item; of `features`, the rows of the warm `items`."""
    from hfrec.data.sequences import to_evaluation_sequences
    from hfrec.data.splits import leave_one_out
    from hfrec.training.rows import build_tokenizer, training_sequences
    from hfrec.training.trainer import DEFAULT_MAX_LENGTH, build_model, build_trainer, seed_everything
    from hfrec.transfer.features import rows_of
    from hfrec.transfer.specification import ContentBlock, ContentSpecification

    from ..cold_items import ColdItemsTest

    parts = leave_one_out(split.warm)
    tokenizer = build_tokenizer(split.warm)
    max_length = data.max_length or DEFAULT_MAX_LENGTH
    seed_everything(training)
    content = None
    if features is not None:
        block = ContentBlock("vectors", "joined", features.shape[1])
        rows = rows_of(tokenizer.items["item_id"].to_pylist(), items or [], features)
        content = ContentSpecification((block,)), rows
    trainer = build_trainer(
        build_model(shape, len(tokenizer), max_length, content=content),
        tokenizer,
        training_sequences(parts.history, tokenizer, shape.objective, data, max_length),
        to_evaluation_sequences(parts.history, parts.test, tokenizer),
        data=data,
        training=training,
    )
    trainer.train()
    return ColdItemsTest(trainer.accelerator.unwrap_model(trainer.model), tokenizer, split, (parts.history, parts.test))


def rank_starts(test: Any, items: list[str], blocks: dict[str, Any], seed: int) -> dict[str, Any]:
    """Ranks by the name of the start."""
    best = list(blocks)[-1]
    ranks = {"popularity": test.popularity(seed)}
    ranks["content neighbours of the history, no model"] = test.content_neighbours(items, blocks[best])
    ranks["random"] = test.start(items, None, "mean", seed=seed)
    ranks["mean + noise"] = test.start(items, blocks[best], "mean", seed=seed)
    ranks[f"neighbours: {best}"] = test.start(items, blocks[best], "neighbours", seed=seed)
    for name, features in blocks.items():
        ranks[f"ridge: {name}"] = test.start(items, features, "ridge", seed=seed)
    for spread in (0.25, 0.5, 0.75, 1.0):
        name = f"ridge: {best}, spread {spread}"
        ranks[name] = test.start(items, blocks[best], "ridge", spread=spread, seed=seed)
    return ranks


def table(metrics: dict[str, Any]) -> str:
    """NDCG@10 and HR@10 of cold targets among cold items and among all, and of warm targets, with intervals."""
    from hfrec.evaluation.table import align, cell

    columns = [("cold", "ndcg@10"), ("cold", "hit_rate@10"), ("all", "ndcg@10"), ("all", "hit_rate@10")]
    columns.append(("warm targets", "ndcg@10"))
    head = ["start", *(f"{where if 'warm' in where else where + ' candidates'}: {m}" for where, m in columns)]
    body = [[name, *(cell(parts[w], m) if w in parts else "" for w, m in columns)] for name, parts in metrics.items()]
    return align([head, *body])
