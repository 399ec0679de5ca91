"""A checkpoint is one folder: weights, config, tokenizer, items and the code to load them."""

from __future__ import annotations

import os
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

from ..models import Bert4RecForCausalLM, Bert4RecForMaskedLM
from ..tokenization import ItemTokenizer

_HUB_PARAMETERS = ("subfolder", "token", "cache_dir", "local_files_only", "force_download")


def load_checkpoint(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, ItemTokenizer]:
    """Load the masked or causal model and the item tokenizer of a checkpoint.

    On a hub, the revision is looked up once and all files are read from that commit, so that a push in between cannot
    mix two versions. No code of the checkpoint is run and no pickle is read.

    Args:
        name_or_path: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        kwargs: Handed to `from_pretrained` of the model (`dtype`, `device_map`, …), and to the tokenizer what concerns
            the hub: `subfolder`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        OSError: No such folder or hub id, no safetensors weights, or damaged ones.
        ValueError: A checkpoint of another model, or a tokenizer of another size.
    """
    hub = {name: kwargs.pop(name) for name in _HUB_PARAMETERS if name in kwargs}
    try:
        config, _ = PreTrainedConfig.get_config_dict(name_or_path, revision=revision or "main", **hub)
    except OSError as error:
        raise OSError(
            f"`{name_or_path}` is neither a checkpoint folder nor a model that the hub gives: check the path, or the "
            f"hub id and the connection. {error}"
        ) from error
    model_class = _model_class(config, name_or_path)
    hub["revision"] = config.get("_commit_hash") or revision or "main"
    tokenizer = ItemTokenizer.from_pretrained(name_or_path, **hub)
    if len(tokenizer) != config.get("vocab_size"):
        raise ValueError(
            f"`{name_or_path}` has a tokenizer of {len(tokenizer)} tokens and a model of {config.get('vocab_size')}: "
            "the folder mixes two checkpoints. Save model and tokenizer into it again."
        )
    try:
        model = model_class.from_pretrained(name_or_path, use_safetensors=True, **hub, **kwargs)
    except SafetensorError as error:
        raise OSError(f"The weights of `{name_or_path}` are damaged: {error}. Copy or save them again.") from error
    model.train(False)
    return model, tokenizer


def _model_class(
    config: dict[str, Any], name_or_path: str | os.PathLike[str]
) -> type[Bert4RecForMaskedLM] | type[Bert4RecForCausalLM]:
    """The class that wrote a checkpoint: a causal model read as a masked one gives wrong scores silently."""
    if config.get("model_type") != "bert4rec":
        raise ValueError(
            f"`{name_or_path}` is a checkpoint of {config.get('model_type')!r}, expected one of 'bert4rec'."
        )
    architecture = (config.get("architectures") or ["none"])[0]
    for model_class in (Bert4RecForMaskedLM, Bert4RecForCausalLM):
        if architecture == model_class.__name__:
            return model_class
    raise ValueError(
        f"`{name_or_path}` holds a {architecture}, expected one of Bert4RecForMaskedLM, Bert4RecForCausalLM."
    )
