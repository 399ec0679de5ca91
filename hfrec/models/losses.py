"""Training losses over labelled positions only: full softmax, the same in chunks, sampled softmax, gBCE.

All of them sum over the labelled positions and divide by the labels of the whole optimiser step, so that accumulation
and several processes equal one big batch.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.nn import functional as F

IGNORED = -100
SAMPLED_LOSSES = ("sampled_softmax", "gbce")  # their gradient has few rows of the item table
SMALLEST_HEIGHT = 64  # fewer rows at a time, and the matrix products wait for memory
CACHED_SCORES = 2**19  # more at a time leave the cache between their uses


def divide_by_labels(
    losses: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Sum of `losses` over `num_items_in_batch`, or over the counted labels when that is left out."""
    if num_items_in_batch is None:
        return losses.sum() / (labels != IGNORED).sum().clamp(min=1)
    return losses.sum() / num_items_in_batch


def item_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy over the catalogue at the labelled positions.

    Args:
        logits: Scores `(num_labelled, vocab_size)`.
        labels: Token ids of the targets `(num_labelled,)`; -100 does not count.
        num_items_in_batch: Labelled positions of the whole optimiser step, over accumulation steps and processes;
            the sum is divided by it. The mean over the counted labels when left out.

    Returns:
        A scalar; 0 with a gradient of 0 when nothing is labelled.

    Example:
        >>> round(item_cross_entropy(torch.zeros(2, 4), torch.tensor([1, 3])).item(), 4)
        1.3863
    """
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return divide_by_labels(total, labels, num_items_in_batch)


def smoothing_terms(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, target_ids: torch.Tensor, first: int
) -> torch.Tensor:
    """What a cross-entropy gains, times the smoothing, when a share of each target is spread over the catalogue.

    `(1 - e) CE(target) + e mean_j CE(j) = CE(target) + e (score(target) - mean_j score(j))`, and the mean score is the
    score of the mean item: no scores of the catalogue are made (Szegedy et al., CVPR 2016, section 7).

    Args:
        hidden: Representations `(num_targets, embedding_size)`.
        weight: Item table `(vocab_size, embedding_size)`.
        bias: Biases `(vocab_size,)`, or None.
        target_ids: Token ids `(num_targets,)`.
        first: First token id of an item; the special tokens before it get no share.

    Returns:
        `(num_targets,)`.
    """
    terms = (hidden * (weight[target_ids] - weight[first:].mean(dim=0))).sum(dim=-1)
    return terms if bias is None else terms + bias[target_ids] - bias[first:].mean()


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
            highest, targets = scores.amax(dim=-1, keepdim=True), scores.gather(1, labels[rows, None] - first)
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
        return (*scaled, None, None, None)


class _CrossEntropyByBlocks(torch.autograd.Function):
    """Sum of the cross-entropies, some rows and some items at a time.

    The forward pass keeps the log-sum-exp of each row; the backward pass makes the scores again, block by block. Where
    the items are divided among the processes of `group`, they exchange these sums, the scores of the targets and the
    gradient of `hidden`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        first: int,
        chunk_size: int,
        group: "dist.ProcessGroup | None" = None,
    ) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        norms = hidden.new_full((len(hidden),), -math.inf, dtype=wide)
        target = hidden.new_zeros((len(hidden),), dtype=wide)
        ctx.narrow = _matmul_dtype(hidden)
        for items, rows in _blocks(len(hidden), first, len(weight), chunk_size):
            scores = _block_scores(hidden[rows], weight[items], bias, items, ctx.narrow)
            norms[rows] = torch.logaddexp(norms[rows], scores.logsumexp(dim=-1))
            inside, columns = _labels_inside(labels[rows], items)
            target[rows.start + inside] = scores[inside, columns]
        if group is not None:
            norms, target = _over_processes(norms, target, group)
        ctx.save_for_backward(hidden, weight, bias, labels, norms)
        ctx.first, ctx.chunk_size, ctx.group = first, chunk_size, group
        return (norms - target).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, labels, norms = ctx.saved_tensors
        gradients = _zero_gradients(ctx, hidden, weight, bias)
        for items, rows in _blocks(len(hidden), ctx.first, len(weight), ctx.chunk_size):
            scores = _block_scores(hidden[rows], weight[items], bias, items, ctx.narrow)
            slopes = scores.sub_(norms[rows, None]).exp_()
            inside, columns = _labels_inside(labels[rows], items)
            slopes[inside, columns] -= 1.0
            slopes.mul_(upstream[0])
            _add_gradients(gradients, slopes, hidden, weight, rows=rows, items=items, narrow=ctx.narrow)
        if ctx.group is not None and gradients[0] is not None:
            dist.all_reduce(gradients[0], group=ctx.group)
        return (*gradients, None, None, None, None)


