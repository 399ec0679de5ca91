"""BERT4Rec-style transformers over item histories: masked, causal and classification heads.

This file and its neighbours travel with every checkpoint, so they import only torch, transformers and each other.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.utils.generic import can_return_tuple, is_flash_attention_requested, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_bert4rec import Bert4RecConfig
from .content import RecentHistory, StepItems, initialise_content
from .layers import (
    Bert4RecAttention,
    Bert4RecEmbeddings,
    Bert4RecHead,
    Bert4RecLayer,
    check_flex_attention,
    embedding_size,
    positions_from_newest,
    rotary_angles,
)
from .losses import (
    SAMPLED_LOSSES,
    Candidates,
    NegativeSampler,
    chunked_cross_entropy,
    divide_by_labels,
    gbce_losses,
    item_cross_entropy,
    sampled_softmax_losses,
    score_candidates,
    smoothing_terms,
)
from .packing import Packing
from .self_contained import SelfContainedModel

if TYPE_CHECKING:  # transformers copies what a file of remote code imports, and the pipeline travels with the model
    from .recommendation_pipeline import HistoryPipeline as HistoryPipeline

AUTO_MAP = {
    "AutoConfig": "configuration_bert4rec.Bert4RecConfig",
    "AutoModel": "modeling_bert4rec.Bert4RecModel",
    "AutoModelForMaskedLM": "modeling_bert4rec.Bert4RecForMaskedLM",
    "AutoModelForCausalLM": "modeling_bert4rec.Bert4RecForCausalLM",
    "AutoModelForSequenceClassification": "modeling_bert4rec.Bert4RecForSequenceClassification",
}
REMOTE_CODE_FILES = (
    "configuration_bert4rec.py",
    "content.py",
    "modeling_bert4rec.py",
    "layers.py",
    "losses.py",
    "packing.py",
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
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode histories.

        Args:
            input_ids: Token ids `(batch, length)`, oldest first.
            attention_mask: 1 for items, 0 for padding, on either side, `(batch, length)`.
            inputs_embeds: Item embeddings `(batch, length, embedding_size)` in place of `input_ids`.
            last_only: Give the last column alone, `(batch, 1, hidden_size)`; the last layer computes no other.

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds`, more tokens than there are positions, or
                flex attention on a CPU with heads below 24 units, for which torch's kernel gives wrong scores.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Expected exactly one of `input_ids` and `inputs_embeds`.")
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.look_up(cast(torch.Tensor, input_ids))  # (batch, length, embedding_size)
        check_flex_attention(cast(Bert4RecConfig, self.config), inputs_embeds.device)
        batch, length = inputs_embeds.shape[:2]
        self._check_length(length)
        if attention_mask is None:
            position_ids = torch.arange(length - 1, -1, -1, device=inputs_embeds.device).expand(batch, length)
        else:
            position_ids = positions_from_newest(attention_mask)
        hidden_states = self.embeddings(inputs_embeds, position_ids)
        make_mask = create_causal_mask if self.is_causal else create_bidirectional_mask
        extra: dict[str, Any] = {"past_key_values": None} if self.is_causal else {}
        mask = make_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask, **extra)
        rotary = None
        if self.config.position_embedding_type == "rotary":
            head_size = self.config.hidden_size // self.config.num_attention_heads
            rotary = rotary_angles(position_ids, head_size, self.config.rotary_base)
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

    def at_labels(
        self,
        labelled: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states `(num_labelled, hidden_size)` as in `forward`, without work on padding and unlabelled outputs.

        Args:
            labelled: Where hidden states are asked for `(batch, length)`.
            input_ids: As in `forward`.
            attention_mask: As in `forward`.
            inputs_embeds: As in `forward`.
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
        hidden_states = self.embeddings(embeds, position_ids)  # (num_tokens, hidden_size)
        rotary = None
        if self.config.position_embedding_type == "rotary":
            head_size = self.config.hidden_size // self.config.num_attention_heads
            rotary = rotary_angles(position_ids[None], head_size, self.config.rotary_base)
        for number, layer in enumerate(self.layers, start=1):
            packed = packing.last if number == len(self.layers) else packing.inner
            hidden_states = layer(hidden_states, rotary=rotary, packed=packed)
        return packing.unpack(self.final_norm(hidden_states))


class _ItemScorer(Bert4RecPreTrainedModel):
    """Body, transform and tied item scores; the parent of the masked and the causal model."""

    _tied_weights_keys = {"decoder.weight": "model.embeddings.item_embeddings.weight"}  # noqa: RUF012  # the parent declares it
    _is_causal = False
    label_counts: torch.Tensor | None

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__(config)
        # `Trainer` counts labels by this name, and the causal one would leave out each first label as shifted away.
        self.loss_type = "ForMaskedLM"
        self.model = Bert4RecModel(config, is_causal=self._is_causal)
        self.head = Bert4RecHead(config)
        self.recent = None if config.item_representation == "id" else RecentHistory(self._is_causal)
        self.decoder = nn.Linear(embedding_size(config), config.vocab_size, bias=config.head_bias)
        estimated = config.loss == "sampled_softmax" and config.negative_sampling in ("in_batch", "mixed")
        self.item_blocks: tuple[tuple[int, int], ...] | None = None
        # How often each token was a label so far: in-batch negatives come as often as items are targets.
        self.register_buffer("label_counts", torch.zeros(config.vocab_size) if estimated else None)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.decoder = new_embeddings

    def encode_history(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, newest_last: bool = False
    ) -> torch.Tensor:
        """Representation `(batch, embedding_size)` at the newest token, against which items are scored.

        Args:
            input_ids: Token ids `(batch, length)`; for the masked model the newest one is `[MASK]`.
            attention_mask: 1 for tokens, 0 for padding, `(batch, length)`.
            newest_last: Padding stands on the left: a traced graph then computes no other outputs.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        steps = torch.arange(mask.shape[1], device=mask.device)
        newest = (mask.long() * steps).argmax(dim=-1)  # (batch,)
        labelled = steps == newest[:, None]  # (batch, length)
        inputs = {"input_ids": input_ids}
        if self.recent is not None:
            inputs = {"inputs_embeds": self.model.embeddings.look_up(input_ids)}
        if newest_last and torch.compiler.is_compiling():
            last = self.model(attention_mask=attention_mask, last_only=True, **inputs).last_hidden_state
            representation = self.head(last[:, -1])
        elif self._packs(labelled, attention_mask=mask, **inputs):
            representation = self.head(self.model.at_labels(labelled, attention_mask=mask, **inputs))
        else:
            hidden_states = self.model(attention_mask=attention_mask, **inputs).last_hidden_state
            representation = self.head(hidden_states[torch.arange(mask.shape[0], device=mask.device), newest])
        if self.recent is None:
            return cast(torch.Tensor, representation)
        items = mask.bool() & (input_ids >= self.config.num_special_tokens)
        return cast(torch.Tensor, representation + self.recent.newest(inputs["inputs_embeds"], items, newest))

    def compete_within(self, blocks: Sequence[tuple[int, int]] | None) -> None:
        """Let labels compete with the items of their own block alone: those of one source of several. It is not saved.

        Args:
            blocks: First token of each block and the one after its last, next to each other from the first item to the
                last; None, as in a new or a loaded model: with all items.

        Raises:
            ValueError: Blocks that leave a gap, overlap or end elsewhere.
        """
        if blocks is not None:
            bounds = [self.config.num_special_tokens, *(stop for _, stop in blocks)]
            found = [first for first, _ in blocks]
            if bounds[:-1] != found or bounds != sorted(set(bounds)) or bounds[-1] != self.config.vocab_size:
                raise ValueError(
                    f"`blocks` must divide the tokens {bounds[0]} to {self.config.vocab_size - 1} without a gap, found "
                    f"{list(blocks)}."
                )
        self.item_blocks = None if blocks is None else tuple(blocks)

    def item_table(self) -> torch.Tensor:
        """Embeddings of all tokens `(vocab_size, embedding_size)`, by which items are scored."""
        embeddings = self.model.embeddings
        return self.decoder.weight if embeddings.content is None else embeddings.table()

    @torch.no_grad()
    def fix_items(self) -> None:
        """Work out the embeddings by content once and for all, in place: for serving, not to be trained or saved."""
        embeddings = self.model.embeddings
        if embeddings.content is not None:
            embeddings.item_embeddings.weight = nn.Parameter(embeddings.rows(), requires_grad=False)
            self.decoder.weight = embeddings.item_embeddings.weight
            embeddings.content = None

    @property
    def item_bias(self) -> torch.Tensor | None:
        """Bias of each item, also where PEFT's layer for trainable rows stands around the decoder and hides it."""
        return cast(nn.Linear, getattr(self.decoder, "original_module", self.decoder)).bias

    def score_items(self, representation: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Scores `(…, stop - start)` of the token ids `start … stop - 1`; minus infinity for special tokens."""
        return self._scores(representation, self.item_table(), start, self.config.vocab_size if stop is None else stop)

    def _scores(self, representation: torch.Tensor, table: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        bias = None if self.item_bias is None else self.item_bias[start:stop]
        scores = F.linear(representation, table[start:stop], bias)
        specials = max(self.config.num_special_tokens - start, 0)
        if specials and (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            # A fresh tensor rather than a write in place: autograd and export both take it.
            special = torch.arange(scores.shape[-1], device=scores.device) < specials
            scores = scores.masked_fill(special, float("-inf"))
        elif specials:  # a copy of all scores would take a good part of the product's time
            scores[..., :specials] = float("-inf")
        return scores

    def _outputs(
        self,
        labels: torch.Tensor | None,
        logits_to_keep: int | torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        **inputs: Any,
    ) -> dict[str, Any]:
        labelled = None if labels is None else labels != -100
        # An unknown target ([UNK]) is a miss in the ranking; its score, minus infinity, would spoil the loss.
        items = None if labels is None else labels[labels != -100]
        items = None if items is None else items.masked_fill(items < self.config.num_special_tokens, -100)
        step, recent = None, None
        if self.recent is not None:
            step = self._step_items(items, inputs.get("input_ids"))
            recent, inputs = self._recent(step, labelled, inputs)
        if labelled is not None and self._packs(labelled, **inputs):
            hidden_states = self.model.at_labels(labelled, **inputs)
            outputs = BaseModelOutput(last_hidden_state=hidden_states)
        else:
            outputs = self.model(**inputs)
            hidden_states = outputs.last_hidden_state if labelled is None else outputs.last_hidden_state[labelled]
        if step is None:  # after the body, whose lookup gathers a table that is divided among processes
            step = StepItems(self.item_table())
        loss = None
        if items is None:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            representation = self.head(hidden_states[:, keep])
            if recent is not None:
                representation = representation + recent.view(*hidden_states.shape[:2], -1)[:, keep]
            logits = self._step_scores(representation, step)  # (batch, kept, vocab_size)
        else:
            representation = self.head(hidden_states)  # (num_labelled, embedding_size)
            representation = representation if recent is None else representation + recent
            if self.training and self.config.loss != "full":
                logits = None
                loss = self._bounded_loss(representation, items, num_items_in_batch, step)
            else:
                logits = self._without_rivals(
                    self._step_scores(representation, step), items
                )  # (num_labelled, vocab_size)
                loss = item_cross_entropy(logits, items, num_items_in_batch)
            if self.training and self.config.label_smoothing:
                loss = loss + self._smoothing(representation, items, num_items_in_batch, step)
        return {
            "loss": loss,
            "logits": logits,
            "hidden_states": outputs.hidden_states,
            "attentions": outputs.attentions,
        }

    def _step_items(self, items: torch.Tensor | None, input_ids: torch.Tensor | None) -> StepItems:
        """The embeddings that a step needs: of all items, or for a sampled loss over content of those it touches."""
        config = self.config
        sampled = self.training and config.loss in SAMPLED_LOSSES and not config.label_smoothing
        if self.recent is None or items is None or input_ids is None or not sampled:
            return StepItems(self.item_table())
        targets = items[items != -100]
        negatives = tuple(
            self._negative_sampler(block).draw(targets[(targets >= block[0]) & (targets < block[1])])
            for block in self._blocks()
        )
        ids = torch.cat([input_ids.flatten(), targets, *negatives]).unique()
        return StepItems(self.model.embeddings.rows(ids), ids, negatives)

    def _recent(
        self, step: StepItems, labelled: torch.Tensor | None, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """What the path past the body gives `(num_asked, embedding_size)`, and what the body gets: embeddings."""
        if self.recent is None or (inputs.get("input_ids") is None) == (inputs.get("inputs_embeds") is None):
            return None, inputs  # the body says what is wrong
        ids, embeds, mask = (inputs.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
        if embeds is None:
            embeds = F.embedding(step.places(cast(torch.Tensor, ids)), step.weight)  # (batch, length, embedding_size)
        items = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device) if mask is None else mask.bool()
        if ids is not None:
            items = items & (ids >= self.config.num_special_tokens)
        recent = self.recent(embeds, items, torch.ones_like(items) if labelled is None else labelled)
        return recent, {**inputs, "input_ids": None, "inputs_embeds": embeds}

    def _step_scores(self, representation: torch.Tensor, step: StepItems) -> torch.Tensor:
        if self.recent is None:
            return self.score_items(representation)
        return self._scores(representation, step.weight, 0, self.config.vocab_size)

    def _blocks(self) -> tuple[tuple[int, int], ...]:
        """The blocks of tokens that compete with each other for a label."""
        return self.item_blocks or ((self.config.num_special_tokens, self.config.vocab_size),)

    def _by_block(
        self, representation: torch.Tensor, items: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | int | None]]:
        """Number of each block, what belongs to its labels, and the divisor that all of them share."""
        if self.item_blocks is None:
            yield 0, representation, items, num_items_in_batch
            return
        if self.item_blocks[-1][1] != self.config.vocab_size:
            raise ValueError("The vocabulary has changed: call `compete_within` with the blocks that it has now.")
        if num_items_in_batch is None:
            num_items_in_batch = (items != -100).sum().clamp(min=1)
        for number, (first, stop) in enumerate(self.item_blocks):
            own = (items >= first) & (items < stop)
            yield number, representation[own], items[own], num_items_in_batch

    def _without_rivals(self, logits: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores `(num_labelled, vocab_size)`, minus infinity for items of other blocks than the label's."""
        if self.item_blocks is None:
            return logits
        stops = torch.tensor([stop for _, stop in self.item_blocks], device=logits.device)
        tokens = torch.arange(logits.shape[-1], device=logits.device)
        blocks, own = torch.bucketize(tokens, stops, right=True), torch.bucketize(items, stops, right=True)
        others = (blocks != own[:, None]) & (items >= 0)[:, None]  # an unknown target has no block
        return logits.masked_fill(others, float("-inf"))

    def _negative_sampler(self, block: tuple[int, int]) -> NegativeSampler:
        first, stop = block
        return NegativeSampler(self.config.negative_sampling, stop - first, first, self.config.num_negatives)

    def _packs(
        self,
        labelled: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **options: Any,
    ) -> bool:
        """Whether only real tokens and labelled positions get work: attention can, and nothing asks for the rest."""
        wanted = any(value is not None and value is not False for value in options.values())
        if wanted or self.config.output_hidden_states or self.config.output_attentions:
            return False
        grids = labelled.device.type == "cpu" and self.config._attn_implementation == "sdpa"
        if torch.compiler.is_compiling() or not (grids or is_flash_attention_requested(self.config)):
            return False
        if (input_ids is None) == (inputs_embeds is None):
            return False  # the body says what is wrong
        return attention_mask is None or (
            attention_mask.shape == labelled.shape and not bool((labelled & (attention_mask == 0)).any())
        )

    def _bounded_loss(
        self,
        representation: torch.Tensor,
        items: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        step: StepItems,
    ) -> torch.Tensor:
        """The losses that never hold the scores of all items, from `(num_labelled, embedding_size)`."""
        make = self._chunked_loss if self.config.loss == "chunked" else self._sampled_loss
        parts = self._by_block(representation, items, num_items_in_batch)
        return reduce(add, (make(states, targets, divisor, step, number) for number, states, targets, divisor in parts))

    def _sampled_loss(
        self,
        representation: torch.Tensor,
        items: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        step: StepItems,
        number: int,
    ) -> torch.Tensor:
        config, block = self.config, self._blocks()[number]
        counted = items != -100
        targets = items[counted]
        self._fit_label_counts()
        counts = self.label_counts
        if counts is not None:
            counts.index_add_(0, targets, torch.ones_like(targets, dtype=counts.dtype))
            if self.item_blocks is not None:  # the shares are those within the block
                tokens = torch.arange(len(counts), device=counts.device)
                counts = counts * ((tokens >= block[0]) & (tokens < block[1]))
        sampler = self._negative_sampler(block)
        negatives = sampler.draw(targets) if step.negatives is None else step.negatives[number]
        candidates = self._score_candidates(representation[counted], targets, negatives, step)
        if config.loss == "gbce":
            losses = gbce_losses(candidates, sampler.num_items, config.gbce_t)
        else:
            losses = sampled_softmax_losses(candidates, sampler, counts)
        return divide_by_labels(losses, targets, num_items_in_batch)

    def _smoothing(
        self,
        representation: torch.Tensor,
        items: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        step: StepItems,
    ) -> torch.Tensor:
        """What label smoothing adds to the loss."""
        total = []
        for number, states, targets, divisor in self._by_block(representation, items, num_items_in_batch):
            counted, (first, _) = targets != -100, self._blocks()[number]
            weight, bias = self._up_to(number, step)
            terms = smoothing_terms(states[counted], weight, bias, targets[counted], first)
            total.append(divide_by_labels(terms, targets[counted], divisor))
        return self.config.label_smoothing * reduce(add, total)

    def _up_to(self, number: int, step: StepItems) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rows and biases of the tokens up to the end of a block."""
        stop, weight, bias = self._blocks()[number][1], step.weight, self.item_bias
        if stop == len(weight):  # a slice of all would cost a copy of its gradient
            return weight, bias
        return weight[:stop], None if bias is None else bias[:stop]

    def _chunked_loss(
        self,
        representation: torch.Tensor,
        items: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        step: StepItems,
        number: int,
    ) -> torch.Tensor:
        weight, bias = self._up_to(number, step)
        return chunked_cross_entropy(
            representation,
            weight=weight,
            bias=bias,
            labels=items,
            num_special_tokens=self._blocks()[number][0],
            chunk_size=self.config.loss_chunk_size,
            num_items_in_batch=num_items_in_batch,
        )

    def _score_candidates(
        self, representation: torch.Tensor, target_ids: torch.Tensor, negative_ids: torch.Tensor, step: StepItems
    ) -> Candidates:
        bias = self.item_bias
        found = score_candidates(
            representation,
            weight=step.weight,
            bias=bias if bias is None or step.ids is None else bias[step.ids],
            target_ids=step.places(target_ids),
            negative_ids=step.places(negative_ids),
            sparse=getattr(self.get_input_embeddings(), "sparse", False),
        )
        return replace(found, target_ids=target_ids, negative_ids=negative_ids)

    def _fit_label_counts(self) -> None:
        """Start the estimate of label frequencies anew when the vocabulary has changed."""
        if self.label_counts is not None and len(self.label_counts) != self.config.vocab_size:
            self.label_counts = self.label_counts.new_zeros(self.config.vocab_size)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, _ItemScorer) and module.label_counts is not None:
            initialization.zeros_(module.label_counts)
        # The decoder is tied to the residuals; the head corrects the path past the body, by nothing at first.
        if self.recent is not None and module in (self.decoder, self.head.last(cast(Bert4RecConfig, self.config))):
            initialization.zeros_(cast(nn.Linear, module).weight)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, config and the remote code with the full `auto_map`, so that every Auto class loads it."""
        self._fit_label_counts()
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)


