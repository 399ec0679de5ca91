"""What the body is made of: embeddings, attention, feed-forward part, layer, and the head before the item scores."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_bert4rec import Bert4RecConfig
from .content import ItemContent
from .packing import PackedAttention
from .rotary import rotate

FLEX_MIN_HEAD_SIZE = 24  # on a CPU
DROPOUT_BITS = 16
HIDDEN_SHARE = 0.1  # of the inputs while training, so that the model learns to read what is unknown
CACHED_TOKENS = 1024  # of a packed batch, which go through the feed-forward part together


def positions_from_newest(attention_mask: torch.Tensor) -> torch.Tensor:
    """Number of real tokens to the right of each token, 0 for the newest; `(batch, length)` to `(batch, length)`.

    Example:
        >>> positions_from_newest(torch.tensor([[0, 1, 1], [1, 1, 0]])).tolist()
        [[2, 1, 0], [1, 0, 0]]
    """
    mask = attention_mask.long()
    return mask.flip(-1).cumsum(-1).flip(-1) - mask


def embedding_size(config: Bert4RecConfig) -> int:
    """The config fills it in on construction; this tells the type checker so."""
    return config.embedding_size or config.hidden_size


def adapts(config: Bert4RecConfig) -> bool:
    """Whether a layer lies between the item embeddings and the body."""
    return config.item_representation != "id" or embedding_size(config) != config.hidden_size


class Dropout(nn.Dropout):
    """Dropout whose random bits come 64 at a time on the CPU, a fourth of the time of torch's; `p` is exact to 2⁻¹⁷."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:  # a call of the parent takes longer than a small layer
            return input
        if self.p == 0.0 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        dropped = round(self.p * 2**DROPOUT_BITS)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)  # uniform in -2¹⁵ … 2¹⁵ - 1
        kept = torch.ge(bits, dropped - 2 ** (DROPOUT_BITS - 1), out=torch.empty_like(input))
        return input * kept.mul_(2**DROPOUT_BITS / (2**DROPOUT_BITS - dropped))