def _over_processes(
    norms: torch.Tensor, target: torch.Tensor, group: "dist.ProcessGroup"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exp and target score `(rows,)` of the whole catalogue, from those of each process's items."""
    highest = norms.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group)
    sums = torch.stack([(norms - highest).exp(), target])  # (2, rows)
    dist.all_reduce(sums, group=group)
    return highest + sums[0].log(), sums[1]


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
    group: "dist.ProcessGroup | None" = None,
) -> torch.Tensor:
    """`item_cross_entropy` of `F.linear(representation, weight, bias)` that never holds all scores, nor their gradient.

    Where the scores of 64 positions fit into a chunk it does the work of the full softmax and, staying in the cache, is
    faster. For a larger catalogue it cuts that too and makes the scores twice: one matrix product in four more. On a
    GPU with `liger-kernel` installed, its kernel works through the rows instead.

    Args:
        representation: `(num_labelled, embedding_size)`.
        weight: Item embeddings `(vocab_size, embedding_size)`.
        bias: `(vocab_size,)` or None.
        labels: Token ids of the targets `(num_labelled,)`; -100 does not count.
        num_special_tokens: The first so many tokens have no probability.
        chunk_size: Scores held at a time.
        num_items_in_batch: As in `item_cross_entropy`.
        group: Processes that each hold some rows of `weight` and `bias`, and the same `representation`. Then
            `num_special_tokens` is that of these rows, and a label is a place in them, `len(weight)` where another
            process has it.

    Example:
        >>> part = {"bias": None, "labels": torch.tensor([1, 3]), "num_special_tokens": 0, "chunk_size": 3}
        >>> round(chunked_cross_entropy(torch.zeros(2, 5), weight=torch.ones(4, 5), **part).item(), 4)
        1.3863
    """
    counted = labels != IGNORED
    height = rows_at_once(len(labels), len(weight), chunk_size) if group is None else 0
    if not bool(counted.all()):
        representation, labels = representation[counted], labels[counted]
    inputs = representation, weight, bias, labels, num_special_tokens
    fused = _liger(representation.device.type) if group is None and len(labels) else None
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
        total = _CrossEntropyByBlocks.apply(*inputs, chunk_size, group)
    return divide_by_labels(total, labels, num_items_in_batch)


