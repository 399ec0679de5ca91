"""The full softmax in chunks: `item_cross_entropy` and its gradient without the scores of all items at once."""

import importlib
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from .losses import IGNORED, divide_by_labels

SMALLEST_HEIGHT = 64  # fewer rows at a time, and the matrix products wait for memory
CACHED_SCORES = 2**19  # more at a time leave the cache between their uses


class _CrossEntropyByRows(torch.autograd.Function):
    """Sum of the cross-entropies, a few rows over the whole catalogue at a time.

    The scores of a block are made once: its gradient is worked out at once, while they are at hand.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        seen: torch.Tensor | None,
        first: int,
        height: int,
    ) -> torch.Tensor:
        narrow, items = _matmul_dtype(hidden), slice(first, len(weight))
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        gradients = of_hidden, of_weight, of_bias = _zero_gradients(ctx, hidden, weight, bias)
        table = weight[items].to(narrow)
        buffer = hidden.new_empty(min(height, len(hidden)), len(table))  # new memory for each block is slow
        for row in range(0, len(hidden), height):
            rows = slice(row, row + height)
            scores = _block_scores(hidden[rows], table, bias, items, narrow, buffer)
            columns = labels[rows, None] - first
            targets = scores.gather(1, columns)
            if seen is not None:
                scores.scatter_(1, seen[rows] - first, -math.inf).scatter_(1, columns, targets)
            highest = scores.amax(dim=-1, keepdim=True)
            weights = scores.sub_(highest).exp_()  # (rows, items): softmax but for the sum
            sums = weights.sum(dim=-1, keepdim=True)
            total += (highest + sums.log() - targets).sum()
            if of_bias is not None:
                of_bias[items] += (weights.T @ (1 / sums)).squeeze(1).to(of_bias.dtype)
            weights = weights.to(narrow)
            if of_weight is not None:
                _add_product(of_weight[items], weights.T, (hidden[rows] / sums).to(narrow))
            if of_hidden is not None:
                of_hidden[rows] = ((weights @ table) / sums).to(of_hidden.dtype)
        # What the softmax has less at the target.
        if of_hidden is not None:
            of_hidden -= weight[labels]
        if of_weight is not None:
            of_weight.index_add_(0, labels, hidden.to(of_weight.dtype), alpha=-1)
        if of_bias is not None:
            of_bias.index_add_(0, labels, torch.ones_like(labels, dtype=of_bias.dtype), alpha=-1)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scaled = (None if gradient is None else gradient * upstream[0] for gradient in ctx.saved_tensors)
        return (*scaled, None, None, None, None)


class _NormsByBlocks(torch.autograd.Function):
    """Log-sum-exp of each row and score of its target, some rows and some items at a time.

    The backward pass makes the scores again, block by block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        seen: torch.Tensor | None,
        first: int,
        chunk_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        norms = hidden.new_full((len(hidden),), -math.inf, dtype=wide)
        target = hidden.new_zeros((len(hidden),), dtype=wide)
        ctx.narrow = _matmul_dtype(hidden)
        for items, rows in _blocks(len(hidden), first, len(weight), chunk_size):
            scores = _block_scores(hidden[rows], weight[items], bias, items, ctx.narrow)
            _leave_out_seen(scores, seen, labels, rows=rows, items=items)
            norms[rows] = torch.logaddexp(norms[rows], scores.logsumexp(dim=-1))
            inside, columns = _labels_inside(labels[rows], items)
            target[rows.start + inside] = scores[inside, columns]
        ctx.save_for_backward(hidden, weight, bias, labels, seen, norms)
        ctx.first, ctx.chunk_size = first, chunk_size
        return norms, target

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, labels, seen, norms = ctx.saved_tensors
        of_norms, of_target = upstream  # (rows,) each
        norms = norms.masked_fill(norms == -math.inf, 0.0)  # a row whose every item is left out: no slopes
        gradients = _zero_gradients(ctx, hidden, weight, bias)
        for items, rows in _blocks(len(hidden), ctx.first, len(weight), ctx.chunk_size):
            scores = _block_scores(hidden[rows], weight[items], bias, items, ctx.narrow)
            _leave_out_seen(scores, seen, labels, rows=rows, items=items)
            slopes = scores.sub_(norms[rows, None]).exp_().mul_(of_norms[rows, None])
            inside, columns = _labels_inside(labels[rows], items)
            slopes[inside, columns] += of_target[rows][inside]
            _add_gradients(gradients, slopes, hidden, weight, rows=rows, items=items, narrow=ctx.narrow)
        return (*gradients, None, None, None, None)


