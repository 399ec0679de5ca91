"""The evaluation protocol of the commands: one target a user, the whole catalogue, baselines beside the model."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.collators import DataCollatorForNextItem
from ..data.repeats import filters_seen
from ..data.sequences import to_evaluation_sequences, to_sequences
from ..data.splits import Split
from ..data.temporal import new_items, new_users
from ..inference.prior import PopularityPrior, user_segments
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from .baselines import Baseline, ItemKNNBaseline, PopularityBaseline, rank_baseline
from .cohorts import DEFINITIONS, BoolArray, history_masks, summarise_cohorts, target_masks
from .metrics.functions import coverage, mean_popularity, ranking_metrics
from .ranking import PROTOCOLS, rank_dataset

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)
TOP_K = 10
PROTOCOL = {
    "split": "leave-one-out: the last item of each user is the target, all before it the history",
    "candidates": "the whole catalogue of the training vocabulary, no sampled negatives",
    "score_ties": "pessimistic: an item with the target's score ranks before it",
    "time_ties": "stable sort by (user, timestamp), file order on ties",
    "unknown_targets": "counted as misses",
    "baselines_trained_on": "the training part of the same split",
    "coverage": "share of the catalogue among all users' top items, seen items filtered",
    "mean_popularity": "mean training interactions of those items",
    "intervals": "95 %, bootstrap over users, 1000 resamples",
}
TEMPORAL = (
    "temporal: the training part ends before {validation_start}; the first interaction of each user from {test_start} "
    "on is the target, all of the user before it the history"
)
LEFT_OUT = "users without a known item before the test, whom a causal model without a prior cannot rank"


Objective = Literal["masked", "causal"]


def objective_of(model: PreTrainedModel) -> Objective:
    """`causal` or `masked`, by the class name, which a remotely loaded class shares."""
    return "causal" if type(model).__name__.endswith("ForCausalLM") else "masked"


def versions() -> dict[str, str]:
    """Versions that a result hangs on."""
    names = ("hfrec", "torch", "transformers", "datasets", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def evaluation_collator(model: PreTrainedModel, tokenizer: ItemTokenizer) -> DataCollatorForNextItem:
    """Makes rows of `to_evaluation_sequences` the model's batches, no longer than it reads."""
    return DataCollatorForNextItem(tokenizer, objective_of(model), max_length=model.config.max_position_embeddings)


def rows_to_rank(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    split: Split,
    part: Literal["validation", "test"],
    *,
    prior: PopularityPrior | None = None,
) -> datasets.Dataset:
    """Targets of a part with their histories; of a temporal split those that the model can rank.

    A causal model reads no empty history: without a prior that speaks for it, users who come with the part are left
    out of a temporal split. Leave-one-out leaves a history to everybody.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: A leave-one-out or temporal split.
        part: The part whose targets are ranked.
        prior: As `evaluate_checkpoint` mixes it in.

    Raises:
        ValueError: There are no targets, or none that the model can rank.
    """
    if part == "validation":
        rows = to_evaluation_sequences(split.train, split.validation_targets, tokenizer)
    else:
        rows = to_evaluation_sequences(split.history, split.test_targets, tokenizer)
    if split.targets == "all" or objective_of(model) == "masked" or prior is not None:
        return rows
    filled = pc.greater(pc.list_value_length(rows.data["input_ids"]), 0)
    if not pc.any(filled).as_py():
        raise ValueError(
            f"No user of the {part} part has a known item before it, and a causal model reads no empty history: move "
            f"`{part}_start`, or take a masked model."
        )
    import datasets

    # Not `rows.select`, which leaves the rows where they are and `rows.data` whole.
    return datasets.Dataset(rows.data.table.filter(filled))


