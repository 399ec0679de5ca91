"""Hard negatives: the items that score highest for positions that are alike, which compete beside those drawn.

A softmax over the catalogue is a few large terms and many small ones. The former are taken as they are, the latter are
estimated from draws (Mussmann, Levy and Ermon, UAI 2017). Positions that are alike share their hard negatives, so that
the catalogue is searched once for all of them.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from .losses import Candidates, Labelled, found_among, take_entries

GROUP_SIZE = 16  # positions that share their hard negatives, at least; up to twice as many


@dataclass(frozen=True)
class HardNegatives:
    """The hard negatives of each group of positions.

    Args:
        ids: Token ids `(num_groups, count)`, ascending.
        members: Positions of each group `(num_groups, size)`; some stand twice, so that groups are of one size.
        places: Where each position stands among the members, counted through all groups `(num_labelled,)`.
    """

    ids: torch.Tensor
    members: torch.Tensor
    places: torch.Tensor

    @property
    def groups(self) -> torch.Tensor:
        """The group of each position `(num_labelled,)`."""
        return self.places // self.members.shape[1]

    def scores(
        self, states: torch.Tensor, *, weight: torch.Tensor, bias: torch.Tensor | None, sparse: bool = False
    ) -> torch.Tensor:
        """Scores of each position's hard negatives `(num_labelled, count)`, in float32.

        Args:
            states: Representations `(num_labelled, embedding_size)`.
            weight: Item table `(vocab_size, embedding_size)`.
            bias: `(vocab_size,)` or None.
            sparse: Whether the gradients of weight and bias hold the rows of these items only.
        """
        rows = F.embedding(self.ids, weight, sparse=sparse)  # (num_groups, count, embedding_size)
        scores = torch.bmm(states[self.members], rows.transpose(1, 2)).float()  # (num_groups, size, count)
        if bias is not None:
            scores = scores + take_entries(bias, self.ids.flatten(), sparse=sparse).view(len(self.ids), 1, -1)
        return scores.flatten(0, 1)[self.places]

    def drawn_too(self, drawn: torch.Tensor) -> torch.Tensor:
        """Which of the tokens `(n,)` are hard negatives of each position `(num_labelled, n)`."""
        places = torch.searchsorted(self.ids, drawn.repeat(len(self.ids), 1)).clamp(max=self.ids.shape[1] - 1)
        return (self.ids.gather(1, places) == drawn)[self.groups]

    def among(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which hard negatives are among a position's `tokens` `(num_labelled, n)`: `(num_labelled, count)`."""
        return found_among(self.ids[self.groups], tokens)


def with_hard_negatives(
    candidates: Candidates,
    labelled: Labelled,
    *,
    bias: torch.Tensor | None,
    block: tuple[int, int],
    count: int,
    sparse: bool = False,
) -> Candidates:
    """The candidates with the hard negatives of each position; those drawn then stand for the other items.

    Args:
        candidates: Scores of the targets and of what was drawn.
        labelled: The positions, every one with a target, and the items that they are scored against.
        bias: `(vocab_size,)` or None.
        block: First token id of an item and the one after the last.
        count: Hard negatives of a position; 0 leaves the candidates as they are.
        sparse: Whether the gradients of weight and bias hold the rows of these items only.
    """
    if not count or not len(labelled.items):
        return candidates
    states, targets, weight = labelled.states, labelled.items[:, None], labelled.step.weight
    found = find_hard_negatives(states, weight=weight, bias=bias, block=block, count=count)
    left_out = found.among(targets if labelled.seen is None else torch.cat([targets, labelled.seen], dim=1))
    hard = found.scores(states, weight=weight, bias=bias, sparse=sparse).masked_fill(left_out, -math.inf)
    others = candidates.negatives.masked_fill(found.drawn_too(candidates.negative_ids), -math.inf)
    return replace(candidates, negatives=others, hard=hard)


@torch.no_grad()
def find_hard_negatives(
    states: torch.Tensor, *, weight: torch.Tensor, bias: torch.Tensor | None, block: tuple[int, int], count: int
) -> HardNegatives:
    """The items that score highest for the mean of each group of positions.

    Args:
        states: Representations `(num_labelled, embedding_size)`, at least one.
        weight: Item table `(vocab_size, embedding_size)`.
        bias: `(vocab_size,)` or None.
        block: First token id of an item and the one after the last.
        count: Items of each group; all of them where there are no more.

    Example:
        >>> found = find_hard_negatives(torch.ones(1, 2), weight=torch.eye(5)[:, 3:], bias=None, block=(2, 5), count=2)
        >>> found.ids.tolist()
        [[3, 4]]
    """
    first, stop = block
    members = alike(states, GROUP_SIZE)  # (num_groups, size)
    scores = F.linear(states[members].mean(dim=1), weight[first:stop], None if bias is None else bias[first:stop])
    best = scores.topk(min(count, stop - first), dim=1).indices  # (num_groups, count)
    places = members.new_empty(len(states))
    places[members.flatten()] = torch.arange(members.numel(), device=members.device)
    return HardNegatives(first + best.sort(dim=1).values, members, places)


def alike(states: torch.Tensor, size: int) -> torch.Tensor:
    """Positions in groups that are alike `(num_groups, size or more)`, each in one; some twice, to fill the last place.

    All are halved along a direction at random, then the halves, and so on (Dasgupta and Freund, STOC 2008).

    Args:
        states: Representations `(num_labelled, embedding_size)`, at least one.
        size: Fewest positions of a group, where there are as many.
    """
    num_groups = 2 ** int(math.log2(max(1, len(states) // size)))
    filled = num_groups * -(-len(states) // num_groups)
    members = (torch.randperm(filled, device=states.device) % len(states))[None]  # (1, filled)
    while len(members) < num_groups:
        directions = torch.randn(len(members), states.shape[1], 1, device=states.device, dtype=states.dtype)
        order = torch.bmm(states[members], directions).squeeze(2).argsort(dim=1)
        members = members.gather(1, order).view(2 * len(members), -1)
    return members