class Bert4RecForMaskedLM(_ItemScorer):
    """Masked item prediction: the item behind each `[MASK]` from what stands on both sides (Sun et al., CIKM 2019)."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        seen_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Score the items.

        Args:
            input_ids: Token ids `(batch, length)`, oldest first, with `[MASK]` where an item is asked for.
            attention_mask: 1 for tokens, 0 for padding `(batch, length)`.
            inputs_embeds: Item embeddings in place of `input_ids`.
            labels: Token id of the item at a position, -100 elsewhere `(batch, length)`.
            logits_to_keep: Without labels, score only the last so many positions, or those of an index tensor.
            num_items_in_batch: Labelled positions of the whole optimiser step.
            seen_ids: Not read; `Trainer` hands it on to the ranking metrics.

        Returns:
            With labels, the loss and logits `(num_labelled, vocab_size)`; without, logits `(batch, kept, vocab_size)`.
            In training mode, a `config.loss` other than `"full"` gives no logits: they are what it avoids. In
            evaluation mode the loss is always cross-entropy over the whole catalogue.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        return MaskedLMOutput(**self._outputs(labels, logits_to_keep, num_items_in_batch, **inputs))


class Bert4RecForCausalLM(_ItemScorer):
    """Next-item prediction at every position (Kang and McAuley, ICDM 2018).

    Labels stand at the position that predicts them: `labels[:, t]` is the item after `input_ids[:, t]`, as
    `DataCollatorForNextItem` makes them. The model shifts nothing, so that positions count from the newest *input*.
    """

    _is_causal = True

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        seen_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """Score the next items; arguments and returns as in [`Bert4RecForMaskedLM.forward`], labels one step on."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        return CausalLMOutput(**self._outputs(labels, logits_to_keep, num_items_in_batch, **inputs))


