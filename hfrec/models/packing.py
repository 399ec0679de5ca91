"""Work without padding: real tokens only, and in the last layer only what the loss reads.

Everything but attention works token by token, so it runs on the real tokens of a batch, `(num_tokens, hidden_size)`.
On the CPU attention runs on grids of histories: long ones of similar length below each other, short ones also side by
side, where they do not see each other. On a GPU flash attention takes histories of any length. Which histories are in a
batch, and the result, do not change.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .grids import Block, collect
from .rotary import rotate

SHARED_WIDTH = 64  # histories up to this length share the rows of one grid
SHORTEST_IN_GRID = 0.85  # of its longest history, where each has a row of its own: more grids, less padding


@dataclass(frozen=True)
class Group:
    """A grid of histories: their tokens, their queries where these are fewer, and who may see whom."""

    keys: Block
    queries: Block
    mask: torch.Tensor | None
    is_causal: bool

    def attend(
        self, parts: list[tuple[torch.Tensor, torch.Tensor | None]], shape: tuple[int, int], dropout: float
    ) -> torch.Tensor:
        """Attention `(asking, hidden_size)` of `[(tokens, 3 * hidden_size)]`, or of queries and of keys with values.

        Args:
            parts: The states, each with the angles of its tokens.
            shape: Number and size of the heads.
            dropout: Share of the weights that is dropped.
        """
        blocks = [self.keys] if len(parts) == 1 else [self.queries, self.keys]
        cut = zip(blocks, parts, strict=True)
        query, key, value = (states for block, part in cut for states in block.heads(part[0], shape, part[1]))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self.mask, dropout_p=dropout, is_causal=self.is_causal
        )  # (rows, num_heads, width, head_size)
        return self.queries.collect(attended.transpose(1, 2))


@dataclass(frozen=True)
class PackedAttention(ABC):
    """Attention of one layer over packed tokens; `kept` are the tokens that ask, or None for all."""

    kept: torch.Tensor | None

    def keep(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens that ask, of all `(num_tokens, size)`."""
        return tokens if self.kept is None else collect(tokens, self.kept)

    @property
    def asks_apart(self) -> bool:
        """Whether the tokens that ask need a query, and the others none."""
        return self.kept is not None

    def by_part(self, angles: torch.Tensor) -> list[torch.Tensor]:
        """The angles of all tokens, where tokens ask apart after those of the ones that do."""
        return [self.keep(angles), angles] if self.asks_apart else [angles]

    @abstractmethod
    def attend(
        self, module: Any, parts: list[torch.Tensor], dropout: float, angles: torch.Tensor | None = None
    ) -> torch.Tensor:
        """From queries, keys and values to what they attend to `(num_asking, hidden_size)`.

        Args:
            module: The [`Bert4RecAttention`] that asks.
            parts: `[(num_tokens, 3 * hidden_size)]`, or where tokens ask apart `[(num_asking, hidden_size),
                (num_tokens, 2 * hidden_size)]`.
            dropout: Share of the weights that is dropped.
            angles: Rotary positions of all tokens `(num_tokens, 2, head_size / 2)`, or None.
        """


