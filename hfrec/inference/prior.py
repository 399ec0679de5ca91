"""What to recommend to users of whom little is known: the model mixed with what is popular.

For a user with n known items, ``p(item) = (1 - w_n) softmax(model) + w_n prior(item)``. The weights are fitted on
validation users (`hfrec.evaluation.cold_users`); beyond the last weight the model stands alone, its scores untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.utils.hub import cached_file

from ..data.files import whole_file
from ..scoring import chunk_bounds
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer

if TYPE_CHECKING:
    import pyarrow as pa

PRIOR_FILE = "prior.json"
ScoreChunk = Callable[[int, int], Tensor]
Segments = Sequence[str | None]
Rescore = Callable[[ScoreChunk, Tensor], ScoreChunk]


@dataclass(frozen=True, eq=False)
class PopularityPrior:
    """Popularity of the items, of all users and of the user's segment, and how much of it a short history gets.

    `p(item) ∝ count + 1` over all users, and in a segment `(count + shrinkage · p(item)) / (total + shrinkage)`: a
    segment with few interactions stays close to all users.

    Args:
        counts: Training interactions, `(1 + num_segments, vocab_size)`; row 0 counts all users.
        weights: Share of the prior for histories of 0, 1, 2, … known items, each in [0, 1]; 0 beyond them.
        segments: Names of the rows from 1 on.
        shrinkage: Interactions that the popularity among all users counts for in a segment, above 0.
        segment_column: Column of a log that names a user's segment.

    Example:
        >>> prior = PopularityPrior(np.array([[9, 9, 9, 2, 0]]), weights=(1.0, 0.5))
        >>> prior.probabilities.tolist()
        [[0.0, 0.0, 0.0, 0.75, 0.25]]
    """

    counts: NDArray[np.int64]
    weights: tuple[float, ...]
    segments: tuple[str, ...] = ()
    shrinkage: float = 1000.0
    segment_column: str | None = None

    def __post_init__(self) -> None:
        if not self.weights or not all(0.0 <= weight <= 1.0 for weight in self.weights):
            raise ValueError(f"`weights` must be one or more numbers in [0, 1], found {self.weights}. Fit them again.")
        if not self.shrinkage > 0:
            raise ValueError(f"`shrinkage` must be above 0, found {self.shrinkage}. Use for example 1000.")
        if self.counts.ndim != 2 or len(self.counts) != 1 + len(self.segments) or self.counts.min() < 0:
            raise ValueError(
                f"`counts` must have one row for all users and one for each of {len(self.segments)} segments, none "
                f"below 0, found shape {self.counts.shape}. Count the training interactions by token id."
            )

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each item, 0 for special tokens, `(1 + num_segments, vocab_size)`."""
        counts = self.counts.astype(np.float64)
        counts[:, :NUM_SPECIAL_TOKENS] = 0.0
        everyone = counts[:1] + 1.0
        everyone[:, :NUM_SPECIAL_TOKENS] = 0.0
        everyone /= everyone.sum()
        totals = counts[1:].sum(axis=1, keepdims=True)
        return np.concatenate([everyone, (counts[1:] + self.shrinkage * everyone) / (totals + self.shrinkage)])

    def rows_of(self, segments: Segments | None, n: int) -> NDArray[np.int64]:
        """Row of `probabilities` for each of n users; 0, all users, for a segment without a count and for None.

        Raises:
            ValueError: `segments` of another length than n.
        """
        if segments is None:
            return np.zeros(n, dtype=np.int64)
        if len(segments) != n:
            raise ValueError(
                f"`segments` must name one segment a user, found {len(segments)} for {n} users. Give None to a user "
                "without one."
            )
        places = {name: row for row, name in enumerate(self.segments, start=1)}
        return np.array([0 if name is None else places.get(name, 0) for name in segments], dtype=np.int64)

    def mix(
        self,
        score_chunk: ScoreChunk,
        seen_ids: Tensor,
        *,
        segments: Segments | None = None,
        item_chunk_size: int = 16384,
    ) -> ScoreChunk:
        """Scores of a model to those of the mix, chunk by chunk.

        Args:
            score_chunk: Gives the model's scores `(n, stop - start)` of token ids start..stop.
            seen_ids: Whole histories `(n, longest)`, filled with 0; special tokens are no known items.
            segments: Segment of each user.
            item_chunk_size: Items scored at a time for the sum of the softmax.

        Returns:
            A function like `score_chunk`: log-probabilities of the mix where the user's weight is above 0, the scores
            of the model elsewhere.
        """
        lengths = (seen_ids >= NUM_SPECIAL_TOKENS).sum(dim=1)  # (n,)
        table = torch.tensor([*self.weights, 0.0], dtype=torch.float64, device=seen_ids.device)
        weights = table[lengths.clamp(max=len(self.weights))]
        if not bool((weights > 0).any()):
            return score_chunk
        total = log_normaliser(score_chunk, self.counts.shape[1], item_chunk_size)[:, None].double()  # (n, 1)
        rows = torch.from_numpy(self.rows_of(segments, len(seen_ids)))
        prior = torch.from_numpy(self.probabilities)

        def mixed(start: int, stop: int) -> Tensor:
            scores = score_chunk(start, stop)
            popular = prior[rows, start:stop].to(scores.device)  # (n, stop - start)
            model = (scores.double() - total).exp()
            mix = ((1.0 - weights[:, None]) * model + weights[:, None] * popular).log().to(scores.dtype)
            return torch.where(weights[:, None] > 0, mix, scores)

        return mixed

    def bind(self, segments: Segments | None, start: int, stop: int) -> Rescore:
        """`mix` for a batch of the users start..stop of those that `segments` names."""
        batch = None if segments is None else segments[start:stop]
        return lambda score_chunk, seen_ids: self.mix(score_chunk, seen_ids, segments=batch)

    def save(self, folder: str | os.PathLike[str], tokenizer: ItemTokenizer) -> Path:
        """Write `prior.json` beside the model; the counts of all users stay in `items.parquet`."""
        items = np.array(tokenizer.items["item_id"].to_pylist(), dtype=object)
        segments = {}
        for name, row in zip(self.segments, self.counts[1:, NUM_SPECIAL_TOKENS:], strict=True):
            places = np.flatnonzero(row)
            segments[name] = dict(zip(items[places].tolist(), row[places].tolist(), strict=True))
        content: dict[str, Any] = {"weights": list(self.weights), "shrinkage": self.shrinkage}
        content["items"] = _items_digest(tokenizer)
        content |= {"segment_column": self.segment_column, "segments": segments}
        path = Path(folder) / PRIOR_FILE
        with whole_file(path) as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return path


