"""Items that are made of their content: frozen features, whitened, under a learnt adapter, and a path past the body.

An item's embedding is what the adapter makes of its features, plus in `content+id` a residual of its own. A new adapter
passes the whitened features on as they are, and the path past the body compares the recent history with every item: an
untrained model ranks by the cosine of whitened content. What is trained is a correction of that.

Reference: whitening of text vectors from Hou et al., Towards Universal Sequence Representation Learning for Recommender
Systems (UniSRec), KDD 2022. Its mixture of adapters and its learnt shift were worse than no adapter, and are left out.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_bert4rec import Bert4RecConfig

FIRST_SCALE = 14.0  # inverse temperature of a new model's cosines
FIRST_DECAY = 0.6  # weight of an item against that of the next newer one


class ContentBlock(nn.Module):
    """One block of content: whitened, brought to length 1, and adapted to the space of the item embeddings.

    `mean`, `basis` and `whitening` are statistics of the catalogue and not trained: features less their mean, on the
    main axes of the source's content, and scaled there to the same spread in all directions without turning them (ZCA).

    Args:
        config: The configuration.
        width: Columns of features.
        rank: Main axes that are kept.
        offset: First dimension of the item embeddings to which a new adapter passes this block.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, config: Bert4RecConfig, width: int, rank: int, offset: int) -> None:
        super().__init__()
        self.offset, self.rank = offset, rank
        self.size = size = cast(int, config.embedding_size)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.eye(width, rank))
        self.register_buffer("whitening", torch.eye(rank))
        self.weight = nn.Parameter(torch.ones(()))
        self.linear = nn.Linear(rank, size, bias=False) if config.content_adapter == "linear" else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `(n, width)` to `(n, embedding_size)`; a row of zeros, an item without this content, gives zeros."""
        known = (features != 0).any(dim=-1, keepdim=True)
        whitened = F.normalize((features - self.mean) @ (self.basis @ self.whitening), dim=-1)  # (n, rank)
        if self.linear is None:
            adapted = F.pad(whitened, (self.offset, self.size - self.offset - self.rank))  # (n, embedding_size)
        else:
            adapted = self.linear(whitened)
        return (adapted * self.weight).masked_fill(~known, 0.0)


class ItemContent(nn.Module):
    """What all items are made of, and the adapters that make embeddings of it.

    Args:
        config: The configuration, whose `item_content` names the blocks.
    """

    features: torch.Tensor
    is_whole = True  # this process has the features of all items

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__()
        self.widths = config.content_widths()
        ranks = config.content_ranks()
        offsets = [sum(ranks[:place]) for place in range(len(ranks))]
        self.cosine = config.content_similarity == "cosine"
        self.register_buffer("features", torch.zeros(config.vocab_size, sum(self.widths)))
        self.specials = nn.Parameter(torch.zeros(config.num_special_tokens, cast(int, config.embedding_size)))
        self.blocks = nn.ModuleList(
            ContentBlock(config, width, rank, offset)
            for width, rank, offset in zip(self.widths, ranks, offsets, strict=True)
        )

    def forward(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings by content of the tokens `(n,)`, or of all of them: `(n, embedding_size)`."""
        if ids is None:
            return torch.cat([self.specials, self.adapted(self.features)[len(self.specials) :]])
        return self.with_specials(ids, self.adapted(self.features[ids]))

    def adapted(self, features: torch.Tensor) -> torch.Tensor:
        """What the adapters make of features `(n, width)`: `(n, embedding_size)`."""
        parts = features.split(self.widths, dim=-1)
        adapted = torch.stack([block(part) for block, part in zip(self.blocks, parts, strict=True)]).sum(dim=0)
        return F.normalize(adapted, dim=-1) if self.cosine else adapted

    def with_specials(self, ids: torch.Tensor, adapted: torch.Tensor) -> torch.Tensor:
        """`adapted` `(n, embedding_size)` with the embeddings of special tokens in their places."""
        number = len(self.specials)
        special = F.embedding(ids.clamp(max=number - 1), self.specials)
        return torch.where((ids < number).unsqueeze(-1), special, adapted)


