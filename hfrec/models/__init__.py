"""Config and models; the files of this folder travel with each checkpoint as remote code.

A config is read without loading the models: each name is looked for in the file that defines it when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
_FILES = ("configuration_bert4rec", "configuration_blend", "modeling_bert4rec", "modeling_blend")


def __getattr__(name: str) -> object:
    if name in __all__:
        for file in _FILES:
            module = import_module(f".{file}", __name__)
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
