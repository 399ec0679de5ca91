"""Config and models; the files of this folder travel with each checkpoint as remote code."""

from .configuration_bert4rec import Bert4RecConfig
from .configuration_blend import BlendConfig
from .modeling_bert4rec import (
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecForSequenceClassification,
    Bert4RecModel,
)
from .modeling_blend import Blend

__all__ = [
    "Bert4RecConfig",
    "Bert4RecForCausalLM",
    "Bert4RecForMaskedLM",
    "Bert4RecForSequenceClassification",
    "Bert4RecModel",
    "Blend",
    "BlendConfig",
]
