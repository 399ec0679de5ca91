"""The ranks of a test and all that is reported from them: metrics, verdict, cohorts, and the protocol in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers.utils import logging

from ..data.splits import Split
from ..data.temporal import new_items, new_users
from ..tokenization import NUM_SPECIAL_TOKENS, SPECIAL_TOKENS
from .cohorts import DEFINITIONS, BoolArray, fair_masks, history_masks, summarise_cohorts, target_masks
from .metrics.bootstrap import mean_interval
from .metrics.functions import ranking_metrics
from .metrics.lists import (
    calibration,
    coverage,
    gini_index,
    intra_list_diversity,
    list_popularity,
    mean_popularity,
    novelty,
    popularity_lift,
)
from .ranking import PROTOCOLS
from .tuning import MAX_USERS
from .user_ranks import MODEL, UserRanks
from .verdict import verdict

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)
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
    "gini": "Gini index of how often each item of the catalogue is among them: 0 alike, towards 1 always the same few",
    "novelty": "mean self-information of a user's top items in bits, by their share of the training interactions",
    "popularity_lift": "mean popularity of users' top items over that of their histories, minus 1",
    "intervals": "95 %, bootstrap over users, 1000 resamples",
}
TEMPORAL = (
    "temporal: the training part ends before {validation_start}; the first interaction of each user from {test_start} "
    "on is the target, all of the user before it the history"
)
USER_RATIO = (
    "user_ratio: of each user the newest {test_ratio:g} of the interactions are the test, {validation_ratio:g} before "
    "them validation; the first of a part is the target, all of the user before it the history"
)
LEFT_OUT = "users without a known item before the test, whom a causal model without a prior cannot rank"

# What two runs must agree on for their ranks to be compared.
COMPARABLE = ("split", "candidates", "score_ties", "time_ties", "unknown_targets")


@dataclass(frozen=True, eq=False)
class RankedTest:
    """The ranks of a model and its baselines on test rows, from which everything that is reported comes.

    Args:
        ranks: `model` and the baselines -> `filter_seen`, `unfiltered` and `recommended`, as `rank_dataset` gives them.
        protocol: What was done, in words.
        counts: (vocab_size,) training interactions of each token.
        consumed: (n,) mean training interactions of the items of each history.
        n_unknown_targets: Targets outside the vocabulary.
        users: (n,) raw user ids.
        items: (n,) raw ids of the targets.
        fingerprints: Of the log's parts that the targets and the histories come from.
        decided_by: Which of the two settings decides.
        facts: Further counts that the results give.
        settings: Of the baselines that have some, by name.
        skipped: Why a baseline is left out, by name.
        histories, targets: (n,) token ids where they fit into memory, else None.
    """

    ranks: dict[str, dict[str, NDArray[np.int64]]]
    protocol: dict[str, str]
    counts: NDArray[np.int64]
    consumed: NDArray[np.float64]
    n_unknown_targets: int
    users: Sequence[str]
    items: Sequence[str]
    fingerprints: dict[str, str | None]
    decided_by: str
    facts: dict[str, int] = field(default_factory=dict)
    settings: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    histories: NDArray[np.object_] | None = None
    targets: NDArray[np.int64] | None = None

    @cached_property
    def masks(self) -> dict[str, BoolArray]:
        """Cohorts of the rows; none of rows that are not held in memory."""
        if self.histories is None or self.targets is None:
            return {}
        lengths = [len(row) for row in self.histories]
        return {**history_masks(lengths), **target_masks(self.histories, self.targets, self.counts)}

    def results(self, *, cohorts: bool = False, features: NDArray[np.float32] | None = None) -> dict[str, Any]:
        """Metrics of the model and the baselines, and the verdict.

        Args:
            cohorts: Whether all are measured by history length and by kind of target too.
            features: (vocab_size, num_categories) categories of each token, for diversity and calibration.

        Returns:
            What `evaluate_checkpoint` returns.
        """
        found = {name: self._summary(ranks, features) for name, ranks in self.ranks.items()}
        results: dict[str, Any] = {
            "protocol": self.protocol,
            "decided_by": self.decided_by,
            "n_users": len(self.users),
            "n_unknown_targets": self.n_unknown_targets,
            **self.facts,
            **found.pop(MODEL),
            "baselines": found,
            "skipped_baselines": self.skipped,
        }
        for name, settings in self.settings.items():
            if name in found:
                found[name]["settings"] = settings
        judged = verdict(self.ranks, setting=self.decided_by)
        if judged is not None:
            results["verdict"] = judged
        if cohorts:
            results["cohorts"] = _cohorts(self.ranks, self.masks)
        return results

    def user_ranks(self) -> UserRanks:
        """What is kept of each user for `hfrec compare`."""
        about = {
            "protocol": {name: self.protocol[name] for name in COMPARABLE},
            **self.fingerprints,
            "num_items": len(self.counts) - NUM_SPECIAL_TOKENS,
        }
        return UserRanks(self.users, self.items, self.ranks, self.masks, about)

    def _summary(self, ranks: dict[str, Any], features: NDArray[np.float32] | None) -> dict[str, Any]:
        """Metrics of both protocols, and of the top items that are shown, seen items filtered."""
        shown, counts = ranks["recommended"], self.counts
        k, num_items = shown.shape[1], len(counts) - NUM_SPECIAL_TOKENS
        found: dict[str, Any] = {f"coverage@{k}": coverage(shown, num_items=num_items)}
        if (shown >= NUM_SPECIAL_TOKENS).any():
            found |= {
                f"mean_popularity@{k}": mean_popularity(shown, item_counts=counts),
                f"gini@{k}": gini_index(shown, num_items=num_items),
                f"popularity_lift@{k}": popularity_lift(list_popularity(shown, item_counts=counts), self.consumed),
                **_with_interval(f"novelty@{k}", novelty(shown, item_counts=counts)),
            }
        else:
            logger.warning_once(
                "Every user has seen the whole catalogue: with seen items filtered nothing is left to recommend and "
                "every target is a miss. Look at the unfiltered figures."
            )
        if features is not None and self.histories is not None:
            found |= _with_interval(f"diversity@{k}", intra_list_diversity(shown, features=features))
            found |= _with_interval(f"calibration@{k}", calibration(shown, self.histories, features=features))
        return {
            "filter_seen": {**ranking_metrics(ranks["filter_seen"]), **found},
            "unfiltered": ranking_metrics(ranks["unfiltered"]),
        }


def ranked_test(
    ranks: dict[str, dict[str, NDArray[np.int64]]],
    dataset: datasets.Dataset,
    split: Split,
    *,
    counts: NDArray[np.int64],
    filter_seen: bool,
    protocol: dict[str, str] | None = None,
    settings: dict[str, dict[str, float]] | None = None,
    skipped: dict[str, str] | None = None,
) -> RankedTest:
    """The test of ranks on rows of a split; arguments as those of [`RankedTest`], `protocol` being what is added."""
    histories = dataset.data["input_ids"].combine_chunks().to_numpy(zero_copy_only=False)
    targets = dataset.data["target"].to_numpy()
    return RankedTest(
        ranks=ranks,
        protocol={**_protocol(split), **(protocol or {})},
        counts=counts,
        consumed=list_popularity(histories, item_counts=counts),
        n_unknown_targets=int((targets == SPECIAL_TOKENS.index("[UNK]")).sum()),
        users=dataset["user_id"][:],
        items=_ranked_items(split, dataset),
        fingerprints={"test_fingerprint": split.test.fingerprint, "history_fingerprint": split.history.fingerprint},
        decided_by=decided_by(filter_seen),
        facts={} if split.targets == "all" else _temporal_counts(split, len(dataset)),
        settings=settings or {},
        skipped=skipped or {},
        histories=histories,
        targets=targets,
    )


def decided_by(filter_seen: bool) -> str:
    """Which of the two protocols chooses checkpoints and decides on verdicts."""
    return PROTOCOLS[0 if filter_seen else 1]


def _protocol(split: Split) -> dict[str, str]:
    if split.targets == "all":
        return PROTOCOL
    text = TEMPORAL if split.report.test_ratio is None else USER_RATIO
    return {**PROTOCOL, "split": text.format_map(split.report.to_dict()), "left_out": LEFT_OUT}


def _temporal_counts(split: Split, ranked: int) -> dict[str, int]:
    targets = split.test_targets
    return {
        "n_new_users": new_users(split),
        "n_new_items": new_items(split, targets),
        "n_left_out": len(targets) - ranked,
    }


def _ranked_items(split: Split, dataset: datasets.Dataset) -> list[str]:
    """Raw ids of the targets that are ranked, in the order of the rows."""
    table = split.test_targets.table
    kept = table.filter(pc.is_in(table["user_id"], value_set=dataset.data["user_id"].combine_chunks()))
    items: list[str] = kept["item_id"].to_pylist()
    return items


def _cohorts(ranks: dict[str, dict[str, NDArray[np.int64]]], masks: dict[str, BoolArray]) -> dict[str, Any]:
    """Metrics of each cohort under both protocols: protocol -> cohort -> model or baseline."""
    found: dict[str, Any] = {"definitions": DEFINITIONS}
    for setting in PROTOCOLS:
        fair = fair_masks(masks, setting)
        by_model = {name: summarise_cohorts(row[setting], fair) for name, row in ranks.items()}
        found[setting] = {cohort: {name: by_model[name][cohort] for name in ranks} for cohort in fair}
    return found


def _with_interval(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean over the users that have a value, with its interval; nothing when none has."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return {}
    mean, low, high = mean_interval(known)
    return {name: mean, f"{name}_ci": [low, high]}
