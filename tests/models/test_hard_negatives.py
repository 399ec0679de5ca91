"""Hard negatives are those of the highest scores, and with what is drawn beside them the loss is the exact one's."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hfrec.models import Bert4RecConfig, Bert4RecForCausalLM
from hfrec.models.content import StepItems
from hfrec.models.hard_negatives import GROUP_SIZE, alike, find_hard_negatives, with_hard_negatives
from hfrec.models.losses import Labelled, NegativeSampler, sampled_softmax_losses, score_candidates

NUM_ITEMS, FIRST = 200, 3
BLOCK = (FIRST, FIRST + NUM_ITEMS)


def _case(num_labelled: int = 230) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Representations, weights, biases and targets, every item among them: a share of 0 would be taken for more."""
    generator = torch.Generator().manual_seed(0)
    shapes = (num_labelled, 6), (FIRST + NUM_ITEMS, 6), (FIRST + NUM_ITEMS,)
    states, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    targets = torch.arange(*BLOCK)
    more = torch.randint(*BLOCK, (num_labelled - NUM_ITEMS,), generator=generator)
    return states, weight, bias, torch.cat([targets, more])


@pytest.mark.parametrize("num_labelled", [1, 5, 31, 32, 70, 129])
def test_every_position_is_in_one_group_of_a_bounded_size(num_labelled: int) -> None:
    """A position in no group is never trained; a group of all positions has the hard negatives of none."""
    groups = alike(torch.randn(num_labelled, 4), GROUP_SIZE)
    assert groups.flatten().unique().tolist() == list(range(num_labelled))
    assert groups.numel() < num_labelled + len(groups)  # only to fill the last places
    assert min(num_labelled, GROUP_SIZE) <= groups.shape[1] <= max(2 * GROUP_SIZE, num_labelled // len(groups) + 1)


def test_positions_that_are_alike_share_a_group() -> None:
    """Groups at random have the mean of the batch, and so the hard negatives of nobody."""
    torch.manual_seed(0)
    far = torch.randn(4, 8) * 100
    kinds = torch.arange(64) % 4
    groups = kinds[alike(far[kinds] + torch.randn(64, 8), GROUP_SIZE)]
    assert groups.shape == (4, 16)
    assert bool((groups == groups[:, :1]).all())


def test_they_are_the_items_of_the_highest_mean_score_of_their_group() -> None:
    """By hand, biases included: items that score low are what drawing finds."""
    states, weight, bias, _ = _case()
    found = find_hard_negatives(states, weight=weight, bias=bias, block=BLOCK, count=9)
    for ids, members in zip(found.ids, found.members, strict=True):
        mean = (states[members] @ weight.T + bias).mean(dim=0)[FIRST:]
        assert ids.tolist() == sorted((mean.topk(9).indices + FIRST).tolist())
    own = found.ids[found.groups]
    expected = (states @ weight.T + bias).gather(1, own)
    torch.testing.assert_close(found.scores(states, weight=weight, bias=bias), expected)


def _losses(sampler: NegativeSampler, seen: torch.Tensor | None, counts: torch.Tensor, count: int) -> torch.Tensor:
    states, weight, bias, targets = _case()
    labelled = Labelled(states, targets, None, StepItems(weight), seen=seen)
    drawn = sampler.draw(targets)
    part: dict[str, Any] = {"weight": weight, "bias": bias}
    found = score_candidates(states, **part, target_ids=targets, negative_ids=drawn).without(seen)
    found = with_hard_negatives(found, labelled, bias=bias, block=BLOCK, count=count)
    return sampled_softmax_losses(found, sampler, counts)


@pytest.mark.parametrize("kind", ["uniform", "log_uniform", "mixed"])
@pytest.mark.parametrize("unseen", [False, True])
def test_the_sum_over_the_catalogue_is_estimated_without_bias(kind: Any, unseen: bool) -> None:
    """A hard negative that is drawn too would count twice, one that is seen would compete; the mean shows either."""
    torch.manual_seed(0)
    states, weight, bias, targets = _case()
    seen = torch.randint(*BLOCK, (len(targets), 5)) if unseen else None
    counts = torch.bincount(targets, minlength=len(weight)).float()  # the true frequencies of in-batch draws
    sampler = NegativeSampler(kind, NUM_ITEMS, FIRST, 40)
    found = torch.stack([_losses(sampler, seen, counts, 30).exp() for _ in range(800)]).mean(dim=0)
    scores = (states @ weight.T + bias)[:, FIRST:]
    rivals = torch.ones_like(scores, dtype=torch.bool)
    if seen is not None:
        rivals.scatter_(1, seen - FIRST, False)
    rivals.scatter_(1, targets[:, None] - FIRST, True)
    exact = F.cross_entropy(scores.masked_fill(~rivals, -torch.inf), targets - FIRST, reduction="none").exp()
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.0)


def test_a_model_learns_with_them_and_reads_its_config_again(tmp_path: Any) -> None:
    """In training through `forward`; the checkpoint says how it was trained."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 300, "hidden_size": 16, "max_position_embeddings": 12}
    drawn = {"loss": "sampled_softmax", "num_negatives": 20, "num_hard_negatives": 30, "loss_candidates": "unseen"}
    model = Bert4RecForCausalLM(Bert4RecConfig(**shape, **drawn, hidden_dropout_prob=0.0)).train()
    ids = (torch.arange(12) + torch.randint(3, 280, (16, 1))) % 297 + 3  # each item has one successor
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = model.eval()(input_ids=ids, labels=labels).logits
    assert (scores.argmax(dim=-1) == labels[labels != -100]).float().mean() > 0.9
    model.save_pretrained(tmp_path)
    assert Bert4RecForCausalLM.from_pretrained(tmp_path).config.num_hard_negatives == 30
