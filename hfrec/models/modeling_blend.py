"""A blend: the weighted sum of what networks, item-to-item tables and popularity say of the next item.

This file and its neighbours travel with every checkpoint, so they import only torch, transformers and each other.
"""

from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils.generic import can_return_tuple

from .body import REMOTE_CODE_FILES
from .configuration_bert4rec import Bert4RecConfig
from .configuration_blend import BlendConfig
from .modeling_bert4rec import Bert4RecForCausalLM, Bert4RecForMaskedLM
from .neighbours import NeighbourTable
from .self_contained import SelfContainedModel

MAX_SCORES = 16_000_000  # scores of one component that are held at a time, 4 bytes each
_NETWORKS = {model.__name__: model for model in (Bert4RecForMaskedLM, Bert4RecForCausalLM)}


class NetworkComponent(nn.Module):
    """Log-probabilities of the items by a masked or causal model, which reads the newest tokens it has positions for.

    Args:
        architecture: `Bert4RecForMaskedLM` or `Bert4RecForCausalLM`.
        config: The model's own.
    """

    def __init__(self, architecture: str, config: dict[str, Any]) -> None:
        super().__init__()
        if architecture not in _NETWORKS:
            raise ValueError(f"`architecture` must be one of {', '.join(_NETWORKS)}, found {architecture!r}.")
        self.masked = architecture == "Bert4RecForMaskedLM"
        self.network = _NETWORKS[architecture](Bert4RecConfig.from_dict(config))

    def forward(self, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """`(batch, length)`, the newest token last, to `(batch, num_items)`."""
        config = self.network.config
        if self.masked:
            newest = tokens.new_full((tokens.shape[0], 1), config.mask_token_id)
            tokens, real = (
                torch.cat([tokens, newest], 1),
                torch.cat([real, torch.ones_like(newest, dtype=real.dtype)], 1),
            )
        else:  # a history without a token is read as one unknown item
            last = torch.arange(tokens.shape[1], device=tokens.device) == tokens.shape[1] - 1
            nothing = last & ~real.any(dim=1, keepdim=True)
            tokens, real = torch.where(nothing, config.unk_token_id, tokens), real | nothing
        first = torch.sym_max(tokens.shape[1] - config.max_position_embeddings, 0)
        representation = self.network.encode_history(tokens[:, first:], real[:, first:].long(), newest_last=True)
        scores = self.network.score_items(representation)[:, config.num_special_tokens :]
        return scores.float().log_softmax(dim=-1)


class NeighbourComponent(NeighbourTable):
    """Scores of a table, brought to the scale of the other components.

    `"log_share"` is the logarithm of `(1 - floor) * score / sum + floor / num_items`, and of popularity where the
    history says nothing; `"standardised"` has mean 0 and standard deviation 1 over the items.
    """

    def __init__(self, config: BlendConfig, component: dict[str, Any]) -> None:
        sizes = {name: component[name] for name in ("num_neighbours", "longest_row", "decay")}
        super().__init__(config.vocab_size, **sizes)
        self.log_share = component["scale"] == "log_share"
        self.first, self.floor = config.num_special_tokens, config.floor

    def scaled(self, tokens: torch.Tensor, real: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
        """`(batch, length)` and popularity `(num_items,)` to `(batch, num_items)`."""
        scores = self(tokens, real)[:, self.first :]
        if self.log_share:
            scores = scores.clamp(min=0.0)
            total = scores.sum(dim=1, keepdim=True)
            share = scores / total.clamp(min=torch.finfo(scores.dtype).tiny)
            evidence = (1.0 - self.floor) * share + self.floor / scores.shape[1]
            return torch.where(total > 0, evidence, popularity).log()
        spread = scores.std(dim=1, keepdim=True, correction=0)
        return (scores - scores.mean(dim=1, keepdim=True)) / spread.clamp(min=1e-12)


class PopularityComponent(nn.Module):
    """Logarithm of how popular each item is, the same for every history."""

    shares: torch.Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((vocab_size,), 1.0 / vocab_size))


class Blend(SelfContainedModel):
    """Weighted sum of components over the whole catalogue; what ranks and recommends as a masked or causal model does.

    It takes raw histories: each network gets its newest part, a masked one its `[MASK]` too, the tables get all of it.

    Args:
        config: What is mixed, and the weights.
    """

    config_class = BlendConfig
    remote_code_map = {  # noqa: RUF012  # the parent declares it
        "AutoConfig": "configuration_blend.BlendConfig",
        "AutoModel": "modeling_blend.Blend",
    }
    remote_code_files = (*REMOTE_CODE_FILES, "configuration_blend.py", "modeling_blend.py", "neighbours.py")
    main_input_name = "input_ids"
    _no_split_modules = ["NetworkComponent", "NeighbourComponent"]  # noqa: RUF012  # the parent declares it
    _supports_flash_attn = True
    _supports_sdpa = True

    def __init__(self, config: BlendConfig) -> None:
        super().__init__(config)
        # A parameter and no buffer, so that a blend without a network has a device and a precision too.
        shares = torch.full((config.vocab_size,), 1.0 / config.vocab_size)
        self.popularity = nn.Parameter(shares, requires_grad=False)
        self.components = nn.ModuleList(_component(config, entry) for entry in config.components or [])
        self.post_init()
        # The parent looks for tied weights in direct children only, and the networks lie deeper.
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)
        self.requires_grad_(False)  # fitted part by part, never trained as a whole

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load as the parent does; tables that reach outside themselves are refused.

        Raises:
            ValueError: The neighbours of a component do not fit its table.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for entry, component in zip(model.config.components, model.components, strict=True):
            if isinstance(component, NeighbourTable):
                component.check(entry["name"])
        return loaded

    @property
    def networks(self) -> list[nn.Module]:
        """The masked and causal models in it."""
        return [component.network for component in self.components if isinstance(component, NetworkComponent)]

    def encode_history(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, newest_last: bool = False
    ) -> torch.Tensor:
        """The scores themselves, `(batch, vocab_size)`, minus infinity for special tokens.

        The softmax of a network, a table and its share all need the whole catalogue at once, so that a blend has no
        smaller representation. Components are scored for some users at a time.

        Args:
            input_ids: Token ids `(batch, length)`, whole histories without `[MASK]`.
            attention_mask: 1 for tokens, 0 for padding, `(batch, length)`; `[PAD]` is padding in any case.
            newest_last: As of the networks; nothing changes, since rows are brought to this order anyway.
        """
        tokens, real = self._newest_last(input_ids, attention_mask)
        if torch.compiler.is_compiling():
            return self._mix(tokens, real)
        rows = max(1, MAX_SCORES // self.config.vocab_size)
        return torch.cat([self._mix(*chunk) for chunk in zip(tokens.split(rows), real.split(rows), strict=True)])

    def score_items(self, representation: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Scores `(batch, stop - start)` of the token ids `start … stop - 1`."""
        return representation[..., start:stop]

    def component_scores(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """What each component says of the items, unweighted, `(batch, num_items)` each, in the config's order."""
        tokens, real = self._newest_last(input_ids, attention_mask)
        return [self._score(component, tokens, real) for component in self.components]

    @can_return_tuple
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> CausalLMOutput:
        """Score the next item.

        Args:
            input_ids: Token ids `(batch, length)`, whole histories.
            attention_mask: 1 for tokens, 0 for padding `(batch, length)`.

        Returns:
            Logits `(batch, 1, vocab_size)`.
        """
        return CausalLMOutput(logits=cast(Any, self.encode_history(input_ids, attention_mask)[:, None]))

    def _newest_last(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids with the padding on the left, and where they are real; both `(batch, length)`."""
        real = input_ids != self.config.pad_token_id
        if attention_mask is not None:
            real = real & (attention_mask != 0)
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        newest = (real * steps).amax(dim=1, keepdim=True)  # (batch, 1)
        place = newest - steps.flip(0)  # (batch, length)
        source = place.clamp(min=0)
        return input_ids.gather(1, source), real.gather(1, source) & (place >= 0)

    def _mix(self, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        first = self.config.num_special_tokens
        mixed = self.popularity.new_zeros((tokens.shape[0], self.config.vocab_size - first), dtype=torch.float32)
        for entry, component in zip(self.config.components, self.components, strict=True):
            if entry["weight"]:
                mixed = mixed + entry["weight"] * self._score(component, tokens, real)
        return torch.cat([mixed.new_full((tokens.shape[0], first), float("-inf")), mixed], dim=1)

    def _score(self, component: nn.Module, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        first = self.config.num_special_tokens
        if isinstance(component, NeighbourComponent):
            return component.scaled(tokens, real, self.popularity[first:])
        if isinstance(component, PopularityComponent):
            return component.shares[first:].log().expand(tokens.shape[0], -1)
        return cast(torch.Tensor, component(tokens, real))


def _component(config: BlendConfig, entry: dict[str, Any]) -> nn.Module:
    if entry["kind"] == "network":
        return NetworkComponent(entry["architecture"], entry["config"])
    if entry["kind"] == "neighbours":
        return NeighbourComponent(config, entry)
    return PopularityComponent(config.vocab_size)


__all__ = ["Blend"]