def load_prior(
    name_or_path: str | os.PathLike[str], tokenizer: ItemTokenizer, *, revision: str | None = None, **hub: Any
) -> PopularityPrior | None:
    """The prior of a checkpoint, or None where it has none.

    Args:
        name_or_path: Folder or hub id.
        tokenizer: The tokenizer of this checkpoint, with the training counts of its items.
        revision: Branch, tag or commit on the hub.
        hub: `token`, `cache_dir`, `local_files_only`, `subfolder`.

    Raises:
        ValueError: `prior.json` is damaged or belongs to another checkpoint.
    """
    path = cached_file(name_or_path, PRIOR_FILE, revision=revision, _raise_exceptions_for_missing_entries=False, **hub)
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        weights = tuple(float(weight) for weight in content["weights"])
        segments = {str(name): dict(counts) for name, counts in content["segments"].items()}
        shrinkage, column = float(content["shrinkage"]), content["segment_column"]
        if content["items"] != _items_digest(tokenizer):
            raise ValueError("it was fitted for a checkpoint of other items or counts.")
        counts = segment_counts(tokenizer, segments)
        return PopularityPrior(counts, weights, tuple(segments), shrinkage, column)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{PRIOR_FILE} of `{name_or_path}` cannot be used: {type(error).__name__}: {error} Fit it again with "
            "`hfrec evaluate --fit_prior true`, or remove it."
        ) from error


def _items_digest(tokenizer: ItemTokenizer) -> str:
    """SHA-256 (hex) of the items and their counts, on which every number of a prior depends."""
    items = tokenizer.items
    counts = items["count"].to_pylist() if "count" in items.column_names else None
    return hashlib.sha256(json.dumps([items["item_id"].to_pylist(), counts]).encode()).hexdigest()


def segment_counts(tokenizer: ItemTokenizer, segments: dict[str, dict[str, int]]) -> NDArray[np.int64]:
    """Training interactions by token id, `(1 + num_segments, vocab_size)`: of all users, then of each segment.

    Raises:
        ValueError: The tokenizer has no counts, or a segment counts an item that it has not.
    """
    if "count" not in tokenizer.items.column_names:
        raise ValueError(
            "`tokenizer` has no training counts of its items, so that none is known to be popular. Give `counts` to "
            "ItemTokenizer.from_items, as `hfrec pretrain` does."
        )
    counts = np.zeros((1 + len(segments), len(tokenizer)), dtype=np.int64)
    counts[0, NUM_SPECIAL_TOKENS:] = tokenizer.items["count"].fill_null(0).to_numpy()
    for row, found in enumerate(segments.values(), start=1):
        if found:
            counts[row, np.asarray(tokenizer.encode_column(list(found)))] = list(found.values())
    return counts


def user_segments(table: pa.Table, users: Sequence[str], column: str) -> list[str | None]:
    """Segment of each user by the newest row of a sorted log that names one; None without.

    Raises:
        ValueError: The log has no such column.
    """
    import pyarrow as pa

    if column not in table.column_names:
        raise ValueError(
            f"`segment_column` {column!r} is not in the log. Found: {', '.join(table.column_names)}. "
            "Join it to the log."
        )
    names = table[column].cast(pa.string()).to_pylist()
    newest = {user: name for user, name in zip(table["user_id"].to_pylist(), names, strict=True) if name is not None}
    return [newest.get(user) for user in users]


def log_normaliser(score_chunk: ScoreChunk, vocab_size: int, item_chunk_size: int) -> Tensor:
    """Logarithm of the sum of exp(score) over the catalogue, `(n,)`, the catalogue going by in chunks."""
    bounds = chunk_bounds(vocab_size, item_chunk_size)
    parts = [score_chunk(start, stop).float().logsumexp(dim=1) for start, stop in bounds]
    return torch.stack(parts).logsumexp(dim=0)