def norms_and_targets(
    representation: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    num_special_tokens: int,
    chunk_size: int,
    seen: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exp of the scores of each row, and the score of its target: each `(num_labelled,)`, of at least 32 bits.

    Args:
        representation: `(num_labelled, embedding_size)`.
        weight: Item embeddings `(num_rows, embedding_size)`, of all tokens or of some next to each other.
        bias: `(num_rows,)` or None.
        labels: Rows of the targets `(num_labelled,)`; `num_rows` where it is none of these, whose score is then 0.
        num_special_tokens: The first so many rows have no probability.
        chunk_size: Scores held at a time.
        seen: Rows `(num_labelled, length)` that have no probability but as a target; numbers of no row do nothing.

    Example:
        >>> part = {"bias": None, "labels": torch.tensor([1, 4]), "num_special_tokens": 0, "chunk_size": 3}
        >>> norms, targets = norms_and_targets(torch.zeros(2, 5), weight=torch.ones(4, 5), **part)
        >>> norms.exp().tolist(), targets.tolist()
        ([4.0, 4.0], [0.0, 0.0])
    """
    norms, targets = _NormsByBlocks.apply(representation, weight, bias, labels, seen, num_special_tokens, chunk_size)
    return norms, targets


Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


def _zero_gradients(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Gradients:
    """Zeros for representations, weights and biases, or None where no gradient is asked for."""
    needs = ctx.needs_input_grad
    return (
        torch.zeros_like(hidden) if needs[0] else None,
        torch.zeros_like(weight) if needs[1] else None,
        torch.zeros_like(bias) if needs[2] and bias is not None else None,
    )


def _add_gradients(
    gradients: Gradients,
    slopes: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    *,
    rows: slice,
    items: slice,
    narrow: torch.dtype,
) -> None:
    """Add what a block `(rows, items)` of score gradients gives to the gradients of its rows and items."""
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias[items] += slopes.sum(dim=0).to(of_bias.dtype)
    slopes = slopes.to(narrow)
    if of_hidden is not None:
        _add_product(of_hidden[rows], slopes, weight[items].to(narrow))
    if of_weight is not None:
        _add_product(of_weight[items], slopes.T, hidden[rows].to(narrow))


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`total += left @ right`, at once where the types allow it."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += (left @ right).to(total.dtype)


@cache
def _liger(device_type: str) -> Callable[..., torch.Tensor] | None:
    """Liger's fused linear cross-entropy (Hsu et al., 2024), on a GPU where `liger-kernel` is installed."""
    if device_type != "cuda":
        return None
    try:
        kernels = importlib.import_module("liger_kernel.transformers.functional")
    except ImportError:
        return None
    fused: Callable[..., torch.Tensor] = kernels.liger_fused_linear_cross_entropy
    return fused


def _matmul_dtype(hidden: torch.Tensor) -> torch.dtype:
    """What a matrix product would be done in here: the backward pass runs outside of autocast."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _blocks(num_rows: int, first: int, num_tokens: int, chunk_size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of items and of rows that hold at most `chunk_size` scores; about square where both are long."""
    height = max(1, min(num_rows, math.isqrt(chunk_size)))
    width = max(1, chunk_size // height)
    for start in range(first, num_tokens, width):
        for row in range(0, num_rows, height):
            yield slice(start, min(start + width, num_tokens)), slice(row, min(row + height, num_rows))


def _block_scores(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    items: slice,
    narrow: torch.dtype,
    buffer: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores `(rows, items)` of at least 32 bits, in the `buffer` `(rows or more, items)` where it has their type."""
    out = None if buffer is None or buffer.dtype != narrow else buffer[: len(hidden)]
    with torch.autocast(hidden.device.type, enabled=False):
        scores = torch.mm(hidden.to(narrow), weight.to(narrow).T, out=out)
    wide = scores.to(torch.promote_types(narrow, torch.float32))
    return wide if bias is None else wide.add_(bias[items])


def _labels_inside(labels: torch.Tensor, items: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose target lies in the block, and the column of it."""
    inside = ((labels >= items.start) & (labels < items.stop)).nonzero().squeeze(1)
    return inside, labels[inside] - items.start


def _leave_out_seen(
    scores: torch.Tensor, seen: torch.Tensor | None, labels: torch.Tensor, *, rows: slice, items: slice
) -> None:
    """Minus infinity in a block `(rows, items)` of scores, in place, where an item is seen and not the target."""
    if seen is None:
        return
    tokens = seen[rows]
    places = ((tokens >= items.start) & (tokens < items.stop) & (tokens != labels[rows, None])).nonzero(as_tuple=True)
    scores[places[0], tokens[places] - items.start] = -math.inf


def rows_at_once(num_rows: int, num_tokens: int, chunk_size: int) -> int:
    """Rows whose scores over all tokens are held together; 0 where a chunk has room for too few of them."""
    height = chunk_size // num_tokens
    if height < min(SMALLEST_HEIGHT, num_rows):
        return 0
    return min(height, max(SMALLEST_HEIGHT, CACHED_SCORES // num_tokens))


def chunked_cross_entropy(
    representation: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    num_special_tokens: int,
    chunk_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """`item_cross_entropy` of `F.linear(representation, weight, bias)` that never holds all scores, nor their gradient.

    Where the scores of 64 positions fit into a chunk it does the work of the full softmax and, staying in the cache, is
    faster. For a larger catalogue it cuts that too and makes the scores twice: one matrix product in four more. On a
    GPU with `liger-kernel` installed, its kernel works through the rows instead, where all items compete.

    Args:
        representation: `(num_labelled, embedding_size)`.
        weight: Item embeddings `(vocab_size, embedding_size)`.
        bias: `(vocab_size,)` or None.
        labels: Token ids of the targets `(num_labelled,)`; -100 does not count.
        num_special_tokens: The first so many tokens have no probability.
        chunk_size: Scores held at a time.
        num_items_in_batch: As in `item_cross_entropy`.
        seen: Token ids `(num_labelled, length)` that have no probability but as a target; None: all items have one.

    Example:
        >>> part = {"bias": None, "labels": torch.tensor([1, 3]), "num_special_tokens": 0, "chunk_size": 3}
        >>> round(chunked_cross_entropy(torch.zeros(2, 5), weight=torch.ones(4, 5), **part).item(), 4)
        1.3863
    """
    counted = labels != IGNORED
    height = rows_at_once(len(labels), len(weight), chunk_size)
    if not bool(counted.all()):
        representation, labels = representation[counted], labels[counted]
        seen = None if seen is None else seen[counted]
    inputs = representation, weight, bias, labels, seen, num_special_tokens
    fused = _liger(representation.device.type) if seen is None and len(labels) else None
    if fused is not None:
        items = slice(num_special_tokens, None)
        total = fused(
            representation,
            weight[items],
            labels - num_special_tokens,
            bias=None if bias is None else bias[items],
            reduction="sum",
            accum_dtype=torch.promote_types(weight.dtype, torch.float32),
            chunk_mem_const=max(1, chunk_size // representation.numel()),  # scores held, by inputs
        )
    elif height:
        total = _CrossEntropyByRows.apply(*inputs, height)
    else:
        norms, targets = _NormsByBlocks.apply(*inputs, chunk_size)
        total = (norms - targets).sum()
    return divide_by_labels(total, labels, num_items_in_batch)