class InputTable(nn.Embedding):
    """What an input adds to a token: zeros at first, so that a new model starts as one without it."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size, width, _weight=torch.zeros(size, width))  # draws no random number

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            input = input.masked_fill(torch.rand(input.shape, device=input.device) < HIDDEN_SHARE, 0)
        return super().forward(input)  # (…, hidden_size)


class Bert4RecEmbeddings(nn.Module):
    """Item embeddings, taken to `hidden_size` where they have another space, plus positions counted from the newest.

    Where items are made of content, `item_embeddings` holds what they have beside it: the residuals.
    """

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__()
        width = embedding_size(config)
        self.item_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.content = None if config.item_representation == "id" else ItemContent(config)
        self.has_residual = config.item_representation == "content+id"
        self._known: tuple[Any, torch.Tensor] | None = None
        self.projection = nn.Linear(width, config.hidden_size) if adapts(config) else nn.Identity()
        absolute = config.position_embedding_type == "absolute"
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size) if absolute else None
        )
        self.inputs = [entry["name"] for entry in config.inputs or []]
        tables = [InputTable(entry["size"], config.hidden_size) for entry in config.inputs or []]
        self.input_tables = nn.ModuleList(tables) if tables else None
        post = config.norm_position == "post"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if post else nn.Identity()
        self.dropout = Dropout(config.hidden_dropout_prob)

    def rows(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings of the tokens `(n,)`, or of all of them, `(n, embedding_size)`."""
        if torch.is_grad_enabled():
            self._known = None  # a step may follow, and a fused optimiser leaves the versions of weights as they are
        if self.content is not None and not self.has_residual:
            return cast(torch.Tensor, self.content(ids))
        own = self.item_embeddings.weight if ids is None else self.item_embeddings(ids)
        return own if self.content is None else self.content(ids) + own

    def table(self) -> torch.Tensor:
        """Embeddings of all tokens `(vocab_size, embedding_size)`; without gradients made once for equal weights."""
        if self.content is None or self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.rows()
        weights = (self.item_embeddings.weight, *self.content.parameters(), *self.content.buffers())
        version = [
            (weight.data_ptr(), weight._version, weight.dtype) for weight in weights if not weight.is_inference()
        ]
        if self._known is None or self._known[0] != version or len(version) < len(weights):
            self._known = version, self.rows()
        return self._known[1]

    def look_up(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of token ids `(…)`, `(…, embedding_size)`; an adapter runs once for each distinct token."""
        if self.content is None:
            return cast(torch.Tensor, self.item_embeddings(ids))
        if self.content.is_whole and not torch.is_grad_enabled():
            return F.embedding(ids, self.table())
        distinct, places = ids.unique(return_inverse=True)
        return F.embedding(places, self.rows(distinct))

    def forward(
        self, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, inputs: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        hidden_states = self.projection(inputs_embeds)  # (batch, length, hidden_size)
        if self.position_embeddings is not None:
            hidden_states = hidden_states + self.position_embeddings(position_ids)
        if self.input_tables is not None or inputs is not None:
            hidden_states = self._with_inputs(hidden_states, inputs or {})
        return self.dropout(self.norm(hidden_states))

    def _with_inputs(self, hidden_states: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Add what each input says of a token; codes have the shape of the tokens."""
        if set(inputs) != set(self.inputs):
            raise ValueError(
                f"The model reads {', '.join(self.inputs) or 'nothing'} beside the items, found "
                f"{', '.join(inputs) or 'nothing'} in `inputs`: make the rows with `inputs=model.config.inputs`."
            )
        for table, name in zip(self.input_tables or (), self.inputs, strict=True):
            hidden_states = hidden_states + table(inputs[name])  # (batch, length, hidden_size)
        return hidden_states


def check_flex_attention(config: Bert4RecConfig, device: torch.device) -> None:
    """Refuse flex attention where its compiled kernel is wrong.

    For heads narrower than 24 units, torch's C++ kernel (2.13, on CPUs with vectors of 8 floats) multiplies a last
    block of 8 keys as if it had 16: it reads keys beyond the tensor and writes their scores over its running maximum.
    """
    head_size = config.hidden_size // config.num_attention_heads
    if config._attn_implementation == "flex_attention" and device.type == "cpu" and head_size < FLEX_MIN_HEAD_SIZE:
        raise ValueError(
            f"`attn_implementation='flex_attention'` needs `hidden_size / num_attention_heads` of at least "
            f"{FLEX_MIN_HEAD_SIZE} on a CPU, found {head_size}: torch's kernel gives wrong scores for narrower heads. "
            "Use 'sdpa' or fewer heads."
        )


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out; query, key and value are `(batch, heads, length, head_size)`."""
    weights = query @ key.transpose(2, 3) * scaling  # (batch, heads, length, length)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights  # (batch, length, heads, head_size)


class Bert4RecAttention(nn.Module):
    """Multi-head self-attention through the implementation that the config names."""

    def __init__(self, config: Bert4RecConfig, is_causal: bool) -> None:
        super().__init__()
        self.config = config
        self.is_causal = is_causal
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary: torch.Tensor | None,
        packed: PackedAttention | None = None,
        last_only: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if packed is not None:
            return self._attend_packed(hidden_states, rotary, packed), None
        batch, length, _ = hidden_states.shape
        if last_only:
            length = 1
            asking, others = self._project_apart(hidden_states[:, -1:], hidden_states)
            (query,), (key, value) = self._by_head(asking, 1), self._by_head(others, 2)
            attention_mask = None if attention_mask is None else attention_mask[:, :, -1:]
        else:
            query, key, value = self._by_head(self.query_key_value(hidden_states), 3)
        if rotary is not None:
            query, key = rotate(query, rotary[:, :, -length:]), rotate(key, rotary)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        attended, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.head_size**-0.5
        )
        return self.output(attended.reshape(batch, length, -1)), weights

    def _by_head(self, states: torch.Tensor, parts: int) -> torch.Tensor:
        """Take apart what lies side by side: to `(parts, batch, heads, length, head_size)`."""
        return states.view(*states.shape[:2], parts, -1, self.head_size).permute(2, 0, 3, 1, 4)

    def _attend_packed(
        self, hidden_states: torch.Tensor, rotary: torch.Tensor | None, packed: PackedAttention
    ) -> torch.Tensor:
        """Attention of real tokens, `(num_tokens, hidden_size)` to `(num_asking, hidden_size)`."""
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        return self.output(packed.attend(self, self._project(hidden_states, packed), dropout, rotary))

    def _project(self, hidden_states: torch.Tensor, packed: PackedAttention) -> list[torch.Tensor]:
        """Queries, keys and values side by side; where only some tokens ask, their queries apart."""
        if not packed.asks_apart:
            return [self.query_key_value(hidden_states)]
        return self._project_apart(packed.keep(hidden_states), hidden_states)

    def _project_apart(self, asking: torch.Tensor, hidden_states: torch.Tensor) -> list[torch.Tensor]:
        """Queries of the tokens that ask, and of all of them keys and values side by side."""
        sizes, projection = [hidden_states.shape[-1], 2 * hidden_states.shape[-1]], self.query_key_value
        if type(projection) is not nn.Linear:  # adapters and quantised layers can only be called whole
            return [projection(asking)[..., : sizes[0]], projection(hidden_states)[..., sizes[0] :]]
        (for_query, others), (bias, biases) = (values.split(sizes) for values in (projection.weight, projection.bias))
        return [F.linear(asking, for_query, bias), F.linear(hidden_states, others, biases)]


class Bert4RecMLP(nn.Module):
    """Feed-forward part, gated or not."""

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__()
        self.gated = config.gated_mlp
        width = config.intermediate_size or 4 * config.hidden_size
        self.input = nn.Linear(config.hidden_size, width * (2 if config.gated_mlp else 1))
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        packed = hidden_states.ndim == 2 and hidden_states.device.type == "cpu"
        if packed and len(hidden_states) > CACHED_TOKENS:  # what is widened stays in the cache
            return torch.cat([self._widen(part) for part in hidden_states.split(CACHED_TOKENS)])
        return self._widen(hidden_states)

    def _widen(self, hidden_states: torch.Tensor) -> torch.Tensor:
        widened = self.input(hidden_states)  # (…, intermediate_size [* 2])
        if self.gated:
            values, gate = widened.chunk(2, dim=-1)
            return self.output(self.activation(gate) * values)
        return self.output(self.activation(widened))


class Bert4RecLayer(GradientCheckpointingLayer):
    """Attention and feed-forward block with residuals; norm before (`pre`) or after (`post`) each."""

    def __init__(self, config: Bert4RecConfig, is_causal: bool) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention = Bert4RecAttention(config, is_causal)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Bert4RecMLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: torch.Tensor | None = None,
        packed: PackedAttention | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        queries = hidden_states if packed is None else packed.keep(hidden_states)
        queries = queries[:, -1:] if last_only else queries
        if self.pre_norm:
            normed = self.attention_norm(hidden_states)
            attended, _ = self.attention(normed, attention_mask, rotary, packed, last_only)
            hidden_states = queries + self.dropout(attended)
            return hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states)))
        attended, _ = self.attention(hidden_states, attention_mask, rotary, packed, last_only)
        hidden_states = self.attention_norm(queries + self.dropout(attended))
        return self.mlp_norm(hidden_states + self.dropout(self.mlp(hidden_states)))


class Bert4RecHead(nn.Module):
    """From hidden states to the space of the item embeddings."""

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__()
        width = embedding_size(config)
        dense = nn.Linear(config.hidden_size, width)
        norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dense = dense if config.head_transform or adapts(config) else nn.Identity()
        self.activation = ACT2FN[config.hidden_act] if config.head_transform else nn.Identity()
        self.norm = norm if config.head_transform else nn.Identity()

    def last(self, config: Bert4RecConfig) -> nn.Module:
        """The module whose weights of zero make the head give zeros."""
        return self.norm if config.head_transform else self.dense

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.activation(self.dense(hidden_states)))  # (…, embedding_size)