def rank_among(
    model: PreTrainedModel, tokenizer: ItemTokenizer, rows: Any, items: Sequence[str], *, batch_size: int = 256
) -> dict[str, NDArray[np.int64]]:
    """Ranks of the targets among `items`, the same candidates for every model that is compared.

    Args:
        model: Masked or causal model.
        tokenizer: Its tokenizer; a candidate that it does not know is a miss (0) as a target, and no rival of others.
        rows: Rows of `to_evaluation_sequences`.
        items: The candidates.
        batch_size: Users scored at a time.

    Returns:
        `filter_seen` and `unfiltered`: (n,) ranks in row order.
    """
    vocabulary = tokenizer.get_vocab()
    allowed = [vocabulary[item] for item in items if item in vocabulary]
    collator = evaluation_collator(model, tokenizer)
    return rank_dataset(model, rows, collator, allowed_items=allowed, batch_size=batch_size)


def evaluate_checkpoint(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    split: Split,
    *,
    batch_size: int = 256,
    baselines: bool = True,
    cohorts: bool = False,
    prior: PopularityPrior | None = None,
    filter_seen: bool | None = None,
) -> dict[str, Any]:
    """Test a model on one target of each user, with and without the seen filter, beside the baselines.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: A leave-one-out or temporal split; the validation part belongs to the test history.
        batch_size: Users scored at a time.
        baselines: Whether popularity and item-kNN are fitted and ranked too.
        cohorts: Whether all are measured by history length and by kind of target too.
        prior: Mixed into the scores of short histories; the model alone then stands among the baselines.
        filter_seen: Whether the figures without seen items are the ones that decide; None: as the checkpoint says.

    Returns:
        `protocol`, `decided_by` ("filter_seen" or "unfiltered"), these two with the metrics, `baselines`, `n_users`,
        `n_unknown_targets`, of a temporal split `n_new_users`, `n_new_items` and `n_left_out`, and `cohorts` if asked
        for.
    """
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size}: they belong to "
            "different checkpoints; load both from one folder."
        )
    dataset = rows_to_rank(model, tokenizer, split, "test", prior=prior)
    collator = evaluation_collator(model, tokenizer)
    train = to_sequences(split.train, tokenizer, unknown="drop").data["input_ids"].combine_chunks()
    histories = dataset.data["input_ids"].combine_chunks()
    targets = dataset.data["target"].to_numpy()
    top_k = min(TOP_K, len(tokenizer) - NUM_SPECIAL_TOKENS)
    counts = np.bincount(train.values.to_numpy(), minlength=len(tokenizer))  # (vocab_size,)
    segments = None
    if prior is not None and prior.segment_column is not None:
        segments = user_segments(split.history.table, dataset["user_id"], prior.segment_column)
    options: dict[str, Any] = {"batch_size": batch_size, "top_k": top_k}
    ranks = {"model": rank_dataset(model, dataset, collator, prior=prior, segments=segments, **options)}
    if baselines and prior is not None:
        ranks["model_without_prior"] = rank_dataset(model, dataset, collator, **options)
    if baselines:
        fitted: dict[str, Baseline] = {
            "popularity": PopularityBaseline().fit(train, vocab_size=len(tokenizer)),
            "item_knn": ItemKNNBaseline().fit(train, vocab_size=len(tokenizer)),
        }
        ranks |= {name: rank_baseline(baseline, histories, targets, top_k=top_k) for name, baseline in fitted.items()}
    results: dict[str, Any] = {
        "protocol": {**_protocol(split), **({} if prior is None else {"prior": _prior_note(prior)})},
        "decided_by": decided_by(filters_seen(model.config) if filter_seen is None else filter_seen),
        "n_users": len(dataset),
        "n_unknown_targets": int((targets == tokenizer.unk_token_id).sum()),
        **({} if split.targets == "all" else _temporal_counts(split, len(dataset))),
        **_summary(ranks["model"], counts),
        "baselines": {name: _summary(found, counts) for name, found in ranks.items() if name != "model"},
    }
    if cohorts:
        rows = histories.to_numpy(zero_copy_only=False)
        masks = {**history_masks([len(row) for row in rows]), **target_masks(rows, targets, counts)}
        results["cohorts"] = _cohorts(ranks, masks)
    return results


