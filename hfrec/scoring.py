"""What ranking and recommending share: who may be recommended, the walk over the catalogue, and one order of items.

A list holds the items of the highest scores; equal scores are ordered by token id. Measured lists are the lists that
users get, because both come from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .tokenization import NUM_SPECIAL_TOKENS

ITEM_CHUNK_SIZE = 16384  # items scored at a time
BLOCK = 64  # scores next to each other of which the maximum is taken first
SMALLEST_IN_BLOCKS = 2**16  # of fewer scores the largest are found as fast at once
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
        (vocab_size,) bool, False at special tokens; not to be written over.

    Raises:
        ValueError: if `allowed` has another shape or type, or an id lies outside the vocabulary.

    Example:
        >>> rankable_mask(6, allowed_items=[3, 5]).tolist()
        [False, False, False, True, False, True]
    """
    mask = _items(vocab_size)
    if allowed is not None:
        if allowed.dtype != torch.bool or allowed.shape != (vocab_size,):
            raise ValueError(
                f"`allowed` must be a bool tensor of shape ({vocab_size},), found {allowed.dtype} of shape "
                f"{tuple(allowed.shape)}. Give one value for each token id."
            )
        mask = mask & allowed.cpu()
    if allowed_items is not None:
        ids = torch.tensor(list(allowed_items), dtype=torch.long)
        if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
            raise ValueError(
                f"`allowed_items` must be token ids in 0..{vocab_size - 1}, found {int(ids.min())}..{int(ids.max())}. "
                "Encode the items with the model's tokenizer."
            )
        mask = mask & torch.zeros(vocab_size, dtype=torch.bool).index_fill(0, ids, True)
    return mask


@lru_cache(maxsize=4)
def _items(vocab_size: int) -> Tensor:
    """True for all but the special tokens `(vocab_size,)`: kept, as making it takes a single request some time."""
    with torch.inference_mode(False):
        return torch.arange(vocab_size, device="cpu") >= NUM_SPECIAL_TOKENS


