"""The features of a model's items: written into a new model, given to new items, whitened for another catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokenization import NUM_SPECIAL_TOKENS
from .rows import ItemRows

FLAT = 1e-3  # share of the largest spread below which a direction is not blown up
OWN_COVARIANCE, OWN_MEAN = 1000, 30  # items from which on a catalogue's own statistics outweigh the source's


@dataclass(frozen=True)
class Whitening:
    """Statistics of one block of content: how `ContentBlock` takes features to whitened ones.

    Args:
        mean: `(width,)`.
        basis: The source's main axes `(width, rank)`.
        matrix: Symmetric `(rank, rank)`: the same spread in all directions, none of them turned.
    """

    mean: Tensor
    basis: Tensor
    matrix: Tensor


def unit_features(*blocks: Tensor) -> Tensor:
    """Put blocks of features side by side, each row of each block with length 1; rows without content stay zero.

    What an item gets depends on its own content alone, so that items may come later.

    Args:
        blocks: `(n, width)` each; a row of zeros is an item without content in this block.

    Raises:
        ValueError: No block, blocks of different lengths, or values that are not finite.

    Example:
        >>> unit_features(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[-2.0], [1.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929, -1.0], [0.0, 0.0, 1.0]]
    """
    if len({len(block) for block in blocks}) != 1:
        raise ValueError(f"`blocks` must have one row for each item, found lengths {[len(b) for b in blocks]}.")
    if not all(bool(torch.isfinite(block).all()) for block in blocks):
        raise ValueError("`blocks` must be finite, found NaN or infinity.")
    return torch.cat([F.normalize(block.float(), dim=1) for block in blocks], dim=1)


def rows_of(wanted: Sequence[str], items: Sequence[str], features: Tensor) -> Tensor:
    """Features `(len(wanted), width)` of some of the items, from those of all `(len(items), width)`."""
    place = {item: row for row, item in enumerate(items)}
    return features[[place[item] for item in wanted]]


def set_item_features(model: Any, features: Tensor) -> None:
    """Write the features of all items into a new model, and whiten them by their own statistics.

    Args:
        model: A Bert4Rec model whose `item_representation` is `content` or `content+id`.
        features: `(num_items, width)` in the order of the vocabulary, such as `content_features` gives.

    Raises:
        ValueError: A model without content, or features of another shape or that are not finite.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> content = {"blocks": [{"kind": "vectors", "column": "image", "width": 3}]}
        >>> config = Bert4RecConfig(vocab_size=5, item_representation="content", item_content=content)
        >>> model = Bert4RecForMaskedLM(config)
        >>> set_item_features(model, torch.eye(3)[:2])
        >>> model.item_table()[3:].detach().norm(dim=1).round(decimals=4).tolist()
        [1.0, 1.0]
    """
    check_features(model, features, model.config.vocab_size - NUM_SPECIAL_TOKENS)
    write_features(model, features)
    _whiten(model, features, lambda block, part: source_whitening(part, block.basis.shape[1]))


def check_features(model: Any, features: Tensor, number: int) -> None:
    """Refuse features that do not fit a model.

    Raises:
        ValueError: A model without content, or features that are not finite or of another shape than `(number, width)`.
    """
    width = sum(model.config.content_widths())
    if model.config.item_representation == "id" or tuple(features.shape) != (number, width):
        raise ValueError(
            f"Expected a model whose items are made of content and features of the shape {(number, width)} (items, "
            f"width), found `item_representation={model.config.item_representation!r}` and {tuple(features.shape)}. "
            "Make them as the model's were, with `content_features`."
        )
    if not torch.isfinite(features).all():
        raise ValueError("`features` must be finite, found NaN or infinity. Check the content they come from.")


def write_features(model: Any, features: Tensor) -> None:
    """Put features `(num_items, width)` into the model, in place."""
    buffer = model.base_model.embeddings.content.features
    with torch.no_grad():
        buffer[NUM_SPECIAL_TOKENS:] = features.to(buffer)


def source_whitening(features: Tensor, rank: int) -> Whitening:
    """Statistics of the catalogue on which a model is trained; items without content do not count."""
    known = features[(features != 0).any(dim=1)].double()
    mean = known.mean(dim=0) if len(known) else features.new_zeros(features.shape[1]).double()
    covariance = _covariance(known - mean)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :rank]  # (width, rank)
    return Whitening(mean.float(), axes.float(), _inverse_root(axes.T @ covariance @ axes).float())


def other_whitening(features: Tensor, source: Whitening) -> Whitening:
    """Statistics of another catalogue on the source's axes, drawn to the source's where there are few items.

    A catalogue of toys lies in one corner of what beauty products span: whitened by the latter's statistics all toys
    look alike. The axes stay, so that what was learnt of them holds.
    """
    known = features[(features != 0).any(dim=1)].double()
    number, basis, matrix = len(known), source.basis.double(), source.matrix.double()
    mean = (known.sum(dim=0) + OWN_MEAN * source.mean.double()) / (number + OWN_MEAN)
    spread = torch.linalg.inv(matrix @ matrix)  # of the source
    own = _covariance((known - known.mean(dim=0)) @ basis) if number > 1 else torch.zeros_like(spread)
    blended = (number * own + OWN_COVARIANCE * spread) / (number + OWN_COVARIANCE)
    return Whitening(mean.float(), source.basis, _inverse_root(blended).float())


def whiten_anew(model: Any, features: Tensor) -> None:
    """Give a model the statistics of another catalogue `(num_items, width)`, in place."""

    def statistics(block: Any, part: Tensor) -> Whitening:
        return other_whitening(part, Whitening(block.mean.cpu(), block.basis.cpu(), block.whitening.cpu()))

    _whiten(model, features, statistics)


def feature_rows(model: Any, features: Tensor) -> ItemRows:
    """Rows of new items for `add_items(..., rows=...)`: their features, no residual, the mean bias of the items so far.

    Args:
        model: A model whose items are made of content.
        features: `(num_new, width)`, made as the model's own were.

    Raises:
        ValueError: Features of another width than the model's.
    """
    check_features(model, features, len(features))
    decoder = model.get_output_embeddings()
    bias = None if decoder is None else decoder.bias
    mean = None if bias is None else bias.detach()[NUM_SPECIAL_TOKENS:].mean().repeat(len(features))
    return ItemRows(torch.zeros(len(features), model.config.embedding_size), mean, features.float())


def _whiten(model: Any, features: Tensor, statistics: Callable[[Any, Tensor], Whitening]) -> None:
    """Give each block of a model the statistics that its own part of the features asks for."""
    content = model.base_model.embeddings.content
    parts = torch.split(features.float().cpu(), content.widths, dim=1)
    for block, part in zip(content.blocks, parts, strict=True):
        whitening = statistics(block, part)
        with torch.no_grad():
            block.mean.copy_(whitening.mean)
            block.basis.copy_(whitening.basis)
            block.whitening.copy_(whitening.matrix)


def _covariance(centred: Tensor) -> Tensor:
    return centred.T @ centred / max(len(centred), 1)


def _inverse_root(covariance: Tensor) -> Tensor:
    """`C^(-1/2)`, in which nearly flat directions are not blown up."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=max(FLAT * float(values.max()), 1e-12))
    root: Tensor = (vectors / values.sqrt()) @ vectors.T
    return root
