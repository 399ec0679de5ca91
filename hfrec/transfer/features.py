"""Models whose items are their content: frozen features under a learnt adapter (`Bert4RecConfig.item_features`).

Such a model ranks an item that was never trained like any other, as soon as its features are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokenization import NUM_SPECIAL_TOKENS
from .rows import ItemRows

MARKERS = 2  # columns that tell [MASK] and [UNK] from items and from each other


def unit_features(*blocks: Tensor) -> Tensor:
    """Put blocks of features side by side, each row of each block with length 1; rows without content stay zero.

    What an item gets hangs on its own content alone, so that items may come later.

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
    """Write the features of all items into a new model.

    Args:
        model: A Bert4Rec model with `item_features`, whose `embedding_size` is the width of the features plus 2.
        features: `(num_items, width)` in the order of the vocabulary, such as `unit_features` gives.

    Raises:
        ValueError: A model without `item_features`, or features of another shape.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=5, embedding_size=5, item_features=True))
        >>> set_item_features(model, torch.eye(3)[:2])
        >>> model.get_input_embeddings().weight[3:].tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]]
    """
    config, weight = model.config, model.get_input_embeddings().weight
    expected = (config.vocab_size - NUM_SPECIAL_TOKENS, weight.shape[1] - MARKERS)
    if not config.item_features or tuple(features.shape) != expected:
        raise ValueError(
            f"Expected a model with `item_features` and features of the shape {expected} (items, embedding_size - "
            f"{MARKERS}), found `item_features={config.item_features}` and {tuple(features.shape)}."
        )
    with torch.no_grad():
        weight.zero_()
        weight[config.mask_token_id, -2] = weight[config.unk_token_id, -1] = 1.0
        weight[NUM_SPECIAL_TOKENS:, :-MARKERS] = features.to(weight)


def feature_rows(model: Any, features: Tensor) -> ItemRows:
    """Rows of new items for `add_items(..., rows=...)`: their features, and the mean bias of the items so far.

    Args:
        model: A model with `item_features`.
        features: `(num_new, width)`, made as the model's own were.

    Raises:
        ValueError: Features of another width than the model's.
    """
    width = model.get_input_embeddings().weight.shape[1] - MARKERS
    if not model.config.item_features or features.ndim != 2 or features.shape[1] != width:
        raise ValueError(
            f"Expected a model with `item_features` and features of the shape (new items, {width}), found "
            f"`item_features={model.config.item_features}` and {tuple(features.shape)}. Make them as the model's were: "
            "the same encoder, the same categories."
        )
    decoder = model.get_output_embeddings()
    bias = None if decoder is None else decoder.bias
    mean = None if bias is None else bias.detach()[NUM_SPECIAL_TOKENS:].mean().repeat(len(features))
    return ItemRows(F.pad(features.float(), (0, MARKERS)), mean)
