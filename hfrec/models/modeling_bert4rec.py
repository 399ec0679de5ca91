"""BERT4Rec-style transformers over item histories: masked, causal and classification heads.

This file and its neighbours travel with every checkpoint, so they import only torch, transformers and each other.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .body import Bert4RecModel, Bert4RecPreTrainedModel
from .configuration_bert4rec import Bert4RecConfig
from .item_scorer import ItemScorer

if TYPE_CHECKING:  # transformers copies what a file of remote code imports, and the pipeline travels with the model
    from .recommendation_pipeline import HistoryPipeline as HistoryPipeline


class Bert4RecForMaskedLM(ItemScorer):
    """Masked item prediction: the item behind each `[MASK]` from what stands on both sides (Sun et al., CIKM 2019)."""

    output_class = MaskedLMOutput


class Bert4RecForCausalLM(ItemScorer):
    """Next-item prediction at every position (Kang and McAuley, ICDM 2018).

    Labels stand at the position that predicts them: `labels[:, t]` is the item after `input_ids[:, t]`, as
    `DataCollatorForNextItem` makes them. The model shifts nothing, so that positions count from the newest *input*.
    """

    output_class = CausalLMOutput
    _is_causal = True


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
        inputs: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify users.

        Args:
            input_ids: Token ids `(batch, length)`.
            attention_mask: 1 for tokens, 0 for padding `(batch, length)`.
            inputs_embeds: Item embeddings in place of `input_ids`.
            inputs: Of each of `config.inputs` the codes `(batch, length)`, 0 where unknown.
            labels: Class ids `(batch,)`, 0/1 floats `(batch, num_labels)` or values `(batch,)` for regression.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        outputs = self.model(inputs=inputs, **batch)
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