@dataclass(frozen=True)
class NegativeSampler:
    r"""Draws the negatives that all labelled positions of a batch share, with replacement.

    | `kind` | share of item `i` among the draws |
    |---|---|
    | `uniform` | `1 / num_items` |
    | `log_uniform` | `log((i + 2) / (i + 1)) / log(num_items + 1)`: Zipf's law, items in order of frequency |
    | `in_batch` | its share `f_i` of the labels, estimated over the training steps so far |
    | `mixed` | half uniform, half in-batch (Yang et al., WWW 2020) |

    With as many negatives as items or more, each item is a candidate once and the softmax is exact.

    Args:
        kind: How negatives are drawn.
        num_items: Items of the catalogue.
        first: Token id of the first item.
        count: Negatives to draw.
    """

    kind: Literal["uniform", "log_uniform", "in_batch", "mixed"]
    num_items: int
    first: int
    count: int

    @property
    def exhaustive(self) -> bool:
        """Whether every item is a candidate."""
        return self.count >= self.num_items

    def draw(self, labels: torch.Tensor) -> torch.Tensor:
        """Token ids `(count,)`, or all items; `labels` are the targets of the batch, from which in-batch draws come."""
        if self.exhaustive:
            return torch.arange(self.first, self.first + self.num_items, device=labels.device)
        if self.kind == "log_uniform":
            scaled = torch.rand(self.count, device=labels.device, dtype=torch.double) * math.log(self.num_items + 1)
            return self.first + (scaled.exp().long() - 1).clamp(0, self.num_items - 1)
        in_batch = {"in_batch": self.count, "mixed": self.count // 2}.get(self.kind, 0) if len(labels) else 0
        drawn = labels[torch.randint(max(1, len(labels)), (in_batch,), device=labels.device)]
        size = (self.count - in_batch,)
        return torch.cat([drawn, torch.randint(self.first, self.first + self.num_items, size, device=labels.device)])

    def log_expected_count(self, ids: torch.Tensor, label_counts: torch.Tensor | None) -> torch.Tensor:
        """Logarithm of how often each of `ids` is drawn, on average; 0 where every item is a candidate.

        Args:
            ids: Token ids.
            label_counts: How often each token was a label so far `(vocab_size,)`; needed for in-batch draws.
        """
        if self.exhaustive:
            return torch.zeros(ids.shape, device=ids.device)
        if self.kind == "uniform":
            return torch.full(ids.shape, math.log(self.count / self.num_items), device=ids.device)
        if self.kind == "log_uniform":
            place = (ids - self.first).double()
            share = torch.log1p(1 / (place + 1)) / math.log(self.num_items + 1)
            return (self.count * share).log().float()
        if label_counts is None:
            raise ValueError(f"`label_counts` is needed to correct for {self.kind!r} negatives, found None.")
        share = label_counts[ids].clamp(min=1.0) / label_counts.sum().clamp(min=1.0)
        in_batch = self.count if self.kind == "in_batch" else self.count // 2
        return (in_batch * share + (self.count - in_batch) / self.num_items).log()


@dataclass(frozen=True)
class Candidates:
    """Scores of the targets `(num_labelled,)` and of the shared negatives `(num_labelled, num_negatives)`.

    A negative that is the target of its row (an accidental hit) has the score minus infinity.
    """

    targets: torch.Tensor
    target_ids: torch.Tensor
    negatives: torch.Tensor
    negative_ids: torch.Tensor


class _SparseTake(torch.autograd.Function):
    """Entries of a vector, with a sparse gradient, which `F.embedding` has for matrices only."""

    @staticmethod
    def forward(ctx: Any, vector: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.size = vector.shape
        return vector[index]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(index[None], gradients[0], ctx.size, check_invariants=False), None


def score_candidates(
    representation: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    target_ids: torch.Tensor,
    negative_ids: torch.Tensor,
    sparse: bool = False,
) -> Candidates:
    """Score the targets and the shared negatives, in float32, with accidental hits masked.

    Under `sparse` the gradients of weight and bias hold the rows of these items only.
    """
    ids = torch.cat([target_ids, negative_ids])
    rows = F.embedding(ids, weight, sparse=sparse)  # (num_labelled + num_negatives, embedding_size)
    target_rows, negative_rows = rows.split([len(target_ids), len(negative_ids)])
    targets = (representation.float() * target_rows.float()).sum(dim=-1)
    negatives = F.linear(representation, negative_rows).float()
    if bias is not None:
        biases = _SparseTake.apply(bias, ids) if sparse else bias[ids]
        targets = targets + biases[: len(target_ids)]
        negatives = negatives + biases[len(target_ids) :]
    hits = negative_ids == target_ids[:, None]
    return Candidates(targets, target_ids, negatives.masked_fill(hits, -math.inf), negative_ids)


def sampled_softmax_losses(
    candidates: Candidates, sampler: NegativeSampler, label_counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Softmax over the target and the shared negatives with logQ correction, per labelled position.

    `-log(exp(s_y - log Q_y) / (exp(s_y - log Q_y) + Σ_j exp(s_j - log Q_j)))` with `Q` the expected number of draws of
    an item: without it, items that are drawn more often than others are scored too low (Bengio and Senécal, 2008; Yi
    et al., RecSys 2019).

    Args:
        candidates: Scores of targets and negatives.
        sampler: What drew the negatives.
        label_counts: Needed for in-batch negatives.
    """
    target = candidates.targets - sampler.log_expected_count(candidates.target_ids, label_counts)
    negatives = candidates.negatives - sampler.log_expected_count(candidates.negative_ids, label_counts)
    return torch.logaddexp(target, negatives.logsumexp(dim=-1)) - target  # (num_labelled,)


def gbce_losses(candidates: Candidates, num_items: int, t: float) -> torch.Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald, RecSys 2023), per labelled position.

    `-(β log σ(s_y) + Σ_j log(1 - σ(s_j))) / (k + 1)` over `k` uniform negatives, with the sampling rate
    `α = k / (num_items - 1)` and `β = α (t (1 - 1/α) + 1/α)`. At `t = 0` it is plain binary cross-entropy; at
    `t = 1` the scores are calibrated: `σ(s)` is the probability, in spite of the sampling.

    Args:
        candidates: Scores of targets and negatives.
        num_items: Items of the catalogue.
        t: Calibration, from 0 to 1.

    Example:
        >>> scores = torch.zeros(1), torch.tensor([3]), torch.zeros(1, 2), torch.tensor([4, 5])
        >>> round(gbce_losses(Candidates(*scores), num_items=5, t=0.0).item(), 4)
        0.6931
    """
    k = min(candidates.negatives.shape[-1], num_items - 1)
    alpha = k / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    # softplus(s) = -log(1 - σ(s)), which is 0 at the minus infinity of an accidental hit.
    negatives = F.softplus(candidates.negatives).sum(dim=-1)
    return (negatives - beta * F.logsigmoid(candidates.targets)) / (k + 1)
