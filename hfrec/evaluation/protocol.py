"""The evaluation protocol of the commands: leave-one-out, the whole catalogue, baselines beside the model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..classical import PopularityBaseline
from ..data.collators import DataCollatorForNextItem, objective_of
from ..data.interactions import timestamps_to_numpy
from ..data.sequences import to_evaluation_sequences, to_sequences
from ..data.splits import Split
from ..inference.prior import PopularityPrior, user_segments
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from .baseline_ranking import rank_baseline
from .cohorts import DEFINITIONS, BoolArray, history_masks, summarise_cohorts, target_masks
from .metrics.functions import coverage, mean_popularity, ranking_metrics
from .ranking import PROTOCOLS, rank_dataset
from .tuning import GRIDS, MAX_USERS, Method, TrainingLog, TunedBaseline, batch_rows, tuned_baselines

if TYPE_CHECKING:
    import datasets

TOP_K = 10
PROTOCOL = {
    "split": "leave-one-out: the last item of each user is the target, all before it the history",
    "candidates": "the whole catalogue of the training vocabulary, no sampled negatives",
    "score_ties": "pessimistic: an item with the target's score ranks before it",
    "time_ties": "stable sort by (user, timestamp), file order on ties",
    "unknown_targets": "counted as misses",
    "baselines_trained_on": "the training part of the same split",
    "baselines_tuned_on": "the validation part: NDCG@10, seen items filtered, of at most "
    f"{MAX_USERS:,} users drawn at random; the settings stand beside each",
    "coverage": "share of the catalogue among all users' top items, seen items filtered",
    "mean_popularity": "mean training interactions of those items",
    "intervals": "95 %, bootstrap over users, 1000 resamples",
}


def versions() -> dict[str, str]:
    """Versions that a result hangs on."""
    names = ("hfrec", "torch", "transformers", "datasets", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def evaluation_collator(model: PreTrainedModel, tokenizer: ItemTokenizer) -> DataCollatorForNextItem:
    """Makes rows of `to_evaluation_sequences` the model's batches, no longer than it reads."""
    return DataCollatorForNextItem(tokenizer, objective_of(model), max_length=model.config.max_position_embeddings)


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
) -> dict[str, Any]:
    """Test a model on the last item of each user, with and without the seen filter, beside the baselines.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        split: A leave-one-out split; the validation item belongs to the test history.
        batch_size: Users scored at a time.
        baselines: Whether the classical baselines are fitted, tuned on the validation part and ranked too.
        cohorts: Whether all are measured by history length and by kind of target too.
        prior: Mixed into the scores of short histories; the model alone then stands among the baselines.

    Returns:
        `protocol`, `filter_seen`, `unfiltered`, `baselines` (of the classical ones with their `settings`),
        `skipped_baselines` (name -> reason), `n_users`, `n_unknown_targets`, and `cohorts` if asked for.
    """
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size}: they belong to "
            "different checkpoints; load both from one folder."
        )
    dataset = to_evaluation_sequences(split.history, split.test, tokenizer)
    collator = evaluation_collator(model, tokenizer)
    train = to_sequences(split.train, tokenizer, unknown="drop").data["input_ids"].combine_chunks()
    histories = dataset.data["input_ids"].combine_chunks()
    targets = dataset.data["target"].to_numpy()
    top_k = top_items(tokenizer)
    counts = np.bincount(train.values.to_numpy(), minlength=len(tokenizer))  # (vocab_size,)
    segments = None
    if prior is not None and prior.segment_column is not None:
        segments = user_segments(split.history.table, dataset["user_id"], prior.segment_column)
    options: dict[str, Any] = {"batch_size": batch_size, "top_k": top_k}
    ranks = {"model": rank_dataset(model, dataset, collator, prior=prior, segments=segments, **options)}
    if baselines and prior is not None:
        ranks["model_without_prior"] = rank_dataset(model, dataset, collator, **options)
    fitted: dict[str, TunedBaseline] = {}
    skipped: dict[str, str] = {}
    if baselines:
        fitted, skipped = classical_baselines(split, tokenizer)
        batch: dict[str, Any] = {"batch_size": batch_rows(len(tokenizer)), "top_k": top_k}
        ranks |= {name: rank_baseline(found.baseline, histories, targets, **batch) for name, found in fitted.items()}
    results: dict[str, Any] = {
        **report_ranks(ranks, counts, num_unknown=int((targets == tokenizer.unk_token_id).sum())),
        "skipped_baselines": skipped,
    }
    if prior is not None:
        results["protocol"] = {**PROTOCOL, "prior": _prior_note(prior)}
    for name, found in fitted.items():
        results["baselines"][name]["settings"] = found.settings
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
        "n_users": len(dataset),
        "n_unknown_targets": unknown,
        **_summary(rank_dataset(model, dataset, collator, batch_size=batch_size, top_k=top_k), counts),
        "baselines": {"popularity": _summary(popular, counts)},
    }


def report_ranks(
    ranks: Mapping[str, dict[str, NDArray[np.int64]]], counts: NDArray[np.int64], *, num_unknown: int
) -> dict[str, Any]:
    """What a test says of ranks: `model` first, all others as its baselines.

    Args:
        ranks: What `rank_dataset` gives with `top_k`, by name.
        counts: (vocab_size,) training interactions of each token.
        num_unknown: Targets outside the vocabulary.
    """
    return {
        "protocol": PROTOCOL,
        "n_users": len(ranks["model"]["filter_seen"]),
        "n_unknown_targets": num_unknown,
        **_summary(ranks["model"], counts),
        "baselines": {name: _summary(found, counts) for name, found in ranks.items() if name != "model"},
    }


def top_items(tokenizer: ItemTokenizer) -> int:
    """Recommendations of each user that coverage and mean popularity are measured on."""
    return min(TOP_K, len(tokenizer) - NUM_SPECIAL_TOKENS)


def classical_baselines(
    split: Split, tokenizer: ItemTokenizer, *, methods: Sequence[Method] = tuple(GRIDS), tuned: bool = True
) -> tuple[dict[str, TunedBaseline], dict[str, str]]:
    """The baselines fitted on the training part, and the reasons of those that are left out.

    Args:
        split: Leave-one-out split.
        tokenizer: Vocabulary.
        methods: Which ones.
        tuned: Whether their settings are chosen on the validation part, if there is one.
    """
    train = to_sequences(split.train, tokenizer, unknown="drop").data["input_ids"].combine_chunks()
    known = tokenizer.encode_column(split.train.table["item_id"], unknown="drop").is_valid()
    times = timestamps_to_numpy(split.train.table["timestamp"].filter(known))
    log = TrainingLog(train, len(tokenizer), times)
    if not tuned or len(split.validation) == 0:
        return tuned_baselines(log, methods=methods)
    rows = to_evaluation_sequences(split.train, split.validation, tokenizer)
    histories, targets = rows.data["input_ids"].combine_chunks(), rows.data["target"].to_numpy()
    return tuned_baselines(log, histories, targets, methods=methods)


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
    beyond = {
        f"coverage@{shown.shape[1]}": coverage(shown, num_items=len(counts) - NUM_SPECIAL_TOKENS),
        f"mean_popularity@{shown.shape[1]}": mean_popularity(shown, item_counts=counts),
    }
    return {
        "filter_seen": {**ranking_metrics(ranks["filter_seen"]), **beyond},
        "unfiltered": ranking_metrics(ranks["unfiltered"]),
    }
