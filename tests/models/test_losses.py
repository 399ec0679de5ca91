"""The loss is cross-entropy over the catalogue, and accumulates as one big batch."""

import torch
from torch.nn import functional as F

from hfrec.models.losses import item_cross_entropy


def _case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator)
    logits[:, :3] = float("-inf")
    return logits.requires_grad_(), torch.tensor([3, 5, 10, 4, 4, 9])


def test_equals_cross_entropy() -> None:
    """A loss with a wrong scale trains, only with another learning rate than the one stated."""
    logits, labels = _case()
    torch.testing.assert_close(item_cross_entropy(logits, labels), F.cross_entropy(logits, labels))


def test_unequal_parts_divided_by_the_step_total_are_one_big_batch() -> None:
    """The mean of means gives the labels of a short batch too much weight."""
    logits, labels = _case()
    parts = [item_cross_entropy(logits[rows], labels[rows], torch.tensor(6)) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), F.cross_entropy(logits, labels))


def test_half_precision_scores_are_summed_in_float() -> None:
    """A cross-entropy in bfloat16 loses the small probabilities of a large catalogue."""
    logits, labels = _case()
    low = logits.detach().bfloat16()
    assert item_cross_entropy(low, labels).dtype == torch.float32
    torch.testing.assert_close(item_cross_entropy(low, labels), F.cross_entropy(low.float(), labels))


def test_nothing_labelled_gives_zero_with_zero_gradient() -> None:
    """0 / 0 would turn the weights of a whole run into NaN on one empty batch."""
    logits, labels = _case()
    loss = item_cross_entropy(logits[:0], labels[:0])
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()