class Bert4RecForSequenceClassification(Bert4RecPreTrainedModel):
    """A new head over the pooled history, for tasks on users: single label, multi label or regression."""

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__(config)
        self.model = Bert4RecModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify users.

        Args:
            input_ids: Token ids `(batch, length)`.
            attention_mask: 1 for tokens, 0 for padding `(batch, length)`.
            inputs_embeds: Item embeddings in place of `input_ids`.
            labels: Class ids `(batch,)`, 0/1 floats `(batch, num_labels)` or values `(batch,)` for regression.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)
        pooled = self._pool(outputs.last_hidden_state, attention_mask)  # (batch, hidden_size)
        logits = self.classifier(self.dropout(pooled))  # (batch, num_labels)
        loss = None if labels is None else self._loss(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _pool(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if attention_mask is None:
            attention_mask = torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
        if self.config.classifier_pooling == "mean":
            weights = attention_mask.unsqueeze(-1).to(hidden_states.dtype)
            return (hidden_states * weights).sum(1) / weights.sum(1).clamp(min=1)
        steps = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        newest = (attention_mask.long() * steps).argmax(dim=-1)
        return hidden_states[torch.arange(len(newest), device=newest.device), newest]

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kind: str | None = self.config.problem_type
        if kind is None:
            whole = not labels.is_floating_point()
            multi = "single_label_classification" if whole else "multi_label_classification"
            kind = "regression" if self.config.num_labels == 1 else multi
        if kind == "regression":
            return F.mse_loss(logits.float().reshape(labels.shape), labels.float())
        if kind == "single_label_classification":
            return F.cross_entropy(logits.float(), labels)
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


__all__ = [
    "Bert4RecForCausalLM",
    "Bert4RecForMaskedLM",
    "Bert4RecForSequenceClassification",
    "Bert4RecModel",
    "Bert4RecPreTrainedModel",
]
