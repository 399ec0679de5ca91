"""Fitted baselines and trained networks as the components of a [`Blend`]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..classical.ease import EASEBaseline
from ..classical.popularity import PopularityBaseline
from ..data.inputs import refuse_inputs
from ..models import Blend, BlendConfig
from ..models.modeling_blend import NeighbourComponent, NetworkComponent, PopularityComponent
from ..tokenization import NUM_SPECIAL_TOKENS


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of an item-to-item baseline one after the other, as [`NeighbourComponent`] holds them."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, baseline: Any) -> Table:
        """From the padded table of a fitted baseline; weights of 0 are its padding."""
        ids, weights = baseline.table()
        filled = weights != 0
        if not filled.any():
            raise ValueError(
                f"{type(baseline).__name__} has found no neighbour of any item: expected users with two items or more."
            )
        offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
        return cls(offsets, ids[filled], weights[filled])

    @property
    def longest_row(self) -> int:
        """Neighbours of the item that has most."""
        return int(np.diff(self.offsets).max())


def make_blend(parts: Mapping[str, Any], weights: Sequence[float], *, counts: NDArray[Any]) -> Blend:
    """A blend of fitted parts.

    Args:
        parts: By name, a fitted baseline or a masked or causal model; of a model the weights are shared, not copied.
        weights: One for each part.
        counts: (vocab_size,) training interactions of each token.

    Raises:
        ValueError: No part, parts of another vocabulary, or a table without an entry.

    Example:
        >>> popularity = PopularityBaseline().fit([[3, 4], [4]], vocab_size=5)
        >>> blend = make_blend({"popularity": popularity}, [1.0], counts=popularity.counts)
        >>> blend.encode_history(torch.tensor([[3]])).argmax().item()
        4
    """
    if not parts:
        raise ValueError("A blend needs at least one part, found none. Name a method or a checkpoint.")
    _check_vocabularies(parts, len(counts))
    for part in parts.values():
        if isinstance(part, PreTrainedModel):
            refuse_inputs(part, "a blend")
    tables = {name: Table.of(part) for name, part in parts.items() if hasattr(part, "table")}
    entries = [
        {"name": name, "weight": float(weight), **_entry(part, tables.get(name))}
        for (name, part), weight in zip(parts.items(), weights, strict=True)
    ]
    blend = Blend(BlendConfig(vocab_size=len(counts), components=entries))
    with torch.no_grad():
        blend.popularity.copy_(_shares(counts))
        for (name, part), component in zip(parts.items(), blend.components, strict=True):
            _fill(component, part, tables.get(name))
    blend.train(False)
    return blend


def reweighted(blend: Blend, weights: Sequence[float]) -> Blend:
    """The same parts, of which those with weight 0 are left out."""
    kept = [place for place, weight in enumerate(weights) if weight]
    entries = [{**blend.config.components[place], "weight": float(weights[place])} for place in kept]
    with torch.device("meta"):
        kept_settings = {name: getattr(blend.config, name) for name in ("vocab_size", "floor", "filter_seen")}
        mixed = Blend(BlendConfig(**kept_settings, components=entries))
    mixed.popularity = blend.popularity
    mixed.components = torch.nn.ModuleList(blend.components[place] for place in kept)
    mixed.train(False)
    return mixed


def _entry(part: Any, table: Table | None) -> dict[str, Any]:
    if table is not None:
        scale = "standardised" if isinstance(part, EASEBaseline) else "log_share"
        sizes = {"num_neighbours": len(table.ids), "longest_row": table.longest_row}
        return {"kind": "neighbours", "scale": scale, "decay": float(part.decay), **sizes}
    if isinstance(part, PopularityBaseline):
        return {"kind": "popularity"}
    config = {name: value for name, value in part.config.to_diff_dict().items() if name != "auto_map"}
    return {"kind": "network", "architecture": type(part).__name__, "config": config}


def _fill(component: Any, part: Any, table: Table | None) -> None:
    if isinstance(component, NeighbourComponent) and table is not None:
        component.fill(*map(torch.from_numpy, (table.offsets, table.ids, table.weights)))
    elif isinstance(component, PopularityComponent):
        component.shares.copy_(_shares(part.counts))
    elif isinstance(component, NetworkComponent):
        component.network = part


def _shares(counts: NDArray[Any]) -> torch.Tensor:
    """Counts to shares above 0: what was never taken counts as a tenth of the mean."""
    values = np.asarray(counts, dtype=np.float64)[NUM_SPECIAL_TOKENS:]
    values = values + max(0.1 * values.mean(), 1e-12)
    return torch.from_numpy(np.concatenate([np.zeros(NUM_SPECIAL_TOKENS), values / values.sum()]).astype(np.float32))


def _check_vocabularies(parts: Mapping[str, Any], vocab_size: int) -> None:
    for name, part in parts.items():
        if isinstance(part, PopularityBaseline):
            size = len(part.counts)
        else:
            size = len(part.table()[0]) if hasattr(part, "table") else part.config.vocab_size
        if size != vocab_size:
            raise ValueError(
                f"all parts must score the same {vocab_size} tokens, found {size} in {name!r}. Fit and train them on "
                "one log."
            )
