"""Rotary positions: queries and keys are turned by angles that grow with the position (Su et al., 2021)."""

import torch

CACHED_ROWS = 1024  # tokens turned at a time, which stay in the cache


def rotary_angles(position_ids: torch.Tensor, head_size: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rotary positions `(…)`, each `(…, head_size / 2)`."""
    steps = torch.arange(0, head_size, 2, device=position_ids.device, dtype=torch.float)
    # Newer items have smaller positions; the angle depends on differences only, so the sign is a convention.
    angles = position_ids[..., None].float() * base ** (-steps / head_size)
    return angles.cos(), angles.sin()


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys `(batch, heads, length, head_size)` by their angles `(batch, 1, length, head_size / 2)`."""
    left, right = states.chunk(2, dim=-1)
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def rotate_in_place(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """`rotate` of `(num_tokens, heads * head_size)` by the angles `(num_tokens, head_size / 2)`, written over."""
    cos, sin, half = cos.to(states.dtype), sin.to(states.dtype), cos.shape[-1]
    parts = (values.split(CACHED_ROWS) for values in (states, cos[:, None], sin[:, None]))
    for part, part_cos, part_sin in zip(*parts, strict=True):
        left, right = part.unflatten(-1, (-1, 2, half)).unbind(2)  # each (num_tokens, heads, half)
        before = left.clone()
        left.mul_(part_cos).addcmul_(right, part_sin, value=-1)
        right.mul_(part_cos).addcmul_(before, part_sin)