class RecentHistory(nn.Module):
    """The path past the body: the mean of the items around a position, newer ones weighing more, times a scale.

    Args:
        is_causal: Whether a position sees only itself and older items; else it sees both sides, without itself.
    """

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.decay_logit = nn.Parameter(torch.zeros(()))

    @staticmethod
    def first_values() -> dict[str, float]:
        """The weights of a new model, by name."""
        return {
            "log_scale": float(torch.tensor(FIRST_SCALE).log()),
            "decay_logit": float(torch.tensor(FIRST_DECAY).logit()),
        }

    def forward(self, embeds: torch.Tensor, items: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Directions of the recent history, of length `exp(log_scale)`; zeros where there is no item.

        Args:
            embeds: Item embeddings `(batch, length, embedding_size)`.
            items: Whether a position holds an item `(batch, length)`.
            asked: Where the history is asked for `(batch, length)`.

        Returns:
            `(num_asked, embedding_size)`.
        """
        steps = torch.arange(embeds.shape[1], device=embeds.device)
        lags = steps[:, None] - steps  # (length, length), from a position back to an older one
        weights = torch.exp(F.logsigmoid(self.decay_logit) * lags.abs())
        seen = lags >= 0 if self.is_causal else lags != 0
        weights = (weights * seen).to(embeds.dtype)
        profile = weights @ (embeds * items.unsqueeze(-1))  # (batch, length, embedding_size)
        return self.log_scale.exp() * F.normalize(profile[asked], dim=-1)

    def newest(self, embeds: torch.Tensor, items: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """The same at one position of each row, `newest` `(batch,)`: `(batch, embedding_size)`."""
        steps = torch.arange(embeds.shape[1], device=embeds.device)
        lags = newest[:, None] - steps  # (batch, length)
        seen = items & (lags >= 0 if self.is_causal else lags != 0)
        weights = torch.exp(F.logsigmoid(self.decay_logit) * lags.abs()) * seen
        profile = (weights.to(embeds.dtype).unsqueeze(1) @ embeds).squeeze(1)  # (batch, embedding_size)
        return self.log_scale.exp() * F.normalize(profile, dim=-1)


@dataclass(frozen=True)
class StepItems:
    """Embeddings of the items of one step, so that an adapter runs once for each of them.

    Args:
        weight: Rows `(num_items, embedding_size)`.
        ids: Their token ids in rising order `(num_items,)`; None where all tokens have their row.
        negatives: Token ids of the negatives that were drawn for the step, of each block of items that compete, where
            its loss has some.
    """

    weight: torch.Tensor
    ids: torch.Tensor | None = None
    negatives: tuple[torch.Tensor, ...] | None = None

    def places(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of token ids, of the same shape."""
        return ids if self.ids is None else torch.searchsorted(self.ids, ids)


def initialise_content(module: nn.Module, std: float, init: Any) -> None:
    """Start values of the modules of this file: adapters that pass on what they get, all corrections zero.

    Args:
        module: Any module.
        std: Standard deviation of what starts at random.
        init: `transformers.initialization`, which leaves weights alone that were loaded.
    """
    if isinstance(module, ContentBlock):
        if module.linear is not None:
            passed_on = torch.eye(module.size, module.rank).roll(module.offset, dims=0)
            init.copy_(module.linear.weight, passed_on)
        init.zeros_(module.mean)
        init.copy_(module.basis, torch.eye(*module.basis.shape))
        init.copy_(module.whitening, torch.eye(module.rank))
        init.ones_(module.weight)
    elif isinstance(module, ItemContent):
        init.zeros_(module.features)
        init.normal_(module.specials, mean=0.0, std=std)
    elif isinstance(module, RecentHistory):
        for name, value in module.first_values().items():
            init.constant_(getattr(module, name), value)