@dataclass(frozen=True)
class FlashAttention(PackedAttention):
    """Through flash attention of transformers, which is told where each history starts, `(batch + 1,)` as int32."""

    keys: tuple[torch.Tensor, int]  # starts, and tokens of the longest
    queries: tuple[torch.Tensor, int]
    is_causal: bool

    @property
    def asks_apart(self) -> bool:
        """Not in a causal model: its kernel takes the queries for the newest tokens."""
        return self.kept is not None and not self.is_causal

    def attend(
        self, module: Any, parts: list[torch.Tensor], dropout: float, angles: torch.Tensor | None = None
    ) -> torch.Tensor:
        size = sum(part.shape[-1] for part in parts) // 3
        if not len(parts[0]):  # transformers refuses to attend for nobody
            return parts[0][:, :size]
        query, key, value = (
            states.view(1, len(part), size // module.head_size, module.head_size).transpose(1, 2)
            for part in parts
            for states in part.split(size, dim=-1)
        )  # each (1, num_heads, num_tokens, head_size)
        if angles is not None:
            turns = self.by_part(angles)
            query, key = rotate(query, turns[0]), rotate(key, turns[-1])
        queries = self.queries if self.asks_apart else self.keys
        attended, _ = ALL_ATTENTION_FUNCTIONS[module.config._attn_implementation](
            module,
            query,
            key,
            value,
            None,
            dropout=dropout,
            scaling=module.head_size**-0.5,
            cu_seq_lens_q=queries[0],
            cu_seq_lens_k=self.keys[0],
            max_length_q=queries[1],
            max_length_k=self.keys[1],
        )  # (1, num_tokens, num_heads, head_size)
        tokens = attended.reshape(-1, size)
        return tokens if self.asks_apart else self.keep(tokens)


@dataclass(frozen=True)
class GridAttention(PackedAttention):
    """Through torch's fused attention, group by group."""

    groups: list[Group]

    def attend(
        self, module: Any, parts: list[torch.Tensor], dropout: float, angles: torch.Tensor | None = None
    ) -> torch.Tensor:
        states = parts[0]
        if states.device.type == "cpu" and states.dtype == torch.bfloat16:
            # torch's attention takes eight times as long in bfloat16 on a CPU as in float32; products are faster.
            with torch.autocast("cpu", enabled=False):
                return self.attend(module, [part.float() for part in parts], dropout, angles).to(states.dtype)
        size = sum(part.shape[-1] for part in parts) // 3
        shape, tokens = (size // module.head_size, module.head_size), self._cut(parts)
        turns = [[None] * len(self.groups) for _ in parts] if angles is None else self._cut(self.by_part(angles))
        attended = [
            group.attend(
                [(part[number], turn[number]) for part, turn in zip(tokens, turns, strict=True)], shape, dropout
            )
            for number, group in enumerate(self.groups)
            if group.queries.tokens
        ]
        if len(attended) == 1:
            return attended[0]
        return torch.cat(attended) if attended else parts[0][:0, :size]

    def _cut(self, parts: list[torch.Tensor]) -> list[Any]:
        """The tokens of each group, at once for all: the gradient of a slice is as large as what it was cut from."""
        if len(self.groups) == 1:
            return [[part] for part in parts]
        blocks = [[group.queries.tokens for group in self.groups], [group.keys.tokens for group in self.groups]]
        return [part.split(sizes) for part, sizes in zip(parts, blocks[-len(parts) :], strict=True)]


@dataclass(frozen=True)
class Packing:
    """The real tokens of a batch, history by history, in the order of their grids.

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
    def of(cls, real: torch.Tensor, labelled: torch.Tensor, *, is_causal: bool, flash: bool = False) -> "Packing":
        """Pack a batch.

        Args:
            real: Whether a position holds a token `(batch, length)`.
            labelled: Whether its hidden state is asked for `(batch, length)`; only where `real` is.
            is_causal: Whether a position sees only itself and what stands before it.
            flash: Whether attention is that of flash attention.
        """
        if flash:
            return cls._of_any_length(real, labelled, is_causal)
        if len(real) == 1:
            return cls._of_single(real[0], labelled[0], is_causal)
        sizes = real.sum(dim=-1)  # (batch,)
        grids = _grids(sizes.tolist())
        histories_in_order = [history for grid in grids for row in grid for history in row]
        order = torch.tensor(histories_in_order, dtype=torch.long, device=real.device)
        source = torch.arange(real.numel(), device=real.device).view(real.shape)[order][real[order]]  # (num_tokens,)
        histories = order.repeat_interleave(sizes[order])  # (num_tokens,)
        keys = _blocks(grids, sizes)
        inner = GridAttention(None, _groups(grids, keys, keys, histories, kept=None, is_causal=is_causal))
        kept = labelled.flatten()[source].nonzero().squeeze(1)  # (num_labelled,)
        if len(kept) == len(source):
            return cls(source, inner, inner, source.argsort())
        queries = _blocks(grids, labelled.sum(dim=-1))
        last = _groups(grids, keys, queries, histories, kept=kept, is_causal=is_causal)
        return cls(source, inner, GridAttention(kept, last), source[kept].argsort())

    @classmethod
    def _of_any_length(cls, real: torch.Tensor, labelled: torch.Tensor, is_causal: bool) -> "Packing":
        """The same in the order of the batch, for flash attention."""
        source = real.flatten().nonzero().squeeze(1)  # (num_tokens,)
        kept = labelled.flatten()[source].nonzero().squeeze(1)  # (num_labelled,)
        held = real.any(dim=-1)
        keys = _starts(real[held])
        restore = torch.arange(len(kept), device=real.device)
        inner = FlashAttention(None, keys, keys, is_causal)
        if len(kept) == len(source):
            return cls(source, inner, inner, restore)
        return cls(source, inner, FlashAttention(kept, keys, _starts(labelled[held]), is_causal), restore)

    @classmethod
    def _of_single(cls, real: torch.Tensor, labelled: torch.Tensor, is_causal: bool) -> "Packing":
        """The same for one row, `real` and `labelled` `(length,)`: no row to sort, no grid to fill."""
        source = real.nonzero().squeeze(1)  # (num_tokens,)
        kept = labelled[source].nonzero().squeeze(1)  # (num_labelled,)
        keys, queries = (Block(count, 1, count, None, None) for count in (len(source), len(kept)))
        inner = GridAttention(None, [Group(keys, keys, None, is_causal)])
        restore = torch.arange(len(kept), device=real.device)
        if len(kept) == len(source):
            return cls(source, inner, inner, restore)
        mask = None
        if is_causal and not (len(kept) == 1 and int(kept) == len(source) - 1):  # the newest token sees all
            mask = torch.arange(len(source), device=real.device) <= kept[:, None]
        last = GridAttention(kept, [Group(keys, queries, mask, False)])
        return cls(source, inner, last, restore)

    def unpack(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the last layer gives `(num_labelled, size)`, in the order of the batch."""
        return collect(tokens, self.restore)


def _starts(chosen: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where each row's chosen places `(batch, length)` start, `(batch + 1,)` as int32, and the most of a row."""
    counts = chosen.sum(dim=-1)
    return F.pad(counts.cumsum(0), (1, 0)).int(), int(counts.max())


Grid = list[list[int]]  # the histories of each row


def _grids(sizes: list[int]) -> list[Grid]:
    """Histories by their sizes in grids, the longest first; those of no token are left out."""
    order = sorted((history for history, size in enumerate(sizes) if size), key=lambda history: -sizes[history])
    grids = []
    while order and sizes[order[0]] > SHARED_WIDTH:
        count = sum(sizes[history] >= SHORTEST_IN_GRID * sizes[order[0]] for history in order)
        grids.append([[history] for history in order[:count]])
        order = order[count:]
    return [*grids, _share_rows(order, sizes)] if order else grids


def _share_rows(order: list[int], sizes: list[int]) -> Grid:
    """Each history, the longest first, into the row where it leaves the least room (best fit decreasing)."""
    grid: Grid = []
    rooms: list[tuple[int, int]] = []  # sorted: what is left in a row, and the row
    for history in order:
        place = bisect_left(rooms, (sizes[history], -1))
        if place == len(rooms):
            rooms.append((sizes[order[0]], len(grid)))
            grid.append([])
        room, row = rooms.pop(place)
        grid[row].append(history)
        insort(rooms, (room - sizes[history], row))
    return grid


def _blocks(grids: list[Grid], counts: torch.Tensor) -> list[Block]:
    """The blocks of grids whose histories have `counts` tokens `(batch,)`."""
    of_history = counts.tolist()
    return [Block.of([sum(of_history[history] for history in row) for row in grid], counts.device) for grid in grids]


def _groups(
    grids: list[Grid],
    keys: list[Block],
    queries: list[Block],
    histories: torch.Tensor,
    *,
    kept: torch.Tensor | None,
    is_causal: bool,
) -> list[Group]:
    """The groups of a layer.

    Args:
        grids: Histories in the order of the packed tokens.
        keys: Their tokens.
        queries: The tokens that ask.
        histories: History of each packed token `(num_tokens,)`.
        kept: Which tokens ask `(num_asking,)`, or None for all.
        is_causal: As in `Packing.of`.
    """
    groups, device = [], histories.device
    tokens = torch.arange(len(histories), device=device)
    of_keys = tokens.split([block.tokens for block in keys])
    of_queries = (tokens if kept is None else kept).split([block.tokens for block in queries])
    for number, grid in enumerate(grids):
        ends, shared = (keys[number], queries[number]), len(grid) < sum(map(len, grid))
        if shared or (is_causal and kept is not None):
            mask = _mask(*ends, of_keys[number], of_queries[number], histories=histories, is_causal=is_causal)
            groups.append(Group(*ends, mask, False))
        else:  # the filling stands on the right, where a causal position does not look
            groups.append(Group(*ends, None if is_causal else _filled(keys[number], device), is_causal))
    return groups


def _filled(block: Block, device: torch.device) -> torch.Tensor | None:
    """Which places of a grid hold a token `(rows, 1, 1, width)`, or None for all."""
    if block.places is None:
        return None
    filled = torch.zeros(block.rows * block.width, dtype=torch.bool, device=device)
    filled[block.places] = True
    return filled.view(block.rows, 1, 1, block.width)


def _mask(
    keys: Block,
    queries: Block,
    key_tokens: torch.Tensor,
    asking_tokens: torch.Tensor,
    *,
    histories: torch.Tensor,
    is_causal: bool,
) -> torch.Tensor:
    """Who sees whom in a grid `(rows, 1, queries, keys)`: tokens of one history, in a causal model the older ones."""

    def grid(block: Block, tokens: torch.Tensor) -> torch.Tensor:
        return block.spread(tokens + 1)  # (rows, width), 0 at the filling

    of_keys, of_queries = grid(keys, histories[key_tokens])[:, None], grid(queries, histories[asking_tokens])[..., None]
    mask = of_keys == of_queries  # (rows, queries, keys)
    if is_causal:
        mask &= grid(keys, key_tokens)[:, None] <= grid(queries, asking_tokens)[..., None]
    return (mask | (of_queries == 0))[:, None]  # who sees nobody would make numbers that are none
