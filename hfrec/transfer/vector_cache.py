"""Vectors of texts that were encoded before, on disk: a text goes through an encoder once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

from ..data.catalogs import cache_folder
from ..data.files import whole_file

logger = logging.get_logger(__name__)
DIGEST_SIZE = 32
Digests = NDArray[np.bytes_]


class VectorCache:
    """The vectors of one way of encoding, in parts that are written whole, by the digests of their texts.

    Args:
        key: All that decides a vector but the text: the encoder's files, pooling, length and precision.
        folder: Where caches lie; `$HFREC_HOME/text-vectors` (`~/.cache/hfrec/text-vectors`) when left out.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     cache = VectorCache("an encoder", Path(folder))
        ...     cache.add(["tea"], torch.tensor([[1.0, 2.0]]))
        ...     known, vectors = VectorCache("an encoder", Path(folder)).find(["coffee", "tea"])
        >>> known, vectors.tolist()
        ([1], [[1.0, 2.0]])
    """

    def __init__(self, key: str, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder() / "text-vectors") / hashlib.sha256(key.encode()).hexdigest()[:32]

    def find(self, texts: Sequence[str]) -> tuple[list[int], Tensor]:
        """Which of the texts are known, in order, and their vectors `(num_known, width)`."""
        wanted: dict[bytes, list[int]] = {}
        for row, text in enumerate(texts):
            wanted.setdefault(_digest(text), []).append(row)
        found: dict[int, Tensor] = {}
        for part in sorted(self.folder.glob("*.safetensors")):
            found |= _of_part(part, wanted)
        known = sorted(found)
        return known, torch.stack([found[row] for row in known]) if known else torch.zeros(0, 0)

    def add(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Write the vectors `(len(texts), width)` of texts as one more part."""
        digests = b"".join(map(_digest, texts))
        name = f"{hashlib.sha256(digests).hexdigest()[:32]}-{os.getpid()}.safetensors"  # two processes, two files
        keys = torch.frombuffer(bytearray(digests), dtype=torch.uint8).reshape(-1, DIGEST_SIZE)
        with whole_file(self.folder / name) as draft:
            save_file({"digests": keys, "vectors": vectors.contiguous()}, draft)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _of_part(path: Path, wanted: dict[bytes, list[int]]) -> dict[int, Tensor]:
    """Vectors of a part by the row of their text; each digest that is found is taken out of `wanted`."""
    try:
        with safe_open(path, framework="pt") as part:
            digests: Tensor = part.get_tensor("digests")
            rows = [(row, wanted.pop(key)) for row, key in enumerate(_as_bytes(digests)) if key in wanted]
            vectors = part.get_tensor("vectors") if rows else torch.zeros(0, 0)
    except (SafetensorError, OSError) as error:  # of a disk that was full, or cleared meanwhile
        logger.warning(f"{path} cannot be read ({error}): its texts are encoded again. Remove the file.")
        return {}
    return {place: vectors[row] for row, places in rows for place in places}


def _as_bytes(digests: Tensor) -> list[bytes]:
    raw = digests.numpy().tobytes()
    return [raw[start : start + DIGEST_SIZE] for start in range(0, len(raw), DIGEST_SIZE)]
