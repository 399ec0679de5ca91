"""Training losses over labelled positions only: full softmax, and the losses over drawn negatives, with their choice.

All of them sum over the labelled positions and divide by the labels of the whole optimiser step, so that accumulation
and several processes equal one big batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch.nn import functional as F

from .configuration_bert4rec import Bert4RecConfig
from .content import StepItems

IGNORED = -100


@dataclass(frozen=True)
class Labelled:
    """What a training loss is of: the labelled positions whose targets compete with the items of one block.

    Args:
        states: Representations `(num_labelled, embedding_size)`.
        items: Token ids of the targets `(num_labelled,)`; -100 does not count.
        num_items_in_batch: As in `item_cross_entropy`.
        step: Embeddings of the items that they are scored against.
        block: Number of the block among those that compete each within itself; 0 where all items compete.
        seen: Items that do not compete, as `seen_items` gives them; None where all do.
    """

    states: torch.Tensor
    items: torch.Tensor
    num_items_in_batch: torch.Tensor | int | None
    step: StepItems
    block: int = 0
    seen: torch.Tensor | None = None

    def where(self, kept: torch.Tensor) -> "Labelled":
        """What belongs to the positions that are kept `(num_labelled,)`."""
        seen = None if self.seen is None else self.seen[kept]
        return replace(self, states=self.states[kept], items=self.items[kept], seen=seen)


def seen_items(
    input_ids: torch.Tensor | None, labelled: torch.Tensor, items: torch.Tensor, first: int, is_causal: bool
) -> torch.Tensor:
    """The items that a labelled position has in sight: those that a filtered ranking leaves out.

    For the history `a b c`, followed by `d`, a causal model is asked for `b` after `a`, and so on:

        position  target  seen
        a         b       a b b
        b         c       a b c
        c         d       a b c

    Args:
        input_ids: Token ids `(batch, length)`.
        labelled: Where items are asked for `(batch, length)`.
        items: Token ids of the targets `(num_labelled,)`.
        first: First token id of an item; special tokens are not seen.
        is_causal: Whether a position sees itself and what is older alone.

    Returns:
        Token ids `(num_labelled, length)`; the target, which competes in any case, in the places of what is not seen.

    Raises:
        ValueError: No `input_ids`.
    """
    if input_ids is None:
        raise ValueError("`loss_candidates='unseen'` needs `input_ids`: embeddings do not say which items are seen.")
    rows, places = labelled.nonzero(as_tuple=True)  # (num_labelled,)
    tokens = input_ids[rows]  # (num_labelled, length)
    hidden = tokens < first
    if is_causal:
        hidden |= torch.arange(tokens.shape[1], device=tokens.device) > places[:, None]
    return torch.where(hidden, items.clamp(min=0)[:, None], tokens)


def without_rivals(logits: torch.Tensor, items: torch.Tensor, blocks: Sequence[tuple[int, int]] | None) -> torch.Tensor:
    """Scores `(num_labelled, vocab_size)`, minus infinity for items of other blocks than the target's."""
    if blocks is None:
        return logits
    stops = torch.tensor([stop for _, stop in blocks], device=logits.device)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    of_token, own = torch.bucketize(tokens, stops, right=True), torch.bucketize(items, stops, right=True)
    others = (of_token != own[:, None]) & (items >= 0)[:, None]  # an unknown target has no block
    return logits.masked_fill(others, -math.inf)


def without_seen(logits: torch.Tensor, seen: torch.Tensor | None, items: torch.Tensor) -> torch.Tensor:
    """Scores `(num_labelled, vocab_size)`, minus infinity for the tokens `(num_labelled, length)` seen, if any."""
    if seen is None:
        return logits
    targets = items.clamp(min=0)[:, None]
    return logits.scatter(1, seen, -math.inf).scatter(1, targets, logits.gather(1, targets))


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


def found_among(ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Which of the ascending `ids`, `(count,)` or a row's own `(n, count)`, are in a row of tokens `(n, length)`.

    Returns:
        Mask `(n, count)`.
    """
    count = ids.shape[-1]
    places = torch.searchsorted(ids, tokens).clamp(max=count - 1)
    there = ids[places] if ids.dim() == 1 else ids.gather(1, places)
    places = places.masked_fill(there != tokens, count)  # one column more, for what is not there
    found = torch.zeros(len(tokens), count + 1, dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, places, True)[:, :count]


@dataclass(frozen=True)
class Candidates:
    """Scores of the targets `(num_labelled,)` and of the shared negatives `(num_labelled, num_negatives)`.

    A negative that is the target of its row (an accidental hit) has the score minus infinity. `hard` are the scores of
    negatives that were not drawn but looked for `(num_labelled, num_hard_negatives)`; None where there are none.
    """

    targets: torch.Tensor
    target_ids: torch.Tensor
    negatives: torch.Tensor
    negative_ids: torch.Tensor
    hard: torch.Tensor | None = None

    def without(self, seen: torch.Tensor | None) -> "Candidates":
        """The same with minus infinity for negatives among the tokens `(num_labelled, length)` seen, if any."""
        if seen is None:
            return self
        drawn, columns = self.negative_ids.unique(return_inverse=True)  # (num_drawn,), (num_negatives,)
        hits = found_among(drawn, seen)  # (num_labelled, num_drawn)
        return replace(self, negatives=self.negatives.masked_fill(hits[:, columns], -math.inf))


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


def take_entries(vector: torch.Tensor, index: torch.Tensor, *, sparse: bool) -> torch.Tensor:
    """Entries `(n,)` of a vector; under `sparse` its gradient holds these alone."""
    return cast(torch.Tensor, _SparseTake.apply(vector, index)) if sparse else vector[index]


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
        biases = take_entries(bias, ids, sparse=sparse)
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
    et al., RecSys 2019). With hard negatives `h` the drawn ones estimate the sum over the other items, without bias:
    `-log(exp(s_y) / (exp(s_y) + Σ_h exp(s_h) + Σ_j exp(s_j - log Q_j)))`.

    Args:
        candidates: Scores of targets and negatives.
        sampler: What drew the negatives.
        label_counts: Needed for in-batch negatives.
    """
    negatives = candidates.negatives - sampler.log_expected_count(candidates.negative_ids, label_counts)
    if candidates.hard is not None:
        scores = torch.cat([candidates.targets[:, None], candidates.hard, negatives], dim=1)
        return scores.logsumexp(dim=-1) - candidates.targets  # (num_labelled,)
    target = candidates.targets - sampler.log_expected_count(candidates.target_ids, label_counts)
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


def sampled_losses(
    candidates: Candidates, sampler: NegativeSampler, config: Bert4RecConfig, label_counts: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of `SAMPLED_LOSSES` that the config names, per labelled position.

    Args:
        candidates: Scores of targets and negatives.
        sampler: What drew the negatives.
        config: With `loss` and its settings.
        label_counts: Needed for in-batch negatives.
    """
    if config.loss == "gbce":
        return gbce_losses(candidates, sampler.num_items, config.gbce_t)
    return sampled_softmax_losses(candidates, sampler, label_counts)
