"""What ranking and recommending share: who may be recommended, the walk over the catalogue, and one order of items.

A list holds the items of the highest scores; equal scores are ordered by token id. Measured lists are the lists that
users get, because both come from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .tokenization import NUM_SPECIAL_TOKENS

ITEM_CHUNK_SIZE = 16384  # items scored at a time
_NOTHING = torch.iinfo(torch.int64).min  # sort key below that of every item
_LOW = 2**32 - 1  # mask of the half of a sort key that holds the token id


def chunk_bounds(vocab_size: int, item_chunk_size: int) -> list[tuple[int, int]]:
    """First token id and the one after the last of each chunk of the catalogue.

    Example:
        >>> chunk_bounds(5, 2)
        [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + item_chunk_size, vocab_size)) for start in range(0, vocab_size, item_chunk_size)]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode in the block, and as it was after it."""
    was_training = model.training
    if was_training:  # walking through all modules is a tenth of a single request
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def encode_batch(model: Any, batch: Mapping[str, Any], device: torch.device) -> Any:
    """What `score_items` of the model takes of the histories of a batch, such as `(batch, embedding_size)`.

    Args:
        model: With `encode_history`.
        batch: `input_ids`, `attention_mask` and, of a model that reads more than items, `inputs`.
        device: Where the model is.
    """
    tokens = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    inputs = {name: codes.to(device) for name, codes in batch.get("inputs", {}).items()}
    found: Any = model.encode_history(**tokens, **({"inputs": inputs} if inputs else {}))
    return found


def rankable_mask(
    vocab_size: int, *, allowed: Tensor | None = None, allowed_items: Iterable[int] | None = None
) -> Tensor:
    """Mask of the token ids that can be recommended at all.

    Args:
        vocab_size: size of the vocabulary, special tokens included.
        allowed: (vocab_size,) bool, or None for all.
        allowed_items: the same as token ids, or None for all.

    Returns:
        (vocab_size,) bool, False at special tokens.

    Raises:
        ValueError: if `allowed` has another shape or type, or an id lies outside the vocabulary.

    Example:
        >>> rankable_mask(6, allowed_items=[3, 5]).tolist()
        [False, False, False, True, False, True]
    """
    mask = torch.arange(vocab_size) >= NUM_SPECIAL_TOKENS
    if allowed is not None:
        if allowed.dtype != torch.bool or allowed.shape != (vocab_size,):
            raise ValueError(
                f"`allowed` must be a bool tensor of shape ({vocab_size},), found {allowed.dtype} of shape "
                f"{tuple(allowed.shape)}. Give one value for each token id."
            )
        mask &= allowed.cpu()
    if allowed_items is not None:
        ids = torch.tensor(list(allowed_items), dtype=torch.long)
        if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
            raise ValueError(
                f"`allowed_items` must be token ids in 0..{vocab_size - 1}, found {int(ids.min())}..{int(ids.max())}. "
                "Encode the items with the model's tokenizer."
            )
        mask &= torch.zeros(vocab_size, dtype=torch.bool).index_fill(0, ids, True)
    return mask


def without_nan(scores: Tensor, start: int, *, first_row: int = 0) -> Tensor:
    """The scores, or an error that names the first NaN.

    Args:
        scores: (n, width) scores of token ids from `start` on.
        start: First token id of the chunk.
        first_row: Number of the first row among all histories, for the message.

    Raises:
        ValueError: if a score is NaN.
    """
    # The maximum is NaN where a score is, and is found ten times as fast as the NaN themselves.
    if torch.isnan(scores.amax(dim=1)).any():
        bad = torch.isnan(scores)
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"scores must be numbers, found {int(bad.sum())} NaN, first for history {first_row + row} at token id "
            f"{start + column}. The model has diverged: go back to an earlier checkpoint or lower the learning rate."
        )
    return scores


class TopItems:
    """The best items of each user while the catalogue goes by in chunks, in any order: by score, then by token id.

    Args:
        top_k: Items kept.

    Example:
        >>> best = TopItems(2)
        >>> best.update(torch.tensor([[9.0, 9.0, 9.0, 1.0, 2.0, 2.0]]), 0, rankable_mask(6), torch.tensor([[5]]))
        >>> scores, token_ids = best.items()
        >>> token_ids.tolist()
        [[4, 3]]
    """

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self._first: tuple[Tensor, Tensor] | None = None  # scores and token ids of a first chunk without equal scores
        self._keys: Tensor | None = None

    def update(self, scores: Tensor, start: int, rankable: Tensor, seen: Tensor, *, overwrite: bool = False) -> None:
        """Take in a chunk.

        Args:
            scores: (n, width) scores of token ids from `start` on, none of them NaN.
            start: First token id of the chunk.
            rankable: (vocab_size,) bool, as `rankable_mask` gives it.
            seen: (n, longest) token ids that each user is not to get, filled with 0 or a negative number.
            overwrite: Whether the scores are no longer needed; their copy is a tenth of the time of a batch.
        """
        scores = scores if overwrite else scores.clone()
        best = _best_of_chunk(scores, start, rankable[start : start + scores.shape[1]], seen, self.top_k)
        held = self._keys if self._first is None else encode_keys(*self._first)
        if held is None and isinstance(best, tuple):
            self._first = best
            return
        keys = encode_keys(*best) if isinstance(best, tuple) else best
        if held is None and keys.shape[1] < self.top_k:
            held = keys.new_full((len(keys), self.top_k), _NOTHING)
        if held is not None:
            keys = torch.cat([held, keys], dim=1).topk(self.top_k, dim=1).values
        self._first, self._keys = None, keys

    def items(self) -> tuple[Tensor, Tensor]:
        """Scores (n, top_k) float32 and token ids (n, top_k) int64, best first; id 0 where there is no further item."""
        if self._first is not None:
            return self._first
        if self._keys is None:
            raise ValueError("The catalogue must have at least one chunk, found none. Call `update` first.")
        return decode_keys(self._keys)


def _best_of_chunk(
    scores: Tensor, start: int, rankable: Tensor, seen: Tensor, top_k: int
) -> tuple[Tensor, Tensor] | Tensor:
    """The best items of a chunk, best first; the scores are written over.

    Scores and token ids, each `(n, top_k)`, where no two scores are equal; otherwise, and where the chunk has no more
    items, sort keys `(n, min(top_k, width))`.

    Scores are compared as floats; keys are made for the few that are left. Which of the equal scores at the border
    `topk` keeps is open, so that rows with such ties, or with fewer items than wanted, choose among these by token id.
    """
    width = scores.shape[1]
    top_k = min(top_k, width)
    user, column = ((seen >= start) & (seen < start + width)).nonzero(as_tuple=True)  # (num_seen,) each
    place = seen[user, column] - start
    scores.index_fill_(1, (~rankable).nonzero()[:, 0], -torch.inf)[user, place] = -torch.inf
    values, found = scores.topk(min(top_k + 1, width), dim=1)  # (n, top_k + 1), or all
    if width > top_k and bool((values[:, :-1] > values[:, 1:]).all()):
        return values[:, :top_k].float() + 0.0, found[:, :top_k] + start
    border = values[:, top_k - 1]  # the last one in
    after = values[:, top_k] if width > top_k else torch.full_like(border, -torch.inf)  # the first one out
    keys = encode_keys(values[:, :top_k], found[:, :top_k] + start)
    rows = (border == after).nonzero()[:, 0]  # where there are too few items, both are -inf
    if len(rows):
        line = border[rows, None]
        allowed = rankable.repeat(len(scores), 1)
        allowed[user, place] = False
        tied = allowed[rows] & (scores[rows] == line)  # (num_rows, width)
        ids = torch.arange(width, 0, -1, dtype=torch.int32, device=scores.device)
        order, lowest = torch.where(tied, ids, 0).topk(top_k, dim=1)  # (num_rows, top_k)
        tied_keys = encode_keys(line.expand_as(lowest), lowest + start).masked_fill(order == 0, _NOTHING)
        above = keys[rows].masked_fill(values[rows, :top_k] <= line, _NOTHING)
        keys[rows] = torch.cat([above, tied_keys], dim=1).topk(top_k, dim=1).values
    return keys.sort(dim=1, descending=True).values


def encode_keys(scores: Tensor, token_ids: Tensor) -> Tensor:
    """Integers that order as the scores do, and equal scores by token id; `(batch, n)` to int64 `(batch, n)`.

    No two of these keys are equal, which `topk` needs for one order on every machine.
    """
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the 0.0 that it equals
    return _flip_negative(bits).long().mul_(2**32).add_(_LOW - token_ids)


def _flip_negative(bits: Tensor) -> Tensor:
    """Floats' bits (sign and magnitude) to integers of the same order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def decode_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and token ids of sort keys; token id 0 where there was no item."""
    scores = _flip_negative((keys >> 32).to(torch.int32)).view(torch.float32)
    return scores, (_LOW - (keys & _LOW)).masked_fill(keys == _NOTHING, 0)
