"""The pretrained checkpoint at which L2-SP anchors: where its weights and its vocabulary come from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

_WRAPPERS = re.compile(
    r"^(?:module\.|_orig_mod\.|base_model\.model\.)+"
    r"|(?<=\.)(?:base_layer|original_module|modules_to_save\.[^.]+|_checkpoint_wrapped_module|_orig_mod)\."
)


class HasVocabulary(Protocol):
    """A tokenizer, as far as L2-SP looks at it."""

    def get_vocab(self) -> dict[str, int]: ...


def plain_name(name: str) -> str:
    """Name of a parameter without what DDP, `torch.compile` and PEFT put around it.

    Args:
        name (`str`): a name out of `model.named_parameters()`.

    Returns:
        `str`: the name in the model that was wrapped.

    Example:
        >>> plain_name("module.base_model.model.head.dense.base_layer.weight")
        'head.dense.weight'
    """
    return _WRAPPERS.sub("", name)


@dataclass(frozen=True)
class Reference:
    """The pretrained weights, read once and held on the CPU."""

    weights: dict[str, Tensor]
    vocabulary: dict[str, int] | None
    model_type: str | None
    fingerprint: str


def read_reference(reference: Any, revision: str | None, tokenizer: Any) -> Reference:
    vocabulary, model_type = as_vocabulary(tokenizer), None
    if isinstance(reference, str | Path):
        weights = _read_weights(str(reference), revision)
        config, stored = (_read_json(str(reference), name, revision) for name in ("config.json", "tokenizer.json"))
        model_type = (config or {}).get("model_type")
        if vocabulary is None and stored is not None:
            vocabulary = _stored_vocabulary(stored)
    elif isinstance(reference, nn.Module):
        # Not `state_dict()`: buffers are not in the formula, and a tied weight counts once.
        weights = {name: weight.detach() for name, weight in reference.named_parameters()}
        model_type = reference.config.model_type if isinstance(reference, PreTrainedModel) else None
    elif isinstance(reference, Mapping):
        weights = {name: weight.detach() for name, weight in reference.items()}
    else:
        raise ValueError(
            f"`reference`: expected a folder, hub id, state dict or model, found {type(reference).__name__}. A state "
            "dict or model cannot be restored from a checkpoint: pass it again, and leave "
            "`restore_callback_states_from_checkpoint` at False."
        )
    copies = {plain_name(name): weight.cpu().clone() for name, weight in weights.items()}
    return Reference(copies, vocabulary, model_type, _fingerprint(copies, vocabulary))


def _find(reference: str, filename: str, revision: str | None) -> str | None:
    path: str | None = cached_file(reference, filename, revision=revision, _raise_exceptions_for_missing_entries=False)
    return path


def _read_json(reference: str, filename: str, revision: str | None) -> dict[str, Any] | None:
    path = _find(reference, filename, revision)
    try:
        return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`reference`: {path} is damaged ({type(error).__name__}): save the model again.") from error


def _read_weights(reference: str, revision: str | None) -> dict[str, Tensor]:
    """All tensors of a checkpoint, from `model.safetensors` or its shards."""
    single = _find(reference, "model.safetensors", revision)
    if single is not None:
        return load_file(single)
    index = _read_json(reference, "model.safetensors.index.json", revision)
    if index is None:
        pickled = _find(reference, "pytorch_model.bin", revision) is not None
        raise FileNotFoundError(
            f"`reference`: expected model.safetensors in {reference!r}, found "
            + ("only pytorch_model.bin, a pickle, which is not opened" if pickled else "no weights")
            + ". Save the pretrained model there with `save_pretrained`."
        )
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(index["weight_map"].values())):
        path = _find(reference, shard, revision)
        if path is None:
            raise FileNotFoundError(f"`reference`: the shard {shard} of {reference!r} is missing. Save it again.")
        weights.update(load_file(path))
    return weights


def _stored_vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # a Unigram model lists [token, score]
        vocabulary = {token: row for row, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}}


def as_vocabulary(tokenizer: Any) -> dict[str, int] | None:
    """Vocabulary of a tokenizer or mapping; None for what has none, such as an image processor of the Trainer."""
    if isinstance(tokenizer, Mapping):
        return dict(tokenizer)
    get_vocab = getattr(tokenizer, "get_vocab", None)
    return None if get_vocab is None else dict(get_vocab())


def hash_weights(weights: Mapping[str, Tensor]) -> hashlib._Hash:
    """sha256 (of hashlib) over names, types, shapes and bytes of weights, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest


def _fingerprint(weights: Mapping[str, Tensor], vocabulary: Mapping[str, int] | None) -> str:
    """sha256 (hex) of the weights and of the items of their rows."""
    digest = hash_weights(weights)
    digest.update(json.dumps(sorted(vocabulary.items()) if vocabulary else None).encode())
    return digest.hexdigest()
