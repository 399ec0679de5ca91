"""Runs of the study: data, one run, and all of them in order, each written down before the next begins."""

from __future__ import annotations

import tempfile
import time
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedModel, set_seed

from hfrec.classical.item_knn import ItemKNNBaseline
from hfrec.classical.popularity import PopularityBaseline
from hfrec.data.interactions import Interactions, load_interactions
from hfrec.data.repeats import repeat_share, settle_filter_seen
from hfrec.data.sequences import to_evaluation_sequences, to_sequences
from hfrec.data.splits import hold_out_users, leave_one_out
from hfrec.evaluation.baseline_ranking import rank_baseline
from hfrec.evaluation.metrics.functions import ranking_metrics
from hfrec.evaluation.protocol import rank_among
from hfrec.evaluation.ranked_test import decided_by
from hfrec.tokenization import ItemTokenizer
from hfrec.training.anchors import Plan, distances
from hfrec.training.arguments import DataArguments
from hfrec.training.freezing import freeze
from hfrec.training.printing import ProgressLines
from hfrec.training.reference import read_reference
from hfrec.training.trainer import build_trainer
from hfrec.training.trainer_arguments import RecommenderTrainingArguments

from .arguments import StudyArguments
from .arms import Arm, Start, Trial, start_arm

METRIC = "ndcg@10"


class StudyData:
    """Users and rows of the study: the same test users in every run.

    Target users are divided at random (seed 0) into those that are only tested, those that only choose settings, and
    those that train, of whom a run gets a share. Test and validation users are new to every model: their last item is
    the target, all before it the history.
    """

    def __init__(self, arguments: StudyArguments) -> None:
        self.arguments = arguments
        target = rename_to_source(load_interactions(arguments.target_file), arguments.mapping_file)
        rest, self.test = hold_out_users(target, fraction=arguments.test_fraction, seed=0)
        share = arguments.validation_fraction / (1 - arguments.test_fraction)
        self.pool, self.validation = hold_out_users(rest, fraction=share, seed=0)
        self.items: list[str] = sorted(set(self.pool.table["item_id"].to_pylist()))

    def training_users(self, fraction: float, seed: int) -> Interactions:
        """A random share of the training users, at least two; a larger share holds the smaller ones of its seed."""
        users = np.array(pc.unique(self.pool.table["user_id"]).to_pylist())
        order = np.random.default_rng(seed).permutation(len(users))
        chosen = users[order[: max(2, round(fraction * len(users)))]]
        return self.pool.select(pc.is_in(self.pool.table["user_id"], pa.array(chosen)).to_numpy())

    def evaluation_rows(self, users: Interactions, tokenizer: ItemTokenizer) -> Any:
        """One row a user: the last item and all before it."""
        split = leave_one_out(users)
        return to_evaluation_sequences(split.history, split.test, tokenizer)

    @cached_property
    def filter_seen(self) -> bool:
        """Whether seen items are left out of all ranks: one answer for every arm, whatever its checkpoint says."""
        rows = self.evaluation_rows(self.validation, ItemTokenizer.from_items(self.items))
        return settle_filter_seen(self.arguments.filter_seen, repeat_share(rows))[0]

    @property
    def decided_by(self) -> str:
        """The protocol of the ranks."""
        return decided_by(self.filter_seen)

    @cached_property
    def source(self) -> Interactions:
        """The source's log."""
        return load_interactions(self.arguments.source_file)

    @cached_property
    def source_sample(self) -> Interactions:
        """The source users on whom forgetting is measured."""
        share = self.arguments.forgetting_users / self.source.num_users
        return self.source if share >= 1 else hold_out_users(self.source, fraction=share, seed=0)[1]


def rename_to_source(target: Interactions, mapping_file: str | None) -> Interactions:
    """Give mapped target items their source id; without a mapping ids are the same by themselves.

    Raises:
        ValueError: The mapping is empty or maps two items onto one.
    """
    if mapping_file is None:
        return target
    import pyarrow.csv

    pairs = pyarrow.csv.read_csv(mapping_file)
    to_source, to_target = (pairs.column(index).cast(pa.string()).to_pylist() for index in (0, 1))
    mapping = dict(zip(to_target, to_source, strict=True))
    if not mapping or len(mapping) != len(to_target) or len(set(to_source)) != len(to_source):
        raise ValueError(
            f"`mapping_file` {mapping_file} must pair each source item with one target item, found {len(to_target)} "
            f"rows with {len(set(to_source))} source and {len(mapping)} target items."
        )
    old = target.table["item_id"].to_pylist()
    new = pa.array([mapping.get(item, f"target:{item}") for item in old])
    table = target.table.set_column(target.table.column_names.index("item_id"), "item_id", new)
    return Interactions(table=table, items=None, report=target.report)


def run_once(data: StudyData, arm: Arm, fraction: float, seed: int, trial: Trial) -> dict[str, Any]:
    """Train an arm once.

    Returns:
        A row for the table, with the ranks of the test users in `ranks`. A pretrained arm has the ranks of the source
        users in `source_ranks` besides, and one that trained `distance/<block>`: how far it went from the checkpoint.
    """
    if arm.baseline:
        return run_baseline(data, arm, fraction, seed)
    began = time.perf_counter()
    start = start_arm(arm, data.arguments.model_name_or_path, data.items, seed=seed)
    set_seed(seed)
    if arm.trained:
        train(data, arm, start, data.training_users(fraction, seed), seed, trial)
    model: Any = start.model
    if arm.name == "lora":
        model = model.merge_and_unload()
    ranks = {
        name: rank_among(model, start.tokenizer, data.evaluation_rows(users, start.tokenizer), data.items)[
            data.decided_by
        ]
        for name, users in (("validation", data.validation), ("test", data.test))
    }
    row = {"arm": arm.name, "fraction": fraction, "seed": seed, **trial, "seconds": time.perf_counter() - began}
    row["decided_by"] = data.decided_by
    row |= {**target_metrics(ranks), "ranks": ranks["test"].tolist()}
    if arm.pretrained:
        rows = data.evaluation_rows(data.source_sample, start.tokenizer)
        known = start.tokenizer.items["item_id"].to_pylist()
        kept = rank_among(model, start.tokenizer, rows, known)[data.decided_by]
        row[f"source_{METRIC}"] = ranking_metrics(kept, ks=(10,), n_bootstrap=0)[METRIC]
        row["source_ranks"] = kept.tolist()
        if arm.trained:
            row |= way_from_checkpoint(model.requires_grad_(True), data.arguments.model_name_or_path, start.tokenizer)
    return row


