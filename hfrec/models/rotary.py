"""Rotary positions: queries and keys are turned by angles that grow with the position (Su et al., 2021)."""

import torch

CACHED_ROWS = 1024  # tokens turned at a time, which stay in the cache


def rotary_angles(position_ids: torch.Tensor, head_size: int, base: float) -> torch.Tensor:
    """Cosines and sines of rotary positions `(…)`, as `(…, 2, head_size / 2)`."""
    steps = torch.arange(0, head_size, 2, device=position_ids.device, dtype=torch.float)
    # Newer items have smaller positions; the angle depends on differences only, so the sign is a convention.
    angles = position_ids[..., None].float() * base ** (-steps / head_size)
    return torch.stack((angles.cos(), angles.sin()), dim=-2)


def rotate(states: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys `(batch, heads, length, head_size)` by angles `(batch, 1, length, 2, head_size / 2)`."""
    left, right = states.chunk(2, dim=-1)
    cos, sin = angles.to(states.dtype).unbind(-2)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def rotate_in_place(states: torch.Tensor, angles: torch.Tensor, direction: int = 1) -> None:
    """`rotate` of `(num_tokens, heads * head_size)` by the angles `(num_tokens, 2, head_size / 2)`, written over.

    The same rule a second time, since `rotate` takes 1.3 to 2 times as long; graphs need it without writes in place.

    Args:
        states: Queries, keys or both.
        angles: Of the tokens.
        direction: -1 turns back.
    """
    parts = (values.split(CACHED_ROWS) for values in (states, angles.to(states.dtype)))
    for part, part_angles in zip(*parts, strict=True):
        left, right = part.unflatten(-1, (-1, 2, angles.shape[-1])).unbind(2)  # each (num_tokens, heads, half)
        cos, sin = part_angles[:, None].unbind(-2)
        before = left.clone()
        left.mul_(cos).addcmul_(right, sin, value=-direction)
        right.mul_(cos).addcmul_(before, sin, value=direction)
