"""Body, transform and tied item scores, with their losses: the parent of the masked and the causal model."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, MaskedLMOutput
from transformers.utils.generic import can_return_tuple, is_flash_attention_requested

from .body import Bert4RecModel, Bert4RecPreTrainedModel
from .catalogue import Catalogue
from .configuration_bert4rec import Bert4RecConfig
from .content import RecentHistory, StepItems
from .hard_negatives import with_hard_negatives
from .layers import Bert4RecHead, embedding_size
from .loss_names import SAMPLED_LOSSES
from .losses import (
    IGNORED,
    Candidates,
    Labelled,
    NegativeSampler,
    divide_by_labels,
    item_cross_entropy,
    sampled_losses,
    seen_items,
    smoothing_terms,
    without_rivals,
    without_seen,
)


class ItemScorer(Bert4RecPreTrainedModel):
    """Body, transform and tied item scores; the parent of the masked and the causal model."""

    output_class: type[MaskedLMOutput] | type[CausalLMOutput]
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
        self.catalogue = Catalogue()
        self.item_blocks: tuple[tuple[int, int], ...] | None = None
        # How often each token was a label so far: in-batch negatives come as often as items are targets.
        self.register_buffer("label_counts", torch.zeros(config.vocab_size) if estimated else None)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.decoder = new_embeddings

    def encode_history(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        inputs: dict[str, torch.Tensor] | None = None,
        newest_last: bool = False,
    ) -> torch.Tensor:
        """Representation `(batch, embedding_size)` at the newest token, against which items are scored.

        Args:
            input_ids: Token ids `(batch, length)`; for the masked model the newest one is `[MASK]`.
            attention_mask: 1 for tokens, 0 for padding, `(batch, length)`.
            inputs: Of each of `config.inputs` the codes `(batch, length)`.
            newest_last: Padding stands on the left: a traced graph then computes no other outputs.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        steps = torch.arange(mask.shape[1], device=mask.device)
        newest = (mask.long() * steps).argmax(dim=-1)  # (batch,)
        labelled = steps == newest[:, None]  # (batch, length)
        given: dict[str, Any] = {"input_ids": input_ids, "inputs": inputs}
        if self.recent is not None:
            given = {"inputs_embeds": self.model.embeddings.look_up(input_ids), "inputs": inputs}
        if newest_last and torch.compiler.is_compiling():
            last = self.model(attention_mask=attention_mask, last_only=True, **given).last_hidden_state
            representation = self.head(last[:, -1])
        elif self._packs(labelled, attention_mask=mask, **given):
            representation = self.head(self.model.at_labels(labelled, attention_mask=mask, **given))
        else:
            hidden_states = self.model(attention_mask=attention_mask, **given).last_hidden_state
            representation = self.head(hidden_states[torch.arange(mask.shape[0], device=mask.device), newest])
        if self.recent is None:
            return cast(torch.Tensor, representation)
        items = mask.bool() & (input_ids >= self.config.num_special_tokens)
        return cast(torch.Tensor, representation + self.recent.newest(given["inputs_embeds"], items, newest))

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
        return self._scores(representation, self.item_table(), start, stop)

    def _scores(
        self, representation: torch.Tensor, table: torch.Tensor, start: int = 0, stop: int | None = None
    ) -> torch.Tensor:
        return self.catalogue.scores(
            representation,
            weight=table,
            bias=self.item_bias,
            start=start,
            stop=self.config.vocab_size if stop is None else stop,
            num_special_tokens=self.config.num_special_tokens,
        )

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
        inputs: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | CausalLMOutput:
        """Score the items.

        Args:
            input_ids: Token ids `(batch, length)`, oldest first; for the masked model `[MASK]` where an item is asked
                for.
            attention_mask: 1 for tokens, 0 for padding `(batch, length)`.
            inputs_embeds: Item embeddings in place of `input_ids`.
            labels: Token id of the item that a position is asked for, -100 elsewhere `(batch, length)`. A causal model
                is asked for the item after the one that stands there.
            logits_to_keep: Without labels, score only the last so many positions, or those of an index tensor.
            num_items_in_batch: Labelled positions of the whole optimiser step.
            seen_ids: Not read; `Trainer` hands it on to the ranking metrics.
            inputs: Of each of `config.inputs` the codes `(batch, length)`, 0 where unknown.

        Returns:
            With labels, the loss and logits `(num_labelled, vocab_size)`; without, logits `(batch, kept, vocab_size)`.
            In training mode, a `config.loss` other than `"full"` gives no logits: they are what it avoids. In
            evaluation mode the loss is always cross-entropy over the whole catalogue.
        """
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        batch |= {"inputs_embeds": inputs_embeds, "inputs": inputs}
        labelled, items = None, None
        if labels is not None:
            labelled = labels != IGNORED
            # An unknown target ([UNK]) is a miss in the ranking; its score, minus infinity, would spoil the loss.
            items = labels[labelled].masked_fill(labels[labelled] < self.config.num_special_tokens, IGNORED)
        step, recent = None, None
        if self.recent is not None:
            step = self._step_items(items, batch.get("input_ids"))
            recent, batch = self._recent(step, labelled, batch)
        if labelled is not None and self._packs(labelled, **batch):
            hidden_states = self.model.at_labels(labelled, **batch)
            outputs = BaseModelOutput(last_hidden_state=hidden_states)
        else:
            outputs = self.model(**batch)
            hidden_states = outputs.last_hidden_state if labelled is None else outputs.last_hidden_state[labelled]
        if step is None:  # after the body, whose lookup gathers a table that is divided among processes
            step = StepItems(self.item_table())
        loss = None
        if items is None:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            representation = self.head(hidden_states[:, keep])
            if recent is not None:
                representation = representation + recent.view(*hidden_states.shape[:2], -1)[:, keep]
            logits = self._scores(representation, step.weight)  # (batch, kept, vocab_size)
        else:
            representation = self.head(hidden_states)  # (num_labelled, embedding_size)
            representation = representation if recent is None else representation + recent
            seen = self._seen(input_ids, labelled, items)
            asked = Labelled(representation, items, num_items_in_batch, step, seen=seen)
            if self.training and self.config.loss != "full":
                logits = None
                loss = self._bounded_loss(asked)
            else:
                scores = self._scores(representation, step.weight)  # (num_labelled, vocab_size)
                logits = without_rivals(scores, items, self.item_blocks)
                loss = item_cross_entropy(without_seen(logits, asked.seen, items), items, num_items_in_batch)
            if self.training and self.config.label_smoothing:
                loss = loss + self._smoothing(asked)
        more = {"hidden_states": outputs.hidden_states, "attentions": outputs.attentions}
        return self.output_class(loss=loss, logits=logits, **more)

    def _seen(self, input_ids: Any, labelled: Any, items: torch.Tensor) -> torch.Tensor | None:
        """The items that a training loss leaves out, as `seen_items` gives them; None where all compete."""
        if not (self.training and self.config.filter_seen and self.config.loss_candidates == "unseen"):
            return None
        return seen_items(input_ids, labelled, items, self.config.num_special_tokens, self._is_causal)

    def _step_items(self, items: torch.Tensor | None, input_ids: torch.Tensor | None) -> StepItems:
        """The embeddings that a step needs: of all items, or for a sampled loss over content of those it touches."""
        config = self.config
        sampled = self.training and config.loss in SAMPLED_LOSSES and not config.label_smoothing
        if self.recent is None or items is None or input_ids is None or not sampled:
            return StepItems(self.item_table())
        targets = items[items != IGNORED]
        negatives = tuple(
            self._negative_sampler(block).draw(targets[(targets >= block[0]) & (targets < block[1])])
            for block in self._blocks()
        )
        ids = torch.cat([input_ids.flatten(), targets, *negatives]).unique()
        return StepItems(self.model.embeddings.rows(ids), ids, negatives)

    def _recent(
        self, step: StepItems, labelled: torch.Tensor | None, batch: dict[str, Any]
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """What the path past the body gives `(num_asked, embedding_size)`, and what the body gets: embeddings."""
        if self.recent is None or (batch.get("input_ids") is None) == (batch.get("inputs_embeds") is None):
            return None, batch  # the body says what is wrong
        ids, embeds, mask = (batch.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
        if embeds is None and step.ids is None and not self.model.embeddings.content.is_whole:
            embeds = self.model.embeddings.look_up(ids)  # (batch, length, embedding_size)
        elif embeds is None:
            embeds = F.embedding(step.places(cast(torch.Tensor, ids)), step.weight)
        items = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device) if mask is None else mask.bool()
        if ids is not None:
            items = items & (ids >= self.config.num_special_tokens)
        recent = self.recent(embeds, items, torch.ones_like(items) if labelled is None else labelled)
        return recent, {**batch, "input_ids": None, "inputs_embeds": embeds}

    def _blocks(self) -> tuple[tuple[int, int], ...]:
        """The blocks of tokens that compete with each other for a label."""
        return self.item_blocks or ((self.config.num_special_tokens, self.config.vocab_size),)

    def _by_block(self, labelled: Labelled) -> Iterator[Labelled]:
        """What belongs to the labels of each block, with the divisor that all of them share."""
        if self.item_blocks is None:
            yield labelled
            return
        if self.item_blocks[-1][1] != self.config.vocab_size:
            raise ValueError("The vocabulary has changed: call `compete_within` with the blocks that it has now.")
        divisor = labelled.num_items_in_batch
        if divisor is None:
            divisor = (labelled.items != IGNORED).sum().clamp(min=1)
        for number, (first, stop) in enumerate(self.item_blocks):
            own = (labelled.items >= first) & (labelled.items < stop)
            yield replace(labelled.where(own), num_items_in_batch=divisor, block=number)

    def _negative_sampler(self, block: tuple[int, int]) -> NegativeSampler:
        first, stop = block
        return NegativeSampler(self.config.negative_sampling, stop - first, first, self.config.num_negatives)

    def _packs(
        self,
        labelled: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        inputs: dict[str, torch.Tensor] | None = None,
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

    def _bounded_loss(self, labelled: Labelled) -> torch.Tensor:
        """The losses that never hold the scores of all items."""
        make = self._chunked_loss if self.config.loss == "chunked" else self._sampled_loss
        return reduce(add, map(make, self._by_block(labelled)))

    def _sampled_loss(self, labelled: Labelled) -> torch.Tensor:
        block, step = self._blocks()[labelled.block], labelled.step
        counted = labelled.where(labelled.items != IGNORED)
        targets = counted.items
        self._fit_label_counts()
        counts = self.label_counts
        if counts is not None:
            counts.index_add_(0, targets, torch.ones_like(targets, dtype=counts.dtype))
            if self.item_blocks is not None:  # the shares are those within the block
                tokens = torch.arange(len(counts), device=counts.device)
                counts = counts * ((tokens >= block[0]) & (tokens < block[1]))
        sampler = self._negative_sampler(block)
        negatives = sampler.draw(targets) if step.negatives is None else step.negatives[labelled.block]
        candidates = self._score_candidates(counted, negatives)
        losses = sampled_losses(candidates, sampler, cast(Bert4RecConfig, self.config), counts)
        return divide_by_labels(losses, targets, labelled.num_items_in_batch)

    def _smoothing(self, labelled: Labelled) -> torch.Tensor:
        """What label smoothing adds to the loss."""
        total = []
        for part in self._by_block(labelled):
            first, weight, bias = self._up_to(part)
            counted = part.items != IGNORED
            terms = smoothing_terms(part.states[counted], weight, bias, part.items[counted], first)
            total.append(divide_by_labels(terms, part.items[counted], part.num_items_in_batch))
        return self.config.label_smoothing * reduce(add, total)

    def _up_to(self, labelled: Labelled) -> tuple[int, torch.Tensor, torch.Tensor | None]:
        """First token of the block that competes, and rows and biases of all tokens up to its end."""
        (first, stop), weight, bias = self._blocks()[labelled.block], labelled.step.weight, self.item_bias
        if stop >= len(weight):  # a slice of all would cost a copy of its gradient
            return first, weight, bias
        return first, weight[:stop], None if bias is None else bias[:stop]

    def _chunked_loss(self, labelled: Labelled) -> torch.Tensor:
        first, weight, bias = self._up_to(labelled)
        return self.catalogue.chunked_cross_entropy(
            labelled.states,
            weight=weight,
            bias=bias,
            labels=labelled.items,
            num_special_tokens=first,
            chunk_size=self.config.loss_chunk_size,
            num_items_in_batch=labelled.num_items_in_batch,
            seen=labelled.seen,
        )

    def _score_candidates(self, labelled: Labelled, negative_ids: torch.Tensor) -> Candidates:
        step, bias, sparse = labelled.step, self.item_bias, getattr(self.get_input_embeddings(), "sparse", False)
        score = self.catalogue.score_candidates
        if step.ids is not None:  # weight and bias are of the step's items alone
            bias = None if bias is None else self.catalogue.take_entries(bias, step.ids, sparse=sparse)
            score, sparse = self.catalogue.score_rows, False
        places = {"target_ids": step.places(labelled.items), "negative_ids": step.places(negative_ids)}
        found = score(labelled.states, weight=step.weight, bias=bias, sparse=sparse, **places)
        found = replace(found, target_ids=labelled.items, negative_ids=negative_ids).without(labelled.seen)
        wanted: dict[str, Any] = {"block": self._blocks()[labelled.block], "count": self.config.num_hard_negatives}
        return with_hard_negatives(found, labelled, bias=bias, sparse=sparse, **wanted)

    def _fit_label_counts(self) -> None:
        """Start the estimate of label frequencies anew when the vocabulary has changed."""
        if self.label_counts is not None and len(self.label_counts) != self.config.vocab_size:
            self.label_counts = self.label_counts.new_zeros(self.config.vocab_size)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ItemScorer) and module.label_counts is not None:
            initialization.zeros_(module.label_counts)
        # The decoder is tied to the residuals; the head corrects the path past the body, by nothing at first.
        if self.recent is not None and module in (self.decoder, self.head.last(cast(Bert4RecConfig, self.config))):
            initialization.zeros_(cast(nn.Linear, module).weight)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, config and the remote code with the full `auto_map`, so that every Auto class loads it."""
        self._fit_label_counts()
        with self.catalogue.saving(self) as weights:
            if weights is not None:
                super().save_pretrained(save_directory, is_main_process, *args, **{**kwargs, **weights})