def way_from_checkpoint(model: PreTrainedModel, checkpoint: str, tokenizer: ItemTokenizer) -> dict[str, float]:
    """Distance of each block from the checkpoint, rows of items by their id, as `distance/<block>`."""
    plan = Plan(model, read_reference(checkpoint, None, None), tokenizer.get_vocab(), alpha=1.0, beta=0.0)
    return {f"distance/{block}": value for block, value in distances(plan.terms(include_vectors=True)).items()}


def target_metrics(ranks: dict[str, NDArray[np.int64]]) -> dict[str, float]:
    """Metrics of the test users, and the one of the validation users that chooses."""
    chosen_by = ranking_metrics(ranks["validation"], ks=(10,), n_bootstrap=0)[METRIC]
    return {f"validation_{METRIC}": chosen_by, **ranking_metrics(ranks["test"], ks=(10,), n_bootstrap=0)}


def run_baseline(data: StudyData, arm: Arm, fraction: float, seed: int) -> dict[str, Any]:
    """Fit a baseline on the users that an arm trains on; returns what `run_once` does."""
    began = time.perf_counter()
    tokenizer = ItemTokenizer.from_items(data.items)
    rows = to_sequences(data.training_users(fraction, seed), tokenizer, unknown="drop")
    baseline = PopularityBaseline() if arm.name == "popularity" else ItemKNNBaseline()
    baseline.fit(rows.data["input_ids"].combine_chunks(), vocab_size=len(tokenizer))
    ranks = {}
    for name, users in (("validation", data.validation), ("test", data.test)):
        table = data.evaluation_rows(users, tokenizer).data
        histories, targets = table["input_ids"].combine_chunks(), table["target"].to_numpy()
        ranks[name] = rank_baseline(baseline, histories, targets)[data.decided_by]
    row = {"arm": arm.name, "fraction": fraction, "seed": seed, "seconds": time.perf_counter() - began}
    row["decided_by"] = data.decided_by
    return {**row, **target_metrics(ranks), "ranks": ranks["test"].tolist()}


def train(data: StudyData, arm: Arm, start: Start, users: Interactions, seed: int, trial: Trial) -> None:
    """Train in place; the epoch that is best on the validation users is kept."""
    if arm.name == "lp_ft":
        trainable = [weight for weight in start.model.parameters() if weight.requires_grad]
        freeze(start.model, "backbone")
        fit(data, start, users, seed, {**trial, "learning_rate": 2e-3}, steps=data.arguments.max_steps // 4)
        for weight in trainable:
            weight.requires_grad_(True)
    if arm.name == "joint":
        users = with_source_users(data, users, seed)
    fit(data, start, users, seed, trial, steps=data.arguments.max_steps)


def with_source_users(data: StudyData, users: Interactions, seed: int) -> Interactions:
    """As many source users as there are target users, beside them."""
    share = min(users.num_users / data.source.num_users, 0.5)
    sample = hold_out_users(data.source, fraction=share, seed=seed)[1]
    table = leave_one_out(sample).train.table.select(["user_id", "item_id"])
    table = table.set_column(0, "user_id", pc.binary_join_element_wise("source", table["user_id"], ":"))
    both = pa.concat_tables([users.table.select(["user_id", "item_id"]), table])
    order = pa.array(np.arange(len(both)))
    return load_interactions(both.append_column("timestamp", order))


def fit(data: StudyData, start: Start, users: Interactions, seed: int, trial: Trial, *, steps: int) -> None:
    """A Trainer run of at most `steps` steps, evaluated ten times, with early stopping after four without a gain."""
    length = start.model.config.max_position_embeddings
    rows = to_sequences(users, start.tokenizer, max_length=length, windows="overlapping", unknown="drop")
    per_epoch = -(-len(rows) // data.arguments.batch_size)
    steps = min(steps, max(30 * per_epoch, 50))
    every = max(steps // 10, 1)
    start.model.config.filter_seen = data.filter_seen  # decides on the metric of the best epoch
    with tempfile.TemporaryDirectory(prefix="hfrec-study-") as folder:
        training = RecommenderTrainingArguments(
            output_dir=folder,
            learning_rate=trial["learning_rate"],
            per_device_train_batch_size=data.arguments.batch_size,
            max_steps=steps,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_only_model=True,
            save_total_limit=1,
            logging_strategy="no",
            warmup_steps=steps // 20,
            early_stopping_patience=4,
            disable_tqdm=True,
            seed=seed,
        )
        trainer = build_trainer(
            start.model,
            start.tokenizer,
            rows,
            data.evaluation_rows(data.validation, start.tokenizer),
            data=DataArguments(train_file=data.arguments.target_file),
            training=training,
            callbacks=start.callbacks(trial),
        )
        # The figures of each evaluation would drown the study's own lines.
        trainer.remove_callback(ProgressLines)
        trainer.train()
