"""The body of every Bert4Rec model, and what all of them share: initialisation, and checkpoints with their own code."""

from typing import Any, cast

import torch
from torch import nn
from transformers import initialization
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_bert4rec import Bert4RecConfig, check_inputs
from .content import initialise_content
from .layers import (
    Bert4RecAttention,
    Bert4RecEmbeddings,
    Bert4RecLayer,
    InputTable,
    check_flex_attention,
    positions_from_newest,
)
from .packing import Packing
from .rotary import rotary_angles
from .self_contained import SelfContainedModel

AUTO_MAP = {
    "AutoConfig": "configuration_bert4rec.Bert4RecConfig",
    "AutoModel": "modeling_bert4rec.Bert4RecModel",
    "AutoModelForMaskedLM": "modeling_bert4rec.Bert4RecForMaskedLM",
    "AutoModelForCausalLM": "modeling_bert4rec.Bert4RecForCausalLM",
    "AutoModelForSequenceClassification": "modeling_bert4rec.Bert4RecForSequenceClassification",
}
REMOTE_CODE_FILES = (
    "body.py",
    "catalogue.py",
    "chunked_loss.py",
    "configuration_bert4rec.py",
    "content.py",
    "grids.py",
    "hard_negatives.py",
    "item_scorer.py",
    "modeling_bert4rec.py",
    "layers.py",
    "loss_names.py",
    "losses.py",
    "packing.py",
    "rotary.py",
    "self_contained.py",
    "recommendation_pipeline.py",
)


class Bert4RecPreTrainedModel(SelfContainedModel):
    """What every Bert4Rec model shares: initialisation, and checkpoints that carry their own code."""

    config_class = Bert4RecConfig
    remote_code_map = AUTO_MAP
    remote_code_files = REMOTE_CODE_FILES
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Bert4RecEmbeddings", "Bert4RecLayer"]  # noqa: RUF012  # the parent declares it
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Bert4RecLayer, "attentions": Bert4RecAttention}  # noqa: RUF012  # the parent declares it

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Tie the head to the item embeddings; items without residuals keep zeros, also after loading."""
        super().tie_weights(*args, **kwargs)
        if self.config.item_representation == "content":
            self.get_input_embeddings().weight.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, InputTable):
            initialization.zeros_(module.weight)
            return
        super()._init_weights(module)
        if self.config.item_representation != "id":
            initialise_content(module, self.config.initializer_range, initialization)

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Make the model read longer or shorter histories; positions near the newest item keep their weights."""
        if new_num_position_embeddings < 1:
            raise ValueError(f"`new_num_position_embeddings` must be above 0, found {new_num_position_embeddings}.")
        self.config.max_position_embeddings = new_num_position_embeddings
        embeddings = cast(Bert4RecModel, self.base_model).embeddings
        old = embeddings.position_embeddings
        if old is None or old.num_embeddings == new_num_position_embeddings:
            return
        new = nn.Embedding(new_num_position_embeddings, old.embedding_dim, device=old.weight.device)
        new.to(old.weight.dtype)
        kept = min(old.num_embeddings, new_num_position_embeddings)
        with torch.no_grad():
            new.weight.normal_(std=self.config.initializer_range)
            new.weight[:kept] = old.weight[:kept]
        new.weight.requires_grad_(old.weight.requires_grad)
        embeddings.position_embeddings = new

    def add_inputs(self, inputs: list[dict[str, Any]]) -> None:
        """Make the model read more than it does; its scores stay as they are until the new tables are trained.

        Args:
            inputs: As `config.inputs` describes them.
        """
        if not inputs:
            return
        config = cast(Bert4RecConfig, self.config)
        everything = [*(config.inputs or []), *inputs]
        check_inputs(everything)
        config.inputs = everything
        embeddings = cast(Bert4RecModel, self.base_model).embeddings
        weight = embeddings.item_embeddings.weight
        tables = [InputTable(entry["size"], config.hidden_size).to(weight.device, weight.dtype) for entry in inputs]
        embeddings.input_tables = nn.ModuleList([*(embeddings.input_tables or []), *tables])
        embeddings.inputs = [entry["name"] for entry in everything]

    def get_position_embeddings(self) -> nn.Embedding | None:  # type: ignore[override]  # rotary has no table
        """The table of positions, or None for rotary and no positions."""
        return cast(Bert4RecModel, self.base_model).embeddings.position_embeddings


