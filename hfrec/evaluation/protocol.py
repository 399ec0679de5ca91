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

from ..classical.popularity import PopularityBaseline
from ..data.collators import DataCollatorForNextItem, objective_of
from ..data.inputs import input_names, inputs_of
from ..data.repeats import filters_seen
from ..data.sequences import to_evaluation_sequences, to_sequences
from ..data.splits import Split
from ..inference.prior import PopularityPrior
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, check_pair
from .baseline_ranking import rank_baseline
from .metrics.lists import list_popularity
from .ranked_test import PROTOCOL, RankedTest, decided_by, ranked_test
from .ranking import rank_dataset
from .split_baselines import classical_baselines
from .tuning import TunedBaseline, batch_rows
from .user_ranks import MODEL

if TYPE_CHECKING:
    import datasets

TOP_K = 10


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("hfrec", "torch", "transformers", "datasets", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def evaluation_collator(model: PreTrainedModel, tokenizer: ItemTokenizer) -> DataCollatorForNextItem:
    """Makes rows of `to_evaluation_sequences` the model's batches, no longer than it reads."""
    length, inputs = model.config.max_position_embeddings, inputs_of(model)
    return DataCollatorForNextItem(tokenizer, objective_of(model), max_length=length, inputs=inputs)


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
        rows = to_evaluation_sequences(split.train, split.validation_targets, tokenizer, inputs=inputs_of(model))
    else:
        rows = to_evaluation_sequences(split.history, split.test_targets, tokenizer, inputs=inputs_of(model))
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
        baselines: Whether the classical baselines are fitted, tuned on the validation part and ranked too.
        cohorts: Whether all are measured by history length and by kind of target too.
        prior: Mixed into the scores of empty histories; the model alone then stands among the baselines.
        filter_seen: Whether the figures without seen items are the ones that decide; None: as the checkpoint says.

    Returns:
        `protocol`, `decided_by` ("filter_seen" or "unfiltered"), these two with the metrics, `baselines`, `n_users`,
        `n_unknown_targets`, of a temporal split `n_new_users`, `n_new_items` and `n_left_out`; with baselines (of the
        classical ones with their `settings`) `skipped_baselines` (name -> reason) and the `verdict`; `cohorts` if asked
        for.
    """
    settings: dict[str, Any] = {"batch_size": batch_size, "baselines": baselines, "filter_seen": filter_seen}
    ranked = rank_checkpoint(model, tokenizer, split, prior=prior, **settings)
    return ranked.results(cohorts=cohorts)


def rank_checkpoint(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    split: Split,
    *,
    batch_size: int = 256,
    baselines: bool = True,
    prior: PopularityPrior | None = None,
    filter_seen: bool | None = None,
) -> RankedTest:
    """The ranks behind `evaluate_checkpoint`, whose arguments these are."""
    check_pair(model, tokenizer)
    dataset = rows_to_rank(model, tokenizer, split, "test", prior=prior)
    collator = evaluation_collator(model, tokenizer)
    train = to_sequences(split.train, tokenizer, unknown="drop").data["input_ids"].combine_chunks()
    histories = dataset.data["input_ids"].combine_chunks()
    targets = dataset.data["target"].to_numpy()
    top_k = top_items(tokenizer)
    counts = np.bincount(train.values.to_numpy(), minlength=len(tokenizer))  # (vocab_size,)
    options: dict[str, Any] = {"batch_size": batch_size, "top_k": top_k}
    asked: Any = model if prior is None else prior.over(model)
    ranks = {MODEL: rank_dataset(asked, dataset, collator, **options)}
    if baselines and prior is not None:
        ranks["model_without_prior"] = rank_dataset(model, dataset, collator, **options)
    fitted: dict[str, TunedBaseline] = {}
    skipped: dict[str, str] = {}
    if baselines:
        fitted, skipped = classical_baselines(split, tokenizer)
        batch: dict[str, Any] = {"batch_size": batch_rows(len(tokenizer)), "top_k": top_k}
        ranks |= {name: rank_baseline(found.baseline, histories, targets, **batch) for name, found in fitted.items()}
    return ranked_test(
        ranks,
        dataset,
        split,
        counts=counts,
        protocol={**({} if prior is None else {"prior": _prior_note(prior)}), **_inputs_note(model)},
        filter_seen=filters_seen(model.config) if filter_seen is None else filter_seen,
        settings={name: found.settings for name, found in fitted.items()},
        skipped=skipped,
    )


def rank_rows(
    model: PreTrainedModel,
    tokenizer: ItemTokenizer,
    dataset: datasets.Dataset,
    counts: NDArray[np.int64],
    *,
    fingerprint: str | None = None,
    batch_size: int = 256,
) -> RankedTest:
    """The ranks of `rank_checkpoint` on prepared rows that may be larger than memory; of baselines, popularity.

    Args:
        model: Masked or causal model.
        tokenizer: Its item tokenizer.
        dataset: Rows of `to_evaluation_sequences`.
        counts: (vocab_size,) training interactions of each token.
        fingerprint: Of the log that the rows come from.
        batch_size: Users scored at a time.
    """
    collator = evaluation_collator(model, tokenizer)
    top_k = top_items(tokenizer)
    popularity, height = PopularityBaseline.from_counts(counts), batch_rows(len(tokenizer))
    pieces, consumed, targets = [], [], []
    for rows in dataset.with_format("arrow").iter(batch_size=batch_size):
        histories = rows["input_ids"].combine_chunks()
        targets.append(rows["target"].to_numpy())
        pieces.append(rank_baseline(popularity, histories, targets[-1], batch_size=height, top_k=top_k))
        consumed.append(list_popularity(histories.to_numpy(zero_copy_only=False), item_counts=counts))
    popular = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    ids = np.concatenate(targets)
    return RankedTest(
        ranks={
            MODEL: rank_dataset(model, dataset, collator, batch_size=batch_size, top_k=top_k),
            "popularity": popular,
        },
        protocol=PROTOCOL,
        counts=counts,
        consumed=np.concatenate(consumed),
        n_unknown_targets=int((ids == tokenizer.unk_token_id).sum()),
        users=dataset["user_id"][:],
        items=tokenizer.decode_items(ids),
        fingerprints={"test_fingerprint": fingerprint, "history_fingerprint": fingerprint},
        decided_by=decided_by(filters_seen(model.config)),
    )


def top_items(tokenizer: ItemTokenizer) -> int:
    """Recommendations of each user that coverage and mean popularity are measured on."""
    return min(TOP_K, len(tokenizer) - NUM_SPECIAL_TOKENS)


def _inputs_note(model: PreTrainedModel) -> dict[str, str]:
    inputs = inputs_of(model)
    return {"inputs": f"{input_names(inputs)}; the time of a target is that of the request"} if inputs else {}


def _prior_note(prior: PopularityPrior) -> str:
    return f"popularity mixed in where the history is empty: {prior.weight:.3f}, 0 for all others"