def evaluate_rows(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    dataset: datasets.Dataset,
    counts: NDArray[np.int64],
    *,
    batch_size: int = 256,
) -> dict[str, Any]:
    """The test of `evaluate_checkpoint` on prepared rows that may be larger than memory; of baselines, popularity.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        dataset: Rows of `to_evaluation_sequences`.
        counts: (vocab_size,) training interactions of each token.
        batch_size: Users scored at a time.

    Returns:
        As `evaluate_checkpoint`.
    """
    collator = evaluation_collator(model, tokenizer)
    top_k = min(TOP_K, len(tokenizer) - NUM_SPECIAL_TOKENS)
    popularity = PopularityBaseline.from_counts(counts)
    pieces, unknown = [], 0
    for rows in dataset.with_format("arrow").iter(batch_size=batch_size):
        targets = rows["target"].to_numpy()
        unknown += int((targets == tokenizer.unk_token_id).sum())
        pieces.append(rank_baseline(popularity, rows["input_ids"].combine_chunks(), targets, top_k=top_k))
    popular = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return {
        "protocol": PROTOCOL,
        "decided_by": decided_by(filters_seen(model.config)),
        "n_users": len(dataset),
        "n_unknown_targets": unknown,
        **_summary(rank_dataset(model, dataset, collator, batch_size=batch_size, top_k=top_k), counts),
        "baselines": {"popularity": _summary(popular, counts)},
    }


def decided_by(filter_seen: bool) -> str:
    """Which of the two protocols chooses checkpoints and decides on verdicts."""
    return PROTOCOLS[0 if filter_seen else 1]


def _protocol(split: Split) -> dict[str, str]:
    if split.targets == "all":
        return PROTOCOL
    return {**PROTOCOL, "split": TEMPORAL.format_map(split.report.to_dict()), "left_out": LEFT_OUT}


def _temporal_counts(split: Split, ranked: int) -> dict[str, int]:
    targets = split.test_targets
    return {
        "n_new_users": new_users(split),
        "n_new_items": new_items(split, targets),
        "n_left_out": len(targets) - ranked,
    }


def _prior_note(prior: PopularityPrior) -> str:
    shares = ", ".join(f"{weight:.3f} at {length}" for length, weight in enumerate(prior.weights))
    where = f" in the user's {prior.segment_column}" if prior.segment_column else ""
    return f"popularity{where} mixed in by the length of the history: {shares}, 0 beyond"


def _cohorts(ranks: dict[str, dict[str, NDArray[np.int64]]], masks: dict[str, BoolArray]) -> dict[str, Any]:
    """Metrics of each cohort under both protocols: protocol -> cohort -> model or baseline."""
    found: dict[str, Any] = {"definitions": DEFINITIONS}
    for setting in PROTOCOLS:
        # The seen filter makes every repeat a miss: a metric of 0 that says nothing of the model.
        fair = {name: mask for name, mask in masks.items() if setting == "unfiltered" or name != "target repeat"}
        by_model = {name: summarise_cohorts(row[setting], fair) for name, row in ranks.items()}
        found[setting] = {cohort: {name: by_model[name][cohort] for name in ranks} for cohort in fair}
    return found


def _summary(ranks: dict[str, Any], counts: NDArray[np.int64]) -> dict[str, Any]:
    """Metrics of both protocols, and what is recommended to whom: coverage and mean popularity of the top items."""
    shown = ranks["recommended"]
    beyond = {f"coverage@{shown.shape[1]}": coverage(shown, num_items=len(counts) - NUM_SPECIAL_TOKENS)}
    if (shown >= NUM_SPECIAL_TOKENS).any():
        beyond[f"mean_popularity@{shown.shape[1]}"] = mean_popularity(shown, item_counts=counts)
    else:
        logger.warning_once(
            "Every user has seen the whole catalogue: with seen items filtered nothing is left to recommend and every "
            "target is a miss. Look at the unfiltered figures."
        )
    return {
        "filter_seen": {**ranking_metrics(ranks["filter_seen"]), **beyond},
        "unfiltered": ranking_metrics(ranks["unfiltered"]),
    }