class Bert4RecModel(Bert4RecPreTrainedModel):
    """The body: hidden states `(batch, length, hidden_size)` of item histories.

    Args:
        config: The configuration.
        is_causal: Whether a position sees only itself and older items; the causal head sets it.
    """

    def __init__(self, config: Bert4RecConfig, is_causal: bool = False) -> None:
        super().__init__(config)
        self.is_causal = is_causal
        self.embeddings = Bert4RecEmbeddings(config)
        self.layers = nn.ModuleList([Bert4RecLayer(config, is_causal) for _ in range(config.num_hidden_layers)])
        pre = config.norm_position == "pre"
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Told by identity: outside of transformers, the parent passes over modules without weights of their own.
        super()._init_weights(module)
        if self.config.item_representation == "id":
            return
        if module is self.embeddings.item_embeddings:
            initialization.zeros_(self.embeddings.item_embeddings.weight)
        elif module is self.embeddings.projection:
            weight = cast(nn.Linear, self.embeddings.projection).weight
            initialization.normal_(weight, mean=0.0, std=self.config.hidden_size**-0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.item_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.item_embeddings = cast(nn.Embedding, value)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        last_only: bool = False,
        inputs: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode histories.

        Args:
            input_ids: Token ids `(batch, length)`, oldest first.
            attention_mask: 1 for items, 0 for padding, on either side, `(batch, length)`.
            inputs_embeds: Item embeddings `(batch, length, embedding_size)` in place of `input_ids`.
            last_only: Give the last column alone, `(batch, 1, hidden_size)`; the last layer computes no other. Padding
                must then stand on the left.
            inputs: Of each of `config.inputs` the codes `(batch, length)`, 0 where unknown.

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds`, more tokens than there are positions, or
                flex attention on a CPU with heads below 24 units, for which torch's kernel gives wrong scores; other
                inputs than those of the config.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Expected exactly one of `input_ids` and `inputs_embeds`.")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.look_up(cast(torch.Tensor, input_ids))  # (batch, length, embedding_size)
        check_flex_attention(cast(Bert4RecConfig, self.config), inputs_embeds.device)
        length = inputs_embeds.shape[1]
        self._check_length(length)
        if attention_mask is None or last_only:  # the newest token stands last: all rows have the same positions
            position_ids = torch.arange(length - 1, -1, -1, device=inputs_embeds.device)[None]  # (1, length)
        else:
            position_ids = positions_from_newest(attention_mask)
        hidden_states = self.embeddings(inputs_embeds, position_ids, inputs)
        make_mask = create_causal_mask if self.is_causal else create_bidirectional_mask
        extra: dict[str, Any] = {"past_key_values": None} if self.is_causal else {}
        mask = make_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask, **extra)
        rotary = self._rotary(position_ids[:, None])  # (batch, 1, length, 2, head_size / 2)
        for number, layer in enumerate(self.layers, start=1):
            last = last_only and number == len(self.layers)
            hidden_states = layer(hidden_states, attention_mask=mask, rotary=rotary, last_only=last)
        return BaseModelOutput(last_hidden_state=self.final_norm(hidden_states))

    def _check_length(self, length: int) -> None:
        if self.config.position_embedding_type == "absolute" and length > self.config.max_position_embeddings:
            raise ValueError(
                f"`input_ids` has length {length}, above `max_position_embeddings` = "
                f"{self.config.max_position_embeddings}: keep the newest items, or call `resize_position_embeddings`."
            )

    def _rotary(self, position_ids: torch.Tensor) -> torch.Tensor | None:
        """The angles that the config asks for."""
        if self.config.position_embedding_type != "rotary":
            return None
        return rotary_angles(
            position_ids, self.config.hidden_size // self.config.num_attention_heads, self.config.rotary_base
        )

    def at_labels(
        self,
        labelled: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        inputs: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Hidden states `(num_labelled, hidden_size)` as in `forward`, without work on padding and unlabelled outputs.

        Args:
            labelled: Where hidden states are asked for `(batch, length)`.
            input_ids: As in `forward`.
            attention_mask: As in `forward`.
            inputs_embeds: As in `forward`.
            inputs: As in `forward`.
        """
        self._check_length(labelled.shape[1])
        real = torch.ones_like(labelled) if attention_mask is None else attention_mask.bool()
        flash = is_flash_attention_requested(self.config)
        packing = Packing.of(real, labelled, is_causal=self.is_causal, flash=flash)
        if inputs_embeds is None:
            tokens = cast(torch.Tensor, input_ids).flatten()[packing.source]
            embeds = self.embeddings.look_up(tokens)  # (num_tokens, embedding_size)
        else:
            embeds = inputs_embeds.flatten(0, 1)[packing.source]
        position_ids = positions_from_newest(real).flatten()[packing.source]
        if inputs is not None:
            inputs = {name: codes.flatten()[packing.source] for name, codes in inputs.items()}  # each (num_tokens,)
        hidden_states = self.embeddings(embeds, position_ids, inputs)  # (num_tokens, hidden_size)
        rotary = self._rotary(position_ids)  # (num_tokens, 2, head_size / 2)
        for number, layer in enumerate(self.layers, start=1):
            packed = packing.last if number == len(self.layers) else packing.inner
            hidden_states = layer(hidden_states, rotary=rotary, packed=packed)
        return packing.unpack(self.final_norm(hidden_states))
