"""A catalogue larger than one device: embeddings and biases of the items divided among processes.

The table is cut by rows, for the input as for the softmax, as in Megatron-LM (Shoeybi et al., 2019, section 3). The
rest of the model is on every process, and every process reads the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.catalogue import Catalogue, item_scores
from ..models.chunked_loss import norms_and_targets
from ..models.content import ItemContent
from ..models.item_scorer import ItemScorer
from ..models.losses import IGNORED, Candidates, divide_by_labels, score_candidates

Scorer = TypeVar("Scorer", bound=ItemScorer)
FEATURES = "embeddings.content.features"


def shard_catalogue(model: Scorer, group: dist.ProcessGroup | None = None) -> Scorer:
    """Keep of the item table and of the biases only this process's rows: the shares differ by one row at most.

    Call it on every process, on the same model, before it goes to its device and before the optimiser is made. After
    that the processes read the same batches with the same seed, and call the model, `save_pretrained`, `recommend` and
    `rank_dataset` together. Losses and scores are those of the whole model; scores have no gradient.
    `save_pretrained` writes the ordinary checkpoint, from the first process.

    Args:
        model: `Bert4RecForMaskedLM` or `Bert4RecForCausalLM` with a loss other than `full`; changed in place.
        group: The processes, with a backend for the host and for the model's later device; all when left out.

    Returns:
        `model`.

    Raises:
        TypeError: A model of another kind.
        ValueError: `config.loss` is `full`, `config.label_smoothing` or `config.num_hard_negatives` is not 0, there are
            no processes or more than tokens, or one has other weights.
    """
    if not isinstance(model, ItemScorer):
        raise TypeError(f"`model`: expected a masked or causal Bert4Rec model, found {type(model).__name__}.")
    if model.item_blocks is not None:
        raise ValueError("Items of several sources do not compete within them where the catalogue is divided.")
    if model.config.loss == "full":
        raise ValueError(
            "`loss='full'` holds the scores of all items: set `model.config.loss = 'chunked'`, which is the same loss."
        )
    if model.config.num_hard_negatives:
        raise ValueError("`num_hard_negatives` must be 0 where the catalogue is divided: no process has all items.")
    if model.config.label_smoothing:
        raise ValueError("`label_smoothing` must be 0 where the catalogue is divided: it needs the mean of all items.")
    group = group or dist.group.WORLD
    if group is None:
        raise ValueError("`group`: expected processes, found none: call `torch.distributed.init_process_group` first.")
    shard = Shard(group, model.config.vocab_size)
    sums = torch.stack([weight.detach().double().sum() for weight in model.parameters()])
    shard.check_same(sums, "weights: load one checkpoint, or seed before the model is made", tolerance=1e-6)
    table, decoder = model.model.get_input_embeddings(), model.get_output_embeddings()
    rows = _ShardedEmbedding(shard, table)
    tied = decoder.weight is table.weight
    decoder.weight = rows.weight if tied else _cut(shard, decoder.weight)
    if model.item_bias is not None:
        decoder.bias = _cut(shard, model.item_bias)
    model.set_input_embeddings(rows)
    embeddings = model.model.embeddings
    if embeddings.content is not None:
        embeddings.content = _ShardedContent(shard, embeddings.content)
    model.catalogue = DividedCatalogue(shard)
    own = {id(weight) for weight in _divided_weights(model)}
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in own]
    names += [name for name, _ in model.named_buffers() if name.endswith(FEATURES)]
    # DDP would average the gradients of different items; that its batches differ, the first step finds.
    ddp: Any = nn.parallel.DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, names)
    return model


def clip_grad_norm(model: nn.Module, max_norm: float) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` over the rows of all processes and, once, the rest of the model.

    Args:
        model: What `shard_catalogue` returned; every process calls this.
        max_norm: Longest gradient of all weights together.

    Returns:
        The norm before clipping.

    Raises:
        TypeError: The catalogue of `model` is not sharded.
    """
    if not isinstance(model, ItemScorer) or not isinstance(model.catalogue, DividedCatalogue):
        raise TypeError(f"`model`: expected what `shard_catalogue` returned, found {type(model).__name__}.")
    own = {id(weight) for weight in _divided_weights(model)}
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    square = _squares([weight for weight in weights if id(weight) in own], model.device)
    dist.all_reduce(square, group=model.catalogue.shard.group)
    norm = (square + _squares([weight for weight in weights if id(weight) not in own], model.device)).sqrt()
    nn.utils.clip_grads_with_norm_(weights, max_norm, norm)
    return norm


def _squares(weights: list[nn.Parameter], device: torch.device) -> Tensor:
    """Squared length of the gradients."""
    return nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None]).to(device) ** 2


