"""What a model does with its whole item table: scores, the softmax over it, drawn candidates, and the saving of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .chunked_loss import chunked_cross_entropy
from .losses import score_candidates, take_entries


def item_scores(
    representation: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    start: int,
    stop: int,
    num_special_tokens: int,
) -> torch.Tensor:
    """Scores `(…, stop - start)` of the token ids `start … stop - 1`; minus infinity for special tokens.

    Args:
        representation: `(…, embedding_size)`.
        weight: Item table `(vocab_size, embedding_size)`.
        bias: `(vocab_size,)` or None.
        start: First token id.
        stop: The token id after the last.
        num_special_tokens: The first so many token ids are no items.
    """
    scores = F.linear(representation, weight[start:stop], None if bias is None else bias[start:stop])
    specials = max(num_special_tokens - start, 0)
    if specials and (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        # A fresh tensor rather than a write in place: autograd and export both take it.
        special = torch.arange(scores.shape[-1], device=scores.device) < specials
        scores = scores.masked_fill(special, float("-inf"))
    elif specials:  # a copy of all scores would take a good part of the product's time
        scores[..., :specials] = float("-inf")
    return scores


class Catalogue:
    """An item table of which this process has every row.

    A model calls these functions through its `catalogue`; where the rows are divided among processes, another object
    with the same functions takes its place (`hfrec.training.sharding`).
    """

    scores = staticmethod(item_scores)
    chunked_cross_entropy = staticmethod(chunked_cross_entropy)
    score_candidates = staticmethod(score_candidates)
    score_rows = staticmethod(score_candidates)  # of rows that were gathered for the step
    take_entries = staticmethod(take_entries)

    @contextmanager
    def saving(self, model: nn.Module) -> Iterator[dict[str, Any] | None]:
        """While the model is saved: further arguments for `save_pretrained`; None where another process saves."""
        yield {}
