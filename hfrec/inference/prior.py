"""What to recommend to a user of whom nothing is known: the model mixed with what is popular.

For an empty history ``p(item) = (1 - w) softmax(model) + w popularity(item)``. The weight is fitted on validation users
(`hfrec.evaluation.cold_users`); from the first known item on the model stands alone, its scores untouched.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ..data.files import json_digest, whole_file
from ..scoring import ITEM_CHUNK_SIZE, chunk_bounds
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer

PRIOR_FILE = "prior.json"


@dataclass(frozen=True, eq=False)
class PopularityPrior:
    """Popularity of the items, `p(item) ∝ count + 1`, and how much of it an empty history gets.

    Args:
        counts: Training interactions by token id, `(vocab_size,)`.
        weight: Share of the prior, in [0, 1].

    Example:
        >>> PopularityPrior(np.array([9, 9, 9, 2, 0])).probabilities.tolist()
        [0.0, 0.0, 0.0, 0.75, 0.25]
    """

    counts: NDArray[np.int64]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"`weight` must be in [0, 1], found {self.weight}. Fit it again.")
        if self.counts.ndim != 1 or self.counts.min() < 0:
            raise ValueError(
                f"`counts` must be of shape (vocab_size,), none below 0, found shape {self.counts.shape}. Count the "
                "training interactions by token id."
            )

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each token, 0 for special ones, `(vocab_size,)`."""
        counts = self.counts + 1.0
        counts[:NUM_SPECIAL_TOKENS] = 0.0
        return np.asarray(counts / counts.sum())

    def over(self, model: Any) -> WithPrior:
        """The model with this prior, for `recommend`, `rank_dataset` and `explain`; the model itself stays as it is.

        Args:
            model: Masked or causal model, or a blend; the prior stays on its device.

        Raises:
            ValueError: The model has another vocabulary.
        """
        return WithPrior(model, self)

    def save(self, folder: str | os.PathLike[str], tokenizer: ItemTokenizer) -> Path:
        """Write `prior.json` beside the model; the counts stay in `items.parquet`."""
        path = Path(folder) / PRIOR_FILE
        content: dict[str, Any] = {"weight": self.weight, "items": _items_digest(tokenizer)}
        content["sha256"] = json_digest(content)
        with whole_file(path) as draft:
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path


class _Encoded(NamedTuple):
    """Histories as a model represents them, which of them are empty `(batch,)`, and the normaliser of their softmax."""

    states: Any
    empty: Tensor
    total: Tensor | None


class WithPrior(nn.Module):
    """What `PopularityPrior.over` returns: the scores of an empty history are log-probabilities of the mix."""

    popular: Tensor

    def __init__(self, model: Any, prior: PopularityPrior) -> None:
        super().__init__()
        if len(prior.counts) != model.config.vocab_size:
            raise ValueError(
                f"`prior` must count the model's {model.config.vocab_size} tokens, found {len(prior.counts)}. Load "
                "both from the same checkpoint."
            )
        self.model, self.config, self.weight = model, model.config, prior.weight
        popular = torch.from_numpy(prior.probabilities).to(next(model.parameters()).device)
        self.register_buffer("popular", popular, persistent=False)  # (vocab_size,)
        self.train(model.training)

    def encode_history(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Any:
        """What `score_items` takes; special tokens are no known items."""
        states = self.model.encode_history(input_ids, attention_mask, **inputs)
        items = attention_mask.bool() & (input_ids >= NUM_SPECIAL_TOKENS)
        empty = ~items.any(dim=1) & (self.weight > 0.0)  # (batch,)
        total = None
        if self.weight < 1.0 and bool(empty.any()):
            total = log_normaliser(partial(self.model.score_items, states), len(self.popular))
        return _Encoded(states, empty, total)

    def score_items(self, history: Any, start: int = 0, stop: int | None = None) -> Tensor:
        """Scores `(batch, stop - start)` of token ids start..stop."""
        scores: Tensor = self.model.score_items(history.states, start, stop)
        if not bool(history.empty.any()):
            return scores
        mix = (self.weight * self.popular[start:stop])[None]
        if history.total is not None:
            mix = mix + (1.0 - self.weight) * (scores.double() - history.total[:, None].double()).exp()
        return torch.where(history.empty[:, None], mix.log().to(scores.dtype), scores)


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
        ValueError: `prior.json` is damaged, of an earlier version of hfrec, or of another checkpoint.
    """
    path = cached_file(name_or_path, PRIOR_FILE, revision=revision, _raise_exceptions_for_missing_entries=False, **hub)
    if path is None:
        if os.path.lexists(Path(name_or_path) / PRIOR_FILE):  # a folder, or a link to nothing
            raise ValueError(f"{PRIOR_FILE} of `{name_or_path}` is no file: fit it again, or remove it.")
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        written = content.pop("sha256", None)  # older ones have none
        if written is not None and written != json_digest(content):
            raise ValueError("it is not as it was written.")
        if content["items"] != _items_digest(tokenizer):
            raise ValueError("it was fitted for a checkpoint of other items or counts.")
        return PopularityPrior(item_counts(tokenizer), float(content["weight"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{PRIOR_FILE} of `{name_or_path}` cannot be used: {type(error).__name__}: {error} Fit it again with "
            "`hfrec evaluate --fit_prior true`, or remove it."
        ) from error


def _items_digest(tokenizer: ItemTokenizer) -> str:
    """SHA-256 (hex) of the items and their counts, on which every number of a prior depends."""
    items = tokenizer.items
    counts = items["count"].to_pylist() if "count" in items.column_names else None
    return json_digest([items["item_id"].to_pylist(), counts])


def item_counts(tokenizer: ItemTokenizer) -> NDArray[np.int64]:
    """Training interactions by token id, `(vocab_size,)`.

    Raises:
        ValueError: The tokenizer has no counts.
    """
    if "count" not in tokenizer.items.column_names:
        raise ValueError(
            "`tokenizer` has no training counts of its items, so that none is known to be popular. Give `counts` to "
            "ItemTokenizer.from_items, as `hfrec pretrain` does."
        )
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    counts[NUM_SPECIAL_TOKENS:] = tokenizer.items["count"].fill_null(0).to_numpy()
    return counts


def log_normaliser(score_chunk: Any, vocab_size: int) -> Tensor:
    """Logarithm of the sum of exp(score) over the catalogue `(n,)`, the catalogue going by in chunks."""
    bounds = chunk_bounds(vocab_size, ITEM_CHUNK_SIZE)
    return torch.stack([score_chunk(start, stop).float().logsumexp(dim=1) for start, stop in bounds]).logsumexp(dim=0)
