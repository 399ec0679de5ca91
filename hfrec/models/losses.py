"""Training losses over labelled positions only."""

import torch
from torch.nn import functional as F


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
    if num_items_in_batch is None:
        return total / (labels != -100).sum().clamp(min=1)
    return total / num_items_in_batch
