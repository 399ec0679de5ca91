"""Packed tokens in grids: one copy each way must be what torch's operations would do."""

from __future__ import annotations

import pytest
import torch

from hfrec.models.grids import Block
from hfrec.models.rotary import rotary_angles, rotate

SHAPE = (2, 4)  # heads and their size
SIZE = 8


def written_out(tokens: torch.Tensor, block: Block, angles: torch.Tensor | None) -> list[torch.Tensor]:
    """Queries, keys and values of each head, `(rows, heads, width, head_size)`, zeros where the grid is filled up."""
    grid = torch.zeros(block.rows * block.width, tokens.shape[1], dtype=tokens.dtype)
    places = torch.arange(len(grid)) if block.places is None else block.places
    parts = tokens.split(SIZE, dim=1)
    turned = max(1, len(parts) - 1)
    if angles is not None:
        heads = [part.view(-1, *SHAPE).transpose(0, 1) for part in parts]
        heads = [rotate(part, angles) if number < turned else part for number, part in enumerate(heads)]
        tokens = torch.cat([part.transpose(0, 1).flatten(1) for part in heads], dim=1)
    grid = grid.index_copy(0, places, tokens).view(block.rows, block.width, -1, *SHAPE)
    return list(grid.permute(2, 0, 3, 1, 4).unbind())


@pytest.mark.parametrize("counts", [[3, 1, 2], [2, 2], [4]])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("rotary", [False, True])
def test_heads_and_their_gradient_are_those_written_out(counts: list[int], parts: int, rotary: bool) -> None:
    """A turn of the values, or a gradient turned the wrong way, would train another model than the padded way."""
    torch.manual_seed(0)
    block = Block.of(counts, torch.device("cpu"))
    tokens = torch.randn(block.tokens, parts * SIZE, dtype=torch.float64, requires_grad=True)
    angles = rotary_angles(torch.arange(block.tokens) * 3, SHAPE[1], 100.0).double() if rotary else None
    found, expected = block.heads(tokens, SHAPE, angles), written_out(tokens, block, angles)
    assert len(found) == len(expected) == parts
    upstream = [torch.randn_like(part) for part in expected]
    for one, other, gradient in zip(found, expected, upstream, strict=True):
        kept = (other != 0).any(-1, keepdim=True)
        torch.testing.assert_close(one * kept, other)
        gradient.mul_(kept)
    for gradients in (upstream, [part.mT.contiguous().mT for part in upstream]):  # in another order of memory
        ours, theirs = (
            torch.autograd.grad(heads, tokens, gradients, retain_graph=True)[0] for heads in (found, expected)
        )
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("counts", [[3, 1], [2, 2]])
def test_packed_states_are_not_written_over(counts: list[int]) -> None:
    """They may be somebody's: a hook reads them, and in a full grid the heads could share their memory."""
    block = Block.of(counts, torch.device("cpu"))
    tokens = torch.randn(block.tokens, 3 * SIZE)
    before = tokens.clone()
    block.heads(tokens, SHAPE, rotary_angles(torch.arange(block.tokens), SHAPE[1], 100.0))
    assert torch.equal(tokens, before)


def test_numbers_spread_over_a_grid_are_zero_where_it_is_filled_up() -> None:
    """Masks are made of them: a filling that looked like a token would be seen."""
    block = Block.of([3, 1], torch.device("cpu"))
    assert block.spread(torch.tensor([5, 6, 7, 8])).tolist() == [[5, 6, 7], [8, 0, 0]]
    assert Block.of([2], torch.device("cpu")).spread(torch.tensor([5, 6])).tolist() == [[5, 6]]


def test_fillings_hold_tokens_so_that_no_number_is_none() -> None:
    """A filling of what memory held may be NaN, which a weight of zero does not take away."""
    block = Block.of([3, 1], torch.device("cpu"))
    (heads,) = block.heads(torch.arange(4.0)[:, None].expand(-1, SIZE), SHAPE, None)
    assert heads[1, 0, :, 0].tolist() == [3.0, 3.0, 3.0]
