"""A source teaches a target with which it shares no item: at home, zero-shot, and fine-tuned on a share of its users.

python benchmarks/content_transfer.py --source data/amazon-beauty --target data/amazon-toys --encoder path/to/encoder \
  --text_column text_keywords --category_column attributes --output_dir outputs/beauty-toys

Several logs of `--source` are pretrained on at once, each with a catalogue of its own; each needs the columns.
One set of settings for every network; with `--tune`, of three settings of each arm the best on as many further users
as test, who are in no share. The source models are kept in the output folder. Test users are
drawn once; on the target, nobody trains on them. Each test user's last item is ranked over the whole catalogue, seen
items filtered. Ids never meet, whatever the logs call their items.

Arms on a share of the target's users: popularity, item-kNN, EASE, item-kNN and the cosine of content mixed half and
half; networks of ids and of content from scratch; the source's network fine-tuned, with L2-SP, with a frozen body, and
from a source whose items had each other's content. `--cold` holds a fifth of the source's items out in place of this.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.content_arms import NETWORKS, ContentCosine, Network, Ranks, Settled, best_of, classical
from benchmarks.content_tables import read, tables
from benchmarks.study.cold_items import ColdItemsTest, hold_out_items
from hfrec import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    ContentSpecification,
    DataCollatorForNextItem,
    Interactions,
    ItemTokenizer,
    L2SPCallback,
    RecommenderTrainingArguments,
    content_features,
    describe_content,
    leave_one_out,
    load_checkpoint,
    load_interactions,
    rank_baseline,
    rank_dataset,
    ranking_metrics,
    set_item_features,
    to_evaluation_sequences,
)
from hfrec.data.files import write_json
from hfrec.data.source_names import source_names
from hfrec.data.sources import Block, JoinedSources
from hfrec.data.splits import Split
from hfrec.training.arguments import DataArguments
from hfrec.training.freezing import freeze
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec.training.start import anchored_rows, histories_and_counts, start_adopted, start_from_log
from hfrec.training.trainer import build_trainer
from hfrec.transfer.adoption import Adoption, adopt
from hfrec.transfer.features import rows_of

BATCH = 128
COLUMNS = ("encoder", "text_column", "category_column", "category_separator")
COLD_SEED = 42  # of the items held out, as in model_cards/cold-items.md


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, nargs="+", help="Several are for all but --home and --cold.")
    parser.add_argument("--target", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--text_column", default="title")
    parser.add_argument("--category_column")
    parser.add_argument("--category_separator", default="|")
    parser.add_argument("--target_category_separator", help="Where the target's differs.")
    parser.add_argument("--max_length", type=int, default=20)
    parser.add_argument(
        "--representation", choices=("content", "content+id"), default="content+id", help="Of the source."
    )
    parser.add_argument("--shuffled", action="store_true", help="A source of shuffled content too.")
    parser.add_argument("--cold", action="store_true", help="In place of all this: items of the source held out.")
    parser.add_argument("--home", action="store_true", help="The networks at home too, with one of ids.")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--source_epochs", type=float, default=3)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--max_steps", type=int, default=200, help="Of fine-tuning, at most 5 epochs.")
    parser.add_argument("--test_users", type=int, default=2000)
    parser.add_argument("--tune", action="store_true", help="Of each arm the best of three settings, by other users.")
    parser.add_argument("--ease", action="store_true", help="EASE too: minutes on a catalogue of 12,000 items.")
    parser.add_argument("--arms", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="Networks on shares.")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.4)
    arguments = parser.parse_args()
    if len(arguments.source) > 1 and (arguments.home or arguments.cold):
        parser.error("--home and --cold are for one --source.")
    return arguments


def users_of(log: Interactions) -> list[str]:
    """In an order that does not depend on the file's."""
    return sorted(set(log.table["user_id"].to_pylist()))


def of_users(log: Interactions, users: Sequence[str]) -> Interactions:
    return log.select(np.asarray(pc.is_in(log.table["user_id"], value_set=pa.array(users, pa.string()))))


