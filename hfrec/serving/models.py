"""The two kinds of model behind the service: an exported graph, and a checkpoint in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..inference.serving import INT8_FILE, MODEL_FILE, SETTINGS_FILE, OnnxRecommender
from .catalogue import NUM_SPECIAL, Catalogue

Best = tuple[NDArray[np.int64], NDArray[np.float32]]
Mask = NDArray[np.bool_] | None


class ServedModel(Protocol):
    """What the service asks of a model."""

    name: str
    version: str
    kind: str
    catalogue: Catalogue
    filter_seen: bool
    top_k: int
    knows_empty: bool

    def best(self, rows: list[list[int]], top_k: int, filter_seen: bool, allowed: Mask) -> Best:
        """Tokens and scores of the best items of each history `(batch, top_k)`; token 0 where there is none."""

    def alike(self, tokens: Sequence[int], top_k: int, allowed: Mask) -> list[Best]:
        """Tokens and scores of the items most like each token."""


class OnnxModel:
    """What `hfrec export` wrote."""

    kind = "onnx"
    knows_empty = False  # the graph has no prior: an empty history gets what is popular

    def __init__(self, folder: Path, *, int8: bool, num_threads: int) -> None:
        self.recommender = OnnxRecommender.from_pretrained(folder, int8=int8, num_threads=num_threads)
        settings = self.recommender.settings
        counts = settings.get("counts")
        self.catalogue = Catalogue(
            self.recommender.item_ids,
            self.recommender.titles,
            None if counts is None else np.array(counts, dtype=np.int64),
            settings.get("metadata", {}),
        )
        self.name = str(folder)
        self.version = settings.get("sha256", {}).get(INT8_FILE if int8 else MODEL_FILE, "unknown")[:12]
        self.filter_seen, self.top_k = self.recommender.filter_seen, self.recommender.top_k

    def best(self, rows: list[list[int]], top_k: int, filter_seen: bool, allowed: Mask) -> Best:
        """One call of the graph."""
        count = min(top_k, self.top_k)
        return self.recommender.best(rows, count, filter_seen=filter_seen, allowed=allowed)

    def alike(self, tokens: Sequence[int], top_k: int, allowed: Mask) -> list[Best]:
        """By the cosines of the exported vectors."""
        return self.recommender.alike(tokens, top_k, allowed)


class TorchModel:
    """A checkpoint: a folder or a hub id with a revision."""

    kind = "pytorch"

    def __init__(self, name: str, revision: str | None, *, num_threads: int) -> None:
        import torch

        from ..data.inputs import refuse_inputs
        from ..data.repeats import filters_seen
        from ..hub.bars import hide_short_bars
        from ..hub.checkpoint import load_checkpoint
        from ..inference.export import text_columns
        from ..inference.prior import load_prior
        from ..inference.recommend import next_item_collator

        torch.set_num_threads(num_threads)
        hide_short_bars()
        self.model, self.tokenizer = load_checkpoint(name, revision=revision)
        refuse_inputs(self.model, "the service")
        prior = load_prior(name, self.tokenizer, revision=revision)
        self.asked = self.model if prior is None else prior.over(self.model)
        self.collator = next_item_collator(self.asked, self.tokenizer)
        items = self.tokenizer.items
        self.catalogue = Catalogue(
            items["item_id"].to_pylist(),
            items["title"].to_pylist() if "title" in items.column_names else None,
            items["count"].fill_null(0).to_numpy() if "count" in items.column_names else None,
            {column: items[column].to_pylist() for column in text_columns(items)},
        )
        self.name, self.version = name, _version(name, revision)
        self.filter_seen, self.top_k = filters_seen(self.model.config), len(items)
        self.knows_empty = prior is not None

    def best(self, rows: list[list[int]], top_k: int, filter_seen: bool, allowed: Mask) -> Best:
        """As `hfrec.recommend`, which shares this code."""
        import torch

        from ..inference.recommend import Batch, best_of_batch
        from ..scoring import rankable_mask

        rankable = rankable_mask(len(self.tokenizer), allowed=None if allowed is None else torch.from_numpy(allowed))
        arrays = [np.array(row, dtype=np.int64) for row in rows]
        count = min(top_k, self.top_k)
        scores, tokens = best_of_batch(self.asked, self.collator, Batch(arrays), rankable, count, filter_seen)
        # An item that may not be had has no score; there are fewer than were asked for.
        return tokens.masked_fill(scores == -torch.inf, 0).numpy(), scores.numpy()

    def alike(self, tokens: Sequence[int], top_k: int, allowed: Mask) -> list[Best]:
        """As `hfrec.similar_items`."""
        from ..inference.similar import similar_items

        ids = np.array(self.catalogue.item_ids, dtype=object)
        allow = None if allowed is None else ids[allowed[NUM_SPECIAL:]].tolist()
        count = min(top_k, len(ids) if allow is None else len(allow))
        if not count:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in tokens]
        items = [self.catalogue.item_ids[token - NUM_SPECIAL] for token in tokens]
        found = similar_items(self.model, self.tokenizer, items, count, allow=allow)
        codes = self.catalogue.tokens
        return [
            (np.array([codes[row["item_id"]] for row in rows], np.int64), np.array([row["score"] for row in rows]))
            for rows in found
        ]


def load_model(
    name: str, *, revision: str | None = None, int8: bool = False, num_threads: int = 1
) -> OnnxModel | TorchModel:
    """Load a model to serve and let it answer once, so that the first request is not the slowest.

    Args:
        name: Output folder of `hfrec export`, checkpoint folder, or hub id.
        revision: Branch, tag or commit on the hub.
        int8: The quantised graph of an export.
        num_threads: Threads of one call.

    Raises:
        OSError: There is no such model.
        ValueError: It is damaged, or `int8` or `revision` of another kind of model.
        ImportError: A library that it needs is missing.
    """
    folder = Path(name)
    if (folder / SETTINGS_FILE).is_file():
        if revision is not None:
            raise ValueError(f"`revision` is for models of a hub, found {revision!r} with the folder {name}.")
        model: OnnxModel | TorchModel = OnnxModel(folder, int8=int8, num_threads=num_threads)
    elif int8:
        raise ValueError(f"`int8` is for an exported model, and {name} has no {SETTINGS_FILE}: `hfrec export` it.")
    else:
        model = TorchModel(name, revision, num_threads=num_threads)
    model.best([[NUM_SPECIAL]], 1, True, None)
    return model


def _version(name: str, revision: str | None) -> str:
    """The commit of a hub, or the hash of a folder's weights, in short."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    from ..data.files import sha256_of

    commit = extract_commit_hash(str(cached_file(name, "config.json", revision=revision)), None)
    if commit is not None:
        return str(commit)[:12]
    weights = sorted(Path(name).glob("*.safetensors"))
    return sha256_of(weights[0])[:12] if weights else "unknown"