@dataclass(frozen=True)
class Shard:
    """The rows of one process of `group`: token ids `start … stop - 1` of `vocab_size`."""

    group: dist.ProcessGroup
    vocab_size: int

    def __post_init__(self) -> None:
        if self.size > self.vocab_size:
            raise ValueError(f"Expected at most one process for each of {self.vocab_size} tokens, found {self.size}.")

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    @property
    def start(self) -> int:
        return self.bound(self.rank)

    @property
    def stop(self) -> int:
        return self.bound(self.rank + 1)

    def bound(self, rank: int) -> int:
        """The first token id of process `rank`."""
        return self.vocab_size * rank // self.size

    def cut(self, weight: Tensor) -> Tensor:
        """This process's rows, in memory of their own."""
        return weight.detach()[self.start : self.stop].clone()

    def gather(self, rows: Tensor) -> Tensor | None:
        """All rows in the host memory of the first process, one share at a time; None on the others."""
        rows = rows.detach().contiguous()
        if self.rank:
            dist.send(rows, dist.get_global_rank(self.group, 0), self.group)
            return None
        parts = [rows.cpu()]
        for rank in range(1, self.size):
            share = rows.new_empty((self.bound(rank + 1) - self.bound(rank), *rows.shape[1:]))
            dist.recv(share, dist.get_global_rank(self.group, rank), self.group)
            parts.append(share.cpu())
        return torch.cat(parts)

    def look_up(self, ids: Tensor, rows: Tensor, padding_idx: int | None = None) -> Tensor:
        """Rows `(…, width)` of token ids, wherever they lie; gradients go to the process that has the row."""
        places = torch.arange(ids.numel(), device=ids.device) % 97 + 1
        total = torch.stack([(ids.flatten() * places).sum(), torch.tensor(ids.numel(), device=ids.device)])
        self.check_same(
            total.double(),
            "items: give all of them the same batches, not shares as DDP and the Trainer do (docs/scaling.md), and one "
            "seed",
        )
        elsewhere = (ids < self.start) | (ids >= self.stop)
        found = F.embedding((ids - self.start).masked_fill(elsewhere, 0), rows, padding_idx)
        return self.sum(found.masked_fill(elsewhere[..., None], 0.0))

    def sum(self, part: Tensor) -> Tensor:
        """Sum over the processes; a gradient of it is the gradient of each part."""
        summed: Tensor = _Sum.apply(part, self.group)  # type: ignore[no-untyped-call]  # torch types it not
        return summed

    def share(self, whole: Tensor) -> Tensor:
        """What every process has and each uses for its rows: gradients of it are summed over the processes."""
        shared: Tensor = _Shared.apply(whole, self.group)  # type: ignore[no-untyped-call]  # torch types it not
        return shared

    def check_same(self, values: Tensor, what: str, tolerance: float = 0.0) -> None:
        """Refuse to go on where `values` `(n,)` differ: sums over processes would be of different things."""
        extremes = torch.cat([values, -values])
        dist.all_reduce(extremes, dist.ReduceOp.MAX, self.group)
        highest, lowest = extremes.chunk(2)
        if bool((highest + lowest > tolerance * (1 + highest.abs())).any()):
            raise ValueError(f"The processes that share the catalogue have different {what}.")


class _Sum(torch.autograd.Function):
    """Sum over processes. All of them go on from it, so the gradient of the sum is that of each part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup) -> Tensor:
        dist.all_reduce(whole := part.clone(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Shared(torch.autograd.Function):
    """The counterpart of `_Sum`: nothing is done on the way there, and gradients are summed on the way back."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        dist.all_reduce(summed := gradients[0].clone(), group=ctx.group)
        return summed, None


class _ShardedEmbedding(nn.Embedding):
    """The rows of one process; gives those of all."""

    def __init__(self, shard: Shard, table: nn.Embedding) -> None:
        rows, padding = _cut(shard, table.weight), -1 if table.padding_idx is None else table.padding_idx - shard.start
        super().__init__(
            num_embeddings=len(rows),
            embedding_dim=table.embedding_dim,
            padding_idx=padding if 0 <= padding < len(rows) else None,
            _weight=rows,
        )
        self.weight, self.shard = rows, shard

    def forward(self, input: Tensor) -> Tensor:
        return self.shard.look_up(input, self.weight, self.padding_idx)


def _cut(shard: Shard, weight: Tensor) -> nn.Parameter:
    """The rows of one process, trained where the weight was."""
    return nn.Parameter(shard.cut(weight), requires_grad=weight.requires_grad)


class _ShardedContent(ItemContent):
    """The features of one process's items, under the adapters that every process has."""

    is_whole = False

    def __init__(self, shard: Shard, whole: ItemContent) -> None:
        nn.Module.__init__(self)
        self.shard, self.widths, self.cosine = shard, whole.widths, whole.cosine
        self.register_buffer("features", shard.cut(whole.features))
        self.specials, self.blocks = whole.specials, whole.blocks

    def forward(self, ids: Tensor | None = None, *, shared: bool = False) -> Tensor:
        """Embeddings by content of any tokens `(n,)`, or of this process's rows; with `shared` by adapters in use."""
        if shared:
            return self.adapted(self.features)
        if ids is not None:
            return self.with_specials(ids, self.adapted(self.shard.look_up(ids, self.features)))
        weights = dict(self.blocks.named_parameters())
        flat = self.shard.share(torch.cat([weight.flatten() for weight in weights.values()]))
        pieces = torch.split(flat, [weight.numel() for weight in weights.values()])
        given = {f"blocks.{name}": piece.view_as(weights[name]) for name, piece in zip(weights, pieces, strict=True)}
        rows = torch.func.functional_call(self, given, kwargs={"shared": True})
        number = max(min(len(self.specials) - self.shard.start, len(self.features)), 0)
        special = self.specials[self.shard.start :][:number].detach()  # no item, and so never scored
        return torch.cat([special, rows[number:]])


