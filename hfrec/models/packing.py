"""Training without padding on the CPU: real tokens only, and in the last layer only what the loss reads.

Everything but attention works token by token, so it runs on the real tokens of a batch, `(num_tokens, hidden_size)`.
Attention runs on groups of rows of similar length. Which rows are in a batch, and the result, do not change.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# A group ends where a row is shorter than this share of its longest one: more groups, less padding.
SHORTEST_IN_GROUP = 0.85
BITS = 16


class Dropout(nn.Dropout):
    """Dropout whose random bits come 64 at a time on the CPU, a fourth of the time of torch's; `p` is exact to 2⁻¹⁷."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:  # a call of the parent takes longer than a small layer
            return input
        if self.p == 0.0 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        dropped = round(self.p * 2**BITS)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)  # uniform in -2¹⁵ … 2¹⁵ - 1
        kept = (bits >= dropped - 2 ** (BITS - 1)).to(input.dtype)
        return input * kept.mul_(2**BITS / (2**BITS - dropped))


class _Spread(torch.autograd.Function):
    """Rows `(tokens, …)` to the places `(tokens,)` of a grid `(size, …)` that is zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
        ctx.save_for_backward(places)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, places, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None


class _Collect(torch.autograd.Function):
    """Rows at the places `(tokens,)`, all different, of a grid `(size, …)`; its gradient needs no accumulation."""

    @staticmethod
    def forward(ctx: Any, grid: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.shape = grid.shape
        return grid.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.shape).index_copy_(0, places, gradients[0]), None


def _collect(grid: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled():
        collected: torch.Tensor = _Collect.apply(grid, places)
        return collected
    return grid.index_select(0, places)


@dataclass(frozen=True)
class Block:
    """Tokens `start … stop - 1` of a packed batch as rows of a grid, filled up on the right."""

    start: int
    stop: int
    rows: int
    width: int
    places: torch.Tensor | None  # (tokens,) in the grid; None where the grid is full

    def spread(self, tokens: torch.Tensor) -> torch.Tensor:
        """Packed `(all tokens, size)` to the grid `(rows, width, size)` of this block."""
        part = tokens[self.start : self.stop]
        if self.places is not None:
            part = _Spread.apply(part, self.places, self.rows * self.width)
        return part.view(self.rows, self.width, -1)

    def collect(self, grid: torch.Tensor) -> torch.Tensor:
        """The grid `(rows, width, …)` back to the block's tokens `(stop - start, size)`."""
        flat = grid.reshape(self.rows * self.width, -1)
        return flat if self.places is None else _collect(flat, self.places)


@dataclass(frozen=True)
class Group:
    """Rows of similar length: their tokens, their queries where these are fewer, and who may see whom."""

    keys: Block
    queries: Block
    mask: torch.Tensor | None
    is_causal: bool


