"""Packed tokens in grids of histories, whose rows are filled up on the right: how attention on the CPU reads them."""

from dataclasses import dataclass
from typing import Any

import torch

from .rotary import rotate_in_place


@dataclass(frozen=True)
class Block:
    """Successive tokens of a packed batch as a grid.

    Args:
        tokens: Number of tokens.
        rows: Rows of the grid.
        width: Places in a row.
        places: Place of each token `(tokens,)`; None where the grid is full.
        fillers: Token at each place `(rows * width,)`, any one where the row is filled up; None where the grid is full.
    """

    tokens: int
    rows: int
    width: int
    places: torch.Tensor | None
    fillers: torch.Tensor | None

    @classmethod
    def of(cls, counts: list[int], device: torch.device) -> "Block":
        """So many tokens in each row."""
        width, tokens = max(counts), sum(counts)
        if tokens == len(counts) * width:
            return cls(tokens, len(counts), width, None, None)
        filled = torch.arange(width, device=device) < torch.tensor(counts, device=device)[:, None]  # (rows, width)
        places = filled.flatten().nonzero().squeeze(1)
        fillers = (filled.flatten().cumsum(0) - 1).clamp(min=0)
        return cls(tokens, len(counts), width, places, fillers)

    def spread(self, numbers: torch.Tensor) -> torch.Tensor:
        """A number of each token `(tokens,)` as the grid `(rows, width)`, 0 where it is filled up."""
        if self.places is None:
            return numbers.view(self.rows, self.width)
        grid = numbers.new_zeros(self.rows * self.width).index_copy_(0, self.places, numbers)
        return grid.view(self.rows, self.width)

    def heads(
        self, tokens: torch.Tensor, shape: tuple[int, int], angles: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, each `(rows, num_heads, width, head_size)`.

        Where a row is filled up stand those of some token: nobody sees them, and what they see is not read.

        Args:
            tokens: Queries, keys and values side by side `(tokens, 3 * hidden_size)`, keys and values, or queries.
            shape: Number and size of the heads.
            angles: Rotary positions `(tokens, 2, head_size / 2)`, by which queries and keys are turned, or None.
        """
        if not torch.is_grad_enabled():
            return _heads(tokens, self, shape, angles)
        heads: tuple[torch.Tensor, ...] = _Heads.apply(tokens, self, shape, angles)
        return heads

    def collect(self, grid: torch.Tensor) -> torch.Tensor:
        """The grid `(rows, width, …)` back to the block's tokens `(tokens, size)`."""
        flat = grid.reshape(self.rows * self.width, -1)
        return flat if self.places is None else collect(flat, self.places)


def _heads(
    tokens: torch.Tensor, block: Block, shape: tuple[int, int], angles: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """`Block.heads` in one copy."""
    grid = tokens
    if block.fillers is not None:
        grid = tokens.index_select(0, block.fillers)  # (rows * width, …)
    elif angles is not None:
        grid = tokens.clone()
    if angles is not None:
        turns = angles if block.fillers is None else angles.index_select(0, block.fillers)
        rotate_in_place(grid[:, : _turned(grid.shape[1], shape)], turns)
    return grid.view(block.rows, block.width, -1, *shape).permute(2, 0, 3, 1, 4).unbind()


class _Heads(torch.autograd.Function):
    """`Block.heads`, and its gradient in one copy: as operations of torch there are four copies each way."""

    @staticmethod
    def forward(
        ctx: Any, tokens: torch.Tensor, block: Block, shape: tuple[int, int], angles: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        ctx.block, ctx.angles = block, angles
        return _heads(tokens, block, shape, angles)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        block, (_, heads, _, head_size) = ctx.block, gradients[0].shape
        size = heads * head_size
        joined = gradients[0].new_empty(block.tokens, len(gradients) * size)
        for part, gradient in zip(joined.split(size, dim=1), gradients, strict=True):
            flat = gradient.transpose(1, 2).reshape(-1, size)  # (rows * width, hidden_size)
            if block.places is None:
                part.copy_(flat)
            else:
                torch.index_select(flat, 0, block.places, out=part)
        if ctx.angles is not None:
            rotate_in_place(joined[:, : _turned(joined.shape[1], (heads, head_size))], ctx.angles, direction=-1)
        return joined, None, None, None


def _turned(columns: int, shape: tuple[int, int]) -> int:
    """Columns of queries and keys: all but the values, which stand last, or the queries where they stand alone."""
    size = shape[0] * shape[1]
    return max(size, columns - size)


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


def collect(grid: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows of the grid `(size, …)` at the places `(tokens,)`, all different."""
    if torch.is_grad_enabled():
        collected: torch.Tensor = _Collect.apply(grid, places)
        return collected
    return grid.index_select(0, places)