def _divided_weights(model: Any) -> list[nn.Parameter]:
    """The parameters of which other processes have other rows; tied ones once."""
    return list(nn.ModuleList([model.get_input_embeddings(), model.get_output_embeddings()]).parameters())


@dataclass(frozen=True)
class DividedCatalogue(Catalogue):
    """What `Catalogue` does, where weights and biases are the rows of one process; every process calls it together.

    Args:
        shard: Which rows this process has.
    """

    shard: Shard

    @torch.no_grad()
    def scores(
        self,
        representation: Tensor,
        *,
        weight: Tensor,
        bias: Tensor | None,
        start: int,
        stop: int,
        num_special_tokens: int,
    ) -> Tensor:
        """As `item_scores` of the whole table, on every process; the gradient is not offered."""
        first, last = max(start, self.shard.start), min(stop, self.shard.stop)
        scores = representation.new_zeros((*representation.shape[:-1], stop - start))
        if first < last:
            scores[..., first - start : last - start] = item_scores(
                representation,
                weight=weight,
                bias=bias,
                start=first - self.shard.start,
                stop=last - self.shard.start,
                num_special_tokens=self._specials(num_special_tokens),
            )
        dist.all_reduce(scores, group=self.shard.group)
        return scores

    def chunked_cross_entropy(
        self,
        representation: Tensor,
        *,
        labels: Tensor,
        num_special_tokens: int,
        num_items_in_batch: Tensor | int | None = None,
        seen: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """As `chunked_cross_entropy` over the whole table: of a row the processes exchange two sums and a maximum."""
        self._check_states(representation)
        counted, num_rows = labels != IGNORED, self.shard.stop - self.shard.start
        places = labels[counted] - self.shard.start
        norms, targets = norms_and_targets(
            self.shard.share(representation[counted]),
            labels=places.masked_fill((places < 0) | (places >= num_rows), num_rows),
            num_special_tokens=self._specials(num_special_tokens),
            seen=None if seen is None else seen[counted] - self.shard.start,
            **options,
        )
        dist.all_reduce(highest := norms.detach().clone(), dist.ReduceOp.MAX, self.shard.group)
        sums, targets = self.shard.sum(torch.stack([(norms - highest).exp(), targets]))  # (num_labelled,) each
        return divide_by_labels(highest + sums.log() - targets, labels, num_items_in_batch)

    def score_candidates(
        self,
        representation: Tensor,
        *,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        negative_ids: Tensor,
        sparse: bool = False,
    ) -> Candidates:
        """As `score_candidates`, with the rows of the candidates from wherever they lie."""
        self._check_states(representation)
        ids, places = torch.unique(torch.cat([target_ids, negative_ids]), return_inverse=True)
        return score_candidates(
            representation,
            weight=self.shard.look_up(ids, weight),  # (num_ids, embedding_size)
            bias=None if bias is None else self.take_entries(bias, ids),
            target_ids=places[: len(target_ids)],
            negative_ids=places[len(target_ids) :],
        )

    def score_rows(self, representation: Tensor, **candidates: Any) -> Candidates:
        """As `score_candidates`, of rows that every process has gathered."""
        self._check_states(representation)
        return score_candidates(representation, **candidates)

    def take_entries(self, vector: Tensor, index: Tensor, *, sparse: bool = False) -> Tensor:
        """Entries `(n,)` of a vector of which each process has a part, from wherever they lie."""
        return self.shard.look_up(index, vector[:, None])[:, 0]

    @contextmanager
    def saving(self, model: nn.Module) -> Iterator[dict[str, Any] | None]:
        """The whole weights on the first process, to which the others send their rows and for which they wait."""
        whole = {id(rows): self.shard.gather(rows) for rows in _divided_weights(model)}
        named = model.named_parameters(remove_duplicate=False)
        weights = {name: whole[id(rows)] for name, rows in named if id(rows) in whole}
        weights |= {name: self.shard.gather(rows) for name, rows in model.named_buffers() if name.endswith(FEATURES)}
        try:
            yield {"state_dict": {**model.state_dict(), **weights}} if self.shard.rank == 0 else None
        finally:
            dist.barrier(self.shard.group)

    def _specials(self, num_special_tokens: int) -> int:
        """How many of the first rows of this process are special tokens."""
        return min(max(num_special_tokens - self.shard.start, 0), self.shard.stop - self.shard.start)

    def _check_states(self, states: Tensor) -> None:
        where = "representations of one batch: seed them alike, also for dropout"
        self.shard.check_same(states.detach()[:, :1].double().sum(dim=0), where, tolerance=1e-3)