@dataclass(frozen=True)
class PackedAttention:
    """Who attends to whom in one layer, by groups of rows; `kept` are the tokens that ask, or None for all."""

    groups: list[Group]
    kept: torch.Tensor | None

    def keep(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens that ask, of all `(num_tokens, size)`."""
        return tokens if self.kept is None else _collect(tokens, self.kept)

    def attend(self, states: torch.Tensor, num_heads: int, dropout: float) -> torch.Tensor:
        """From queries, keys and values `(num_tokens, 3, hidden_size)` to `(num_asking, hidden_size)`."""
        query, key_value = self.keep(states[:, 0]), states[:, 1:].flatten(1)
        attended = [_attend(query, key_value, group, num_heads, dropout) for group in self.groups]
        return torch.cat(attended) if attended else query


@dataclass(frozen=True)
class Packing:
    """The real tokens of a batch, longest rows first.

    Args:
        source: Place of each token in the flattened batch `(num_tokens,)`.
        inner: Attention of all layers but the last.
        last: Attention of the last layer, in which only labelled tokens ask.
        restore: Brings the labelled tokens into the order of the batch `(num_labelled,)`.
    """

    source: torch.Tensor
    inner: PackedAttention
    last: PackedAttention
    restore: torch.Tensor

    @classmethod
    def of(cls, real: torch.Tensor, labelled: torch.Tensor, is_causal: bool) -> "Packing":
        """Pack a batch.

        Args:
            real: Whether a position holds a token `(batch, length)`.
            labelled: Whether its hidden state is asked for `(batch, length)`; only where `real` is.
            is_causal: Whether a position sees only itself and what stands before it.
        """
        if len(real) == 1:
            return cls._of_single(real[0], labelled[0], is_causal)
        sizes, order = real.sum(dim=-1).sort(descending=True, stable=True)  # (batch,)
        places = torch.arange(real.numel(), device=real.device).view(real.shape)[order]
        source = places[real[order]]  # (num_tokens,)
        asked = labelled.flatten()[source]
        bounds = _bounds(sizes.tolist())
        inner = PackedAttention([_whole_group(sizes, rows, is_causal) for rows in bounds], None)
        if bool(asked.all()):
            return cls(source, inner, inner, source.argsort())
        kept = asked.nonzero().squeeze(1)  # (num_labelled,)
        columns = (torch.arange(len(source), device=real.device) - _starts(sizes).repeat_interleave(sizes))[kept]
        counts = labelled[order].sum(dim=-1)  # (batch,)
        groups = [_asking_group(sizes, counts, columns, rows, is_causal) for rows in bounds if counts[rows].any()]
        return cls(source, inner, PackedAttention(groups, kept), source[kept].argsort())

    @classmethod
    def _of_single(cls, real: torch.Tensor, labelled: torch.Tensor, is_causal: bool) -> "Packing":
        """The same for one row, `real` and `labelled` `(length,)`: no row to sort, no grid to fill."""
        source = real.nonzero().squeeze(1)  # (num_tokens,)
        kept = labelled[source].nonzero().squeeze(1)  # (num_labelled,)
        keys, queries = (Block(0, count, 1, count, None) for count in (len(source), len(kept)))
        inner = PackedAttention([Group(keys, keys, None, is_causal)] if len(source) else [], None)
        restore = torch.arange(len(kept), device=real.device)
        if len(kept) == len(source):
            return cls(source, inner, inner, restore)
        mask = None
        if is_causal and not (len(kept) == 1 and int(kept) == len(source) - 1):  # the newest token sees all
            mask = torch.arange(len(source), device=real.device) <= kept[:, None]
        last = PackedAttention([Group(keys, queries, mask, False)] if len(kept) else [], kept)
        return cls(source, inner, last, restore)

    def unpack(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the last layer gives `(num_labelled, size)`, in the order of the batch."""
        return _collect(tokens, self.restore)


def _attend(query: torch.Tensor, key_value: torch.Tensor, group: Group, num_heads: int, dropout: float) -> torch.Tensor:
    rows, size = group.keys.rows, query.shape[-1]
    queries = group.queries.spread(query).view(rows, -1, num_heads, size // num_heads).transpose(1, 2)
    grid = group.keys.spread(key_value).view(rows, -1, 2, num_heads, size // num_heads)
    keys, values = grid.permute(2, 0, 3, 1, 4)  # each (rows, heads, width, head_size)
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=group.mask, dropout_p=dropout, is_causal=group.is_causal
    )
    return group.queries.collect(attended.transpose(1, 2))


def _bounds(sizes: list[int]) -> list[slice]:
    """Groups of rows, from the longest on, in which no row is much shorter than the first; rows of no token are out."""
    bounds, first = [], 0
    for row, size in enumerate([*sizes, 0]):
        if row == len(sizes) or size < SHORTEST_IN_GROUP * sizes[first]:
            bounds.append(slice(first, row))
            first = row
    return [rows for rows in bounds if rows.start < rows.stop and sizes[rows.start] > 0]


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return counts.cumsum(0) - counts


def _block(counts: torch.Tensor, rows: slice) -> Block:
    part = counts[rows]
    width, start = int(part.max()), int(_starts(counts)[rows.start])
    filled = torch.arange(width, device=counts.device) < part[:, None]  # (rows, width)
    places = None if bool(filled.all()) else filled.flatten().nonzero().squeeze(1)
    return Block(start, start + int(part.sum()), len(part), width, places)


def _filled(block: Block, device: torch.device) -> torch.Tensor | None:
    """Which places of a grid hold a token `(rows, 1, 1, width)`, or None for all."""
    if block.places is None:
        return None
    filled = torch.zeros(block.rows * block.width, dtype=torch.bool, device=device)
    filled[block.places] = True
    return filled.view(block.rows, 1, 1, block.width)


def _whole_group(sizes: torch.Tensor, rows: slice, is_causal: bool) -> Group:
    block = _block(sizes, rows)
    # The filling stands on the right, where a causal position does not look.
    return Group(block, block, None if is_causal else _filled(block, sizes.device), is_causal)


def _asking_group(
    sizes: torch.Tensor, counts: torch.Tensor, columns: torch.Tensor, rows: slice, is_causal: bool
) -> Group:
    keys, queries = _block(sizes, rows), _block(counts, rows)
    if not is_causal:
        return Group(keys, queries, _filled(keys, sizes.device), False)
    newest = queries.spread(columns[:, None])  # (rows, queries, 1): place of each query in its row
    mask = torch.arange(keys.width, device=sizes.device) <= newest
    return Group(keys, queries, mask[:, None], False)
