"""Figures of a model that was trained on several sources: of each one among its own items, and their mean."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.source_names import SEPARATOR
from ..data.sources import Block
from ..tokenization import NUM_SPECIAL_TOKENS
from .ranked_test import PROTOCOL, RankedTest
from .ranking import PROTOCOLS, make_compute_metrics
from .table import align, cell, settings
from .user_ranks import MODEL, UserRanks

METRICS = ("ndcg@10", "hit_rate@10")
CANDIDATES = "the catalogue of the target's own source, no sampled negatives"


def make_source_metrics(blocks: Mapping[str, Block]) -> Callable[[Any], dict[str, float]]:
    """`compute_metrics` of the stock Trainer for rows of several sources, whose labels are `labels` and `seen_ids`.

    Args:
        blocks: Tokens of each source, the first one and the one after the last.

    Returns:
        Function that gives the mean over the sources as `ndcg@10` and so on, by which the best checkpoint is chosen,
        and the figures of each source as `beauty/ndcg@10`.
    """
    of_rows = make_compute_metrics()

    def compute_metrics(prediction: Any) -> dict[str, float]:
        ranks, (labels, seen) = np.asarray(prediction.predictions), prediction.label_ids
        # An unknown target has no source, but its history has; neither holds tokens of two sources.
        tokens = np.maximum(np.asarray(labels).max(axis=1, initial=0), np.asarray(seen).max(axis=1, initial=0))
        found: dict[str, dict[str, float]] = {}
        for name, (first, stop) in blocks.items():
            rows = ranks[(tokens >= first) & (tokens < stop)]
            if len(rows):
                found[name] = of_rows(_Ranks(rows))
        means = {
            metric: float(np.mean([row[metric] for row in found.values()])) for metric in next(iter(found.values()))
        }
        each = {
            f"{name}/{metric}": value
            for name, row in found.items()
            for metric, value in row.items()
            if metric.removeprefix("unfiltered_") in METRICS
        }
        return {**means, **each}

    return compute_metrics


@dataclass(frozen=True)
class _Ranks:
    predictions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RankedSources:
    """The test of several sources, each ranked among its own items with its own baselines.

    Args:
        parts: Test of each source, in the ids and tokens of its own catalogue.
        blocks: Tokens of each source in the joined vocabulary.
    """

    parts: Mapping[str, RankedTest]
    blocks: Mapping[str, Block]

    def results(self) -> dict[str, Any]:
        """What `RankedTest.results` gives of all users together; `sources` has the same of each, `mean` their mean."""
        sources = {name: part.results() for name, part in self.parts.items()}
        return {**self.joined.results(), "sources": sources, "mean": _means(sources)}

    def user_ranks(self) -> UserRanks:
        """What is kept of each user for `hfrec compare`."""
        return self.joined.user_ranks()

    @cached_property
    def joined(self) -> RankedTest:
        """All users as one test; of the baselines those that every source has."""
        parts = list(self.parts.values())
        names = [name for name in parts[0].ranks if all(name in part.ranks for part in parts)]
        protocol = {**parts[0].protocol, "candidates": CANDIDATES, "sources": ", ".join(self.parts)}
        ranks = {name: self._joined_ranks([part.ranks[name] for part in parts]) for name in names}
        whole = all(part.histories is not None and part.targets is not None for part in parts)
        return RankedTest(
            ranks=ranks,
            protocol={
                name: text for name, text in protocol.items() if name in PROTOCOL or name in ("sources", "left_out")
            },
            counts=np.concatenate(
                [parts[0].counts[:NUM_SPECIAL_TOKENS], *(p.counts[NUM_SPECIAL_TOKENS:] for p in parts)]
            ),
            consumed=np.concatenate([part.consumed for part in parts]),
            n_unknown_targets=sum(part.n_unknown_targets for part in parts),
            users=self._named([part.users for part in parts]),
            items=self._named([part.items for part in parts]),
            fingerprints={key: _digest([part.fingerprints[key] for part in parts]) for key in parts[0].fingerprints},
            decided_by=parts[0].decided_by,
            facts={key: sum(part.facts[key] for part in parts) for key in parts[0].facts},
            skipped={name: reason for part in parts for name, reason in part.skipped.items()},
            histories=self._joined_histories() if whole else None,
            targets=np.concatenate([self._moved(n, p.targets) for n, p in self.parts.items()]) if whole else None,
        )

    def _moved(self, name: str, tokens: Any) -> NDArray[np.int64]:
        """Tokens of a source's own vocabulary as those of the joined one."""
        values = np.asarray(tokens, dtype=np.int64)
        return np.where(values < NUM_SPECIAL_TOKENS, values, values + self.blocks[name][0] - NUM_SPECIAL_TOKENS)

    def _joined_ranks(self, ranks: Sequence[Mapping[str, NDArray[np.int64]]]) -> dict[str, NDArray[np.int64]]:
        found = {setting: np.concatenate([row[setting] for row in ranks]) for setting in PROTOCOLS}
        shown = [self._moved(name, row["recommended"]) for name, row in zip(self.parts, ranks, strict=True)]
        width = max(items.shape[1] for items in shown)
        padded = [np.pad(items, ((0, 0), (0, width - items.shape[1]))) for items in shown]
        return {**found, "recommended": np.concatenate(padded)}

    def _joined_histories(self) -> NDArray[np.object_]:
        named = [
            (name, row) for name, part in self.parts.items() if part.histories is not None for row in part.histories
        ]
        rows = [self._moved(name, row) for name, row in named]
        found = np.empty(len(rows), dtype=object)
        found[:] = rows
        return found

    def _named(self, ids: Sequence[Sequence[str]]) -> list[str]:
        pairs = zip(self.parts, ids, strict=True)
        return [f"{name}{SEPARATOR}{key}" for name, keys in pairs for key in keys]


def _digest(fingerprints: Sequence[str | None]) -> str:
    return hashlib.sha256(" ".join(map(str, fingerprints)).encode()).hexdigest()


def _means(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over the sources of the model and of the baselines that all have: name -> protocol -> metric."""
    tests = [{MODEL: test, **test["baselines"]} for test in sources.values()]
    names = [name for name in tests[0] if all(name in test for test in tests)]
    return {
        name: {
            setting: {metric: float(np.mean([test[name][setting][metric] for test in tests])) for metric in METRICS}
            for setting in PROTOCOLS
        }
        for name in names
    }


def sources_table(test: Mapping[str, Any], metric: str = METRICS[0]) -> str:
    """A text table of one metric, the sources as columns and their mean the last one, in the setting that decides."""
    setting, sources = settings(test)[0], test["sources"]
    body = []
    for name, means in test["mean"].items():
        rows = [source if name == MODEL else source["baselines"][name] for source in sources.values()]
        body.append([name, *(cell(row[setting], metric) for row in rows), f"{means[setting][metric]:.4f}"])
    return align([[f"{metric}, {setting}", *sources, "mean"], *body])