def num_rankable(rankable: Tensor) -> int:
    """How many token ids a mask `(vocab_size,)` of [`rankable_mask`] lets through; all items are not counted."""
    everything = rankable is _items(len(rankable))
    return len(rankable) - NUM_SPECIAL_TOKENS if everything else int(rankable.sum())


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
    if scores.numel() and math.isnan(scores.detach().amax()):
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
        first_row: Number of the first user among all, for messages.

    Example:
        >>> best = TopItems(2)
        >>> best.update(torch.tensor([[9.0, 9.0, 9.0, 1.0, 2.0, 2.0]]), 0, rankable_mask(6), torch.tensor([[5]]))
        >>> scores, token_ids = best.items()
        >>> token_ids.tolist()
        [[4, 3]]
    """

    def __init__(self, top_k: int, first_row: int = 0) -> None:
        self.top_k, self.first_row = top_k, first_row
        self._first: tuple[Tensor, Tensor] | None = None  # scores and token ids of a first chunk without equal scores
        self._keys: Tensor | None = None

    def update(self, scores: Tensor, start: int, rankable: Tensor, seen: Tensor, *, overwrite: bool = False) -> None:
        """Take in a chunk.

        Args:
            scores: (n, width) scores of token ids from `start` on.
            start: First token id of the chunk.
            rankable: (vocab_size,) bool, as `rankable_mask` gives it.
            seen: (n, longest) token ids that each user is not to get, filled with 0 or a negative number.
            overwrite: Whether the scores are no longer needed; their copy is a tenth of the time of a batch.

        Raises:
            ValueError: The score of an item that may be had is NaN.
        """
        scores = scores if overwrite else scores.clone()
        best = _best_of_chunk(scores, start, rankable, seen, top_k=self.top_k, first_row=self.first_row)
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
    scores: Tensor, start: int, rankable: Tensor, seen: Tensor, *, top_k: int, first_row: int
) -> tuple[Tensor, Tensor] | Tensor:
    """The best items of a chunk, best first; the scores are written over.

    Scores and token ids, each `(n, top_k)`, where no two scores are equal; otherwise, and where the chunk has no more
    items, sort keys `(n, min(top_k, width))`.

    Scores are compared as floats; keys are made for the few that are left. Which of the equal scores at the border
    `topk` keeps is open, so that rows with such ties, or with fewer items than wanted, choose among these by token id.
    """
    width = scores.shape[1]
    top_k = min(top_k, width)
    if start < NUM_SPECIAL_TOKENS:
        scores[:, : NUM_SPECIAL_TOKENS - start] = -torch.inf
    if rankable is not _items(len(rankable)):
        forbidden = (~rankable[start : start + width]).nonzero()[:, 0]
        scores.index_fill_(1, forbidden, -torch.inf)
    _cross_out(scores, start, seen, len(rankable))
    values, found = _largest(scores, min(top_k + 1, width))  # (n, top_k + 1), or all
    if width > top_k and bool((values[:, :-1] > values[:, 1:]).all()):
        best = found[:, :top_k]
        return (values[:, :top_k] + 0.0).float(), best + start if start else best
    without_nan(scores, start, first_row=first_row)  # a NaN, the largest of all for `topk`, comes here too
    border = values[:, top_k - 1]  # the last one in
    after = values[:, top_k] if width > top_k else torch.full_like(border, -torch.inf)  # the first one out
    keys = encode_keys(values[:, :top_k], found[:, :top_k] + start)
    rows = (border == after).nonzero()[:, 0]  # where there are too few items, both are -inf
    if len(rows):
        line = border[rows, None]
        allowed = rankable[start : start + width].repeat(len(scores), 1)
        _cross_out(allowed, start, seen, len(rankable))
        tied = allowed[rows] & (scores[rows] == line)  # (num_rows, width)
        ids = torch.arange(width, 0, -1, dtype=torch.int32, device=scores.device)
        order, lowest = torch.where(tied, ids, 0).topk(top_k, dim=1)  # (num_rows, top_k)
        tied_keys = encode_keys(line.expand_as(lowest), lowest + start).masked_fill(order == 0, _NOTHING)
        above = keys[rows].masked_fill(values[rows, :top_k] <= line, _NOTHING)
        keys[rows] = torch.cat([above, tied_keys], dim=1).topk(top_k, dim=1).values
    return keys.sort(dim=1, descending=True).values


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(count)` of scores `(n, width)`; which of equal scores are found, and their order, is open.

    The largest lie in the blocks with the largest maxima, and a maximum is found many times as fast as `topk` sorts.
    """
    num_rows, width = scores.shape
    num_blocks = width // BLOCK
    if num_blocks < 8 * count or scores.numel() < SMALLEST_IN_BLOCKS:
        return scores.topk(count, dim=1)
    whole, steps = num_blocks * BLOCK, torch.arange(BLOCK, device=scores.device)
    blocks = scores[:, :whole].reshape(num_rows, num_blocks, BLOCK).amax(-1).topk(count, dim=1, sorted=False).indices
    inside = (blocks[..., None] * BLOCK + steps).flatten(1)  # (n, count * BLOCK)
    rest = torch.arange(whole, width, device=scores.device).expand(num_rows, -1)
    columns = torch.cat([inside, rest], dim=1)
    values, places = scores.gather(1, columns).topk(count, dim=1)
    return values, columns.gather(1, places)


def _cross_out(grid: Tensor, start: int, seen: Tensor, vocab_size: int) -> None:
    """Make the seen tokens of a chunk of scores minus infinity, or of a mask `(n, width)` False."""
    width, value = grid.shape[1], False if grid.dtype == torch.bool else -torch.inf
    if width == vocab_size:
        grid.scatter_(1, seen.clamp(min=0), value)  # what fills up the rows falls on token 0, which is no item
        return
    user, column = ((seen >= start) & (seen < start + width)).nonzero(as_tuple=True)  # (num_seen,) each
    grid[user, seen[user, column] - start] = value


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