def shape(
    arguments: argparse.Namespace, vocab_size: int, specification: ContentSpecification | None, representation: str
) -> Bert4RecConfig:
    """Of every network here; ids alone where there is no specification."""
    content = {"item_representation": representation, "item_content": specification.to_dict()} if specification else {}
    return Bert4RecConfig(
        vocab_size=vocab_size,
        max_position_embeddings=arguments.max_length,
        position_embedding_type="rotary",
        head_transform=False,
        loss="sampled_softmax",
        hidden_dropout_prob=arguments.dropout,
        **content,
    )


def train(
    model: Any,
    tokenizer: ItemTokenizer,
    log: Interactions,
    arguments: argparse.Namespace,
    seed: int,
    *,
    epochs: float,
    max_steps: int | None = None,
    callbacks: Sequence[Any] = (),
    rate: float = 1.0,
) -> Any:
    """The stock `Trainer`, without validation: for so many epochs, and at most so many steps."""
    data = DataArguments(train_file="given")
    rows = training_sequences(log, tokenizer, "causal", data, arguments.max_length)
    batch = min(BATCH, max(16, len(rows) // 8))
    steps = round(epochs * len(rows) / batch)
    training = RecommenderTrainingArguments(
        output_dir=str(arguments.output_dir / "trainer"),
        max_steps=max(1, steps if max_steps is None else min(steps, max_steps)),
        per_device_train_batch_size=batch,
        learning_rate=rate * arguments.learning_rate,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )
    build_trainer(model, tokenizer, rows, None, data=data, training=training, callbacks=callbacks).train()
    return model


class Test:
    """Users whose last items are ranked among all items of a tokenizer."""

    def __init__(self, history: Interactions, targets: Interactions, max_length: int) -> None:
        self.history, self.targets, self.max_length = history, targets, max_length

    def ranks(self, model: Any, tokenizer: ItemTokenizer) -> Ranks:
        collator = DataCollatorForNextItem(tokenizer, "causal", max_length=self.max_length)
        rows = to_evaluation_sequences(self.history, self.targets, tokenizer)
        return rank_dataset(model, rows, collator)["filter_seen"]  # type: ignore[return-value]

    def baseline_ranks(self, baseline: Any, tokenizer: ItemTokenizer) -> Ranks:
        rows = to_evaluation_sequences(self.history, self.targets, tokenizer)
        histories, targets = (rows.data[name].combine_chunks() for name in ("input_ids", "target"))
        return rank_baseline(baseline, histories, targets.to_numpy())["filter_seen"]  # type: ignore[return-value]


def to_lists(log: Interactions, tokenizer: ItemTokenizer) -> Any:
    pieces, _ = histories_and_counts(log, tokenizer)
    return pa.chunked_array(pieces).combine_chunks()


def source_split(folders: Sequence[str]) -> tuple[Split, ItemTokenizer, list[Block] | None]:
    """The log of the source, its vocabulary and, of several logs, which items compete with each other."""
    named = zip(source_names(folders), folders, strict=True)
    splits = {name: leave_one_out(load_interactions(folder)) for name, folder in named}
    tokenizers = {name: build_tokenizer(split.history) for name, split in splits.items()}
    if len(folders) == 1:
        return splits.popitem()[1], tokenizers.popitem()[1], None
    joined = JoinedSources(splits, tokenizers)
    return joined.split, joined.tokenizer, list(joined.blocks.values())


def pretrained(arguments: argparse.Namespace, say: Callable[..., None]) -> dict[str, tuple[Any, Any]]:
    """The source models, kept in the output folder; at home they are ranked too where that is asked for."""
    parts, tokenizer, blocks = source_split(arguments.source)
    specification = describe_content(tokenizer.items, **{name: getattr(arguments, name) for name in COLUMNS})
    features = content_features(specification, tokenizer.items)
    counted = histories_and_counts(parts.history, tokenizer)
    drawn = np.random.default_rng(0).permutation(users_of(parts.test))[: arguments.test_users].tolist()
    test = Test(of_users(parts.history, drawn), of_users(parts.test, drawn), arguments.max_length)
    if arguments.home:
        cosine = ContentCosine(features, arguments.max_length)
        histories = to_lists(parts.history, tokenizer)
        made = classical(histories, len(tokenizer), cosine, ease=arguments.ease, tune=False)
        for name, ((_, one),) in made.items():
            say("home", name, test.baseline_ranks(one, tokenizer))
        say("home", "cosine of content", test.baseline_ranks(cosine, tokenizer))
    orders: dict[str, torch.Tensor | None] = {"source": features}
    if arguments.shuffled:
        orders["shuffled"] = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]
    if arguments.home:
        orders = {"ids": None, **orders}
    for name, rows in orders.items():
        folder = arguments.output_dir / name
        if folder.exists():
            continue
        torch.manual_seed(0)
        described = None if rows is None else specification
        model = Bert4RecForCausalLM(shape(arguments, len(tokenizer), described, arguments.representation))
        if rows is not None:
            set_item_features(model, rows)
        start_from_log(model, *counted, seed=0)
        model.compete_within(blocks)
        if arguments.home:
            say("home", f"{name}, before the first step", test.ranks(model, tokenizer))
        train(model, tokenizer, parts.history, arguments, 0, epochs=arguments.source_epochs)
        if arguments.home:
            say("home", name, test.ranks(model, tokenizer))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return {name: load_checkpoint(arguments.output_dir / name) for name, rows in orders.items() if rows is not None}


def on_cold_items(arguments: argparse.Namespace, log: Interactions, say: Callable[..., None]) -> None:
    """A fifth of the source's items, that nobody trains on: each user's last one, ranked among them by its content."""
    split = hold_out_items(log, fraction=0.2, seed=COLD_SEED)
    parts, tokenizer = leave_one_out(split.warm), build_tokenizer(split.warm)
    specification = describe_content(tokenizer.items, **{name: getattr(arguments, name) for name in COLUMNS})
    items, features = log.items["item_id"].to_pylist(), content_features(specification, log.items)
    counted = histories_and_counts(parts.history, tokenizer)
    for representation in ("content", "content+id"):
        torch.manual_seed(0)
        model = Bert4RecForCausalLM(shape(arguments, len(tokenizer), specification, representation))
        set_item_features(model, rows_of(tokenizer.items["item_id"].to_pylist(), items, features))
        start_from_log(model, *counted, seed=0)
        for name in ("before the first step", "trained"):
            if name == "trained":
                train(model, tokenizer, parts.history, arguments, 0, epochs=arguments.source_epochs)
            test = ColdItemsTest(model.eval(), tokenizer, split, (parts.history, parts.test))
            for where, ranks in test.start(items, features, "features", seed=0).items():
                say(f"cold: {where}", f"{representation}, {name}", ranks)
    for where, ranks in test.content_neighbours(items, features).items():
        say(f"cold: {where}", "cosine of content, whole history", ranks)


def apart(log: Interactions, arguments: argparse.Namespace) -> Interactions:
    """The target with ids that no other log has, and categories joined as the source's are."""
    joined = arguments.target_category_separator
    tables = []
    for table in (log.table, log.items):
        ids = pc.binary_join_element_wise("target", table["item_id"].cast(pa.string()), ":")
        tables.append(table.set_column(table.column_names.index("item_id"), "item_id", ids))
    if joined is not None:
        place = tables[1].column_names.index(arguments.category_column)
        texts = pc.replace_substring(tables[1].column(place), joined, arguments.category_separator)
        tables[1] = tables[1].set_column(place, arguments.category_column, texts)
    return load_interactions(tables[0], items=tables[1])


def on_target(
    arguments: argparse.Namespace, log: Interactions, sources: dict[str, tuple[Any, Any]], say: Callable[..., None]
) -> None:
    """Every arm on every share of the target's users."""
    log = apart(log, arguments)
    length = arguments.max_length
    parts = leave_one_out(log)
    order = np.random.default_rng(0).permutation(users_of(log)).tolist()
    held_out, rest = order[: arguments.test_users], order[arguments.test_users :]
    chosen_on: list[str] = []
    if arguments.tune:
        rest, chosen_on = rest[: -arguments.test_users], rest[-arguments.test_users :]
    test = Test(of_users(parts.history, held_out), of_users(parts.test, held_out), length)
    specification = ContentSpecification.from_dict(sources["source"][0].config.item_content)
    features = content_features(specification, log.items, encoder=arguments.encoder)
    cosine = ContentCosine(features, length)
    adopted: dict[str, tuple[Any, Adoption]] = {}
    for source, (model, known) in sources.items():
        model = deepcopy(model)
        adoption = adopt(model, known, log.items, encoder=arguments.encoder)
        print(f"{source}: {adoption}", flush=True)
        tokenizer = adoption.tokenizer
        say("target", f"{source}, zero-shot", test.ranks(model, tokenizer))
        adopted[source] = model, adoption
    say("target", "cosine of content", test.baseline_ranks(cosine, tokenizer))
    target = Target(arguments, tokenizer, specification, features, adopted)
    validation = Test(of_users(parts.history, chosen_on), of_users(parts.test, chosen_on), length)
    settled = Settled(arguments.output_dir / "tuned.json", lambda model: validation.ranks(model, tokenizer))
    for seed in arguments.seeds:
        for fraction in arguments.fractions:
            drawn = np.random.default_rng(seed + 1).permutation(rest)[: max(2, round(fraction * len(rest)))].tolist()
            share = of_users(log, drawn)
            where = f"target {fraction:.0%}"
            histories = to_lists(share, tokenizer)
            made = classical(histories, len(tokenizer), cosine, ease=arguments.ease, tune=arguments.tune)
            for name, trials in made.items():
                chosen = best_of(trials, lambda one: validation.baseline_ranks(one[1], tokenizer))
                print(f"{where}: {name} {chosen[0]}", flush=True)
                say(where, name, test.baseline_ranks(chosen[1], tokenizer), seed)
            for name in arguments.arms:
                network = NETWORKS[name]
                if network.start is not None and network.start not in adopted:
                    continue
                if arguments.tune:
                    network = settled.network(where, name, partial(target.fit, share=share, seed=seed))
                say(where, name, test.ranks(target.fit(network, share, seed), tokenizer), seed)


@dataclass(frozen=True)
class Target:
    """What every network on the target has in common."""

    arguments: argparse.Namespace
    tokenizer: ItemTokenizer
    specification: ContentSpecification
    features: torch.Tensor
    adopted: dict[str, tuple[Any, Adoption]]

    def fit(self, network: Network, share: Interactions, seed: int) -> Any:
        """Train a network on a share of the users."""
        arguments, tokenizer = self.arguments, self.tokenizer
        counted = histories_and_counts(share, tokenizer)
        torch.manual_seed(seed)
        pull = []
        if network.start is not None:
            model, adoption = deepcopy(self.adopted[network.start])
            start_adopted(model, *counted, adoption=adoption, seed=seed)
            freeze(model, network.freeze)
            if network.alpha:
                anchored = anchored_rows(adoption, from_log=True)
                folder = str(arguments.output_dir / network.start)
                residual = network.alpha / 10
                pull = [L2SPCallback(folder, alpha=network.alpha, residual=residual, tokenizer=anchored)]
        else:
            described = self.specification if network.of_content else None
            model = Bert4RecForCausalLM(shape(arguments, len(tokenizer), described, "content+id"))
            if described is not None:
                set_item_features(model, self.features)
            start_from_log(model, *counted, seed=seed)
        return train(
            model,
            tokenizer,
            share,
            arguments,
            seed,
            epochs=5,
            max_steps=arguments.max_steps,
            callbacks=pull,
            rate=network.rate,
        )


def main() -> None:
    arguments = parse()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, list[Any]]] = {}

    def say(where: str, name: str, ranks: Ranks, seed: int = 0) -> None:
        found.setdefault(where, {}).setdefault(name, []).append(np.asarray(ranks).tolist())
        metrics = ranking_metrics(np.asarray(ranks), ks=(10,))
        print(f"{where:<20}{name:<38}seed {seed}  {json.dumps(metrics['ndcg@10'])}", flush=True)
        write_json(arguments.output_dir / f"ranks-{'-'.join(map(str, arguments.seeds))}.json", found)

    if arguments.cold:
        return on_cold_items(arguments, load_interactions(arguments.source[0]), say)
    on_target(arguments, load_interactions(arguments.target), pretrained(arguments, say), say)
    print(tables(read(arguments.output_dir)))


if __name__ == "__main__":
    main()
