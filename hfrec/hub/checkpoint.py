"""A checkpoint is one folder: weights, config, tokenizer, items and the code to load them."""

from __future__ import annotations

import os
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from ..models import Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import ItemTokenizer


def load_checkpoint(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, ItemTokenizer]:
    """Load the masked or causal model and the item tokenizer of a checkpoint.

    Args:
        name_or_path: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        kwargs: Handed to `from_pretrained` of the model (`dtype`, `device_map`, …).

    Raises:
        OSError: No such folder or hub id, or damaged weights.
        ValueError: A checkpoint of another model, or a tokenizer of another size.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path, revision=revision)
    except OSError as error:
        raise OSError(
            f"`{name_or_path}` is neither a checkpoint folder nor a model that the hub gives: check the path, or the "
            f"hub id and the connection. {error}"
        ) from error
    if config.model_type != "bert4rec":
        raise ValueError(f"`{name_or_path}` is a checkpoint of {config.model_type!r}, expected one of 'bert4rec'.")
    known = {model.__name__: model for model in (Bert4RecForMaskedLM, Bert4RecForCausalLM)}
    architecture = (config.architectures or ["none"])[0]
    if architecture not in known:
        raise ValueError(f"`{name_or_path}` holds a {architecture}, expected one of {', '.join(known)}.")
    tokenizer = ItemTokenizer.from_pretrained(name_or_path, revision=revision)
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"`{name_or_path}` has a tokenizer of {len(tokenizer)} tokens and a model of {config.vocab_size}: "
            "the folder mixes two checkpoints. Save model and tokenizer into it again."
        )
    try:
        model = known[architecture].from_pretrained(name_or_path, revision=revision or "main", **kwargs)
    except SafetensorError as error:
        raise OSError(f"The weights of `{name_or_path}` are damaged: {error}. Copy or save them again.") from error
    model.train(False)
    return model, tokenizer
