"""Item rows on the move: embeddings, head bias and optimiser moments go together, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..tokenization import NUM_SPECIAL_TOKENS


@dataclass(frozen=True)
class ItemRows:
    """Where new items start.

    Args:
        embeddings: Rows of the item embeddings `(num_new, embedding_size)`. With content, the residuals.
        biases: Output biases `(num_new,)`; 0 when None.
        features: Where items are made of content, theirs `(num_new, width)`.
    """

    embeddings: Tensor
    biases: Tensor | None = None
    features: Tensor | None = None


@dataclass(frozen=True)
class _Move:
    """One table of the model with its new content and the new content of its optimiser state."""

    weight: Tensor
    content: Tensor
    state: dict[str, Tensor]


def move_rows(
    model: Any,
    sources: Sequence[int | None],
    *,
    rows: ItemRows | None = None,
    generator: torch.Generator | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Give the item tables of a model new rows: row `i` is the old row `sources[i]`, or a new one where that is None.

    Everything is computed before anything is changed. The parameters stay the same objects, so that an optimiser
    keeps them; their gradients are dropped.

    Args:
        model: Any Bert4Rec model.
        sources: Old row of each item `(num_items,)`, counted without the special tokens; these keep their rows.
        rows: Start of the new items, in their order; None draws embeddings from N(0, `initializer_range`²), bias 0.
        generator: Source of drawn embeddings, on the model's device; torch's global one when None.
        optimizer: Its moments are moved by row, those of new rows are 0.

    Raises:
        ValueError: `rows` of another shape, an optimiser of another model or with a state that is not by row, or
            embeddings that are not a plain `nn.Embedding`.
    """
    embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    if type(embeddings) is not nn.Embedding:
        raise ValueError(
            f"`model` must have a plain nn.Embedding for its items, found {type(embeddings).__name__}. Merge adapters "
            "(`merge_and_unload`) or undo the wrapping first."
        )
    kept = [None if row is None else row + NUM_SPECIAL_TOKENS for row in sources]
    index = [*range(NUM_SPECIAL_TOKENS), *kept]
    weight = embeddings.weight
    fresh = _fresh_embeddings(model, index.count(None), rows, generator)
    contents: dict[Tensor, Tensor] = {weight: fresh}
    if decoder is not None and decoder.weight is not weight:
        contents[decoder.weight] = fresh
    if decoder is not None and decoder.bias is not None:
        contents[decoder.bias] = _fresh_biases(decoder.bias, len(fresh), rows)
    for name, buffer in model.named_buffers():
        if name.endswith("label_counts"):  # what the sampled losses counted so far
            contents[buffer] = buffer.new_zeros(len(fresh))
        elif name.endswith("content.features"):
            contents[buffer] = _fresh_features(buffer, len(fresh), rows)
    _check_optimizer(model, optimizer)
    moves = [
        _Move(table, _taken(table.detach(), index, new), _moved_state(table, index, optimizer))
        for table, new in contents.items()
    ]
    for move in moves:
        move.weight.grad = None
        move.weight.data = move.content
        if optimizer is not None and move.state:
            optimizer.state[move.weight].update(move.state)
    embeddings.num_embeddings = model.config.vocab_size = len(index)
    if decoder is not None:
        decoder.out_features = len(index)


def _taken(old: Tensor, index: Sequence[int | None], new: Tensor) -> Tensor:
    """Rows `index` of the old table; the rows of `new`, in order, where it is None."""
    content = old.new_empty(len(index), *old.shape[1:])
    known = torch.tensor([row is not None for row in index], device=old.device)
    content[known] = old[torch.tensor([row for row in index if row is not None], device=old.device)]
    content[~known] = new.to(old)
    return content


def _fresh_embeddings(model: Any, number: int, rows: ItemRows | None, generator: torch.Generator | None) -> Tensor:
    weight = model.get_input_embeddings().weight
    if rows is None:
        fresh = torch.empty(number, weight.shape[1], dtype=weight.dtype, device=weight.device)
        return fresh.normal_(std=model.config.initializer_range, generator=generator)
    if rows.embeddings.shape != (number, weight.shape[1]):
        raise ValueError(
            f"`rows.embeddings` must have the shape {(number, weight.shape[1])} (new items, embedding_size), found "
            f"{tuple(rows.embeddings.shape)}. Give one row of the model's width for each new item."
        )
    if not torch.isfinite(rows.embeddings).all():
        raise ValueError("`rows.embeddings` must be finite, found NaN or infinity. Check the content they come from.")
    return rows.embeddings.detach()


def _fresh_features(features: Tensor, number: int, rows: ItemRows | None) -> Tensor:
    expected, found = (number, features.shape[1]), None if rows is None else rows.features
    if number and (found is None or tuple(found.shape) != expected):
        raise ValueError(
            f"`rows.features` must hold the features {expected} of the new items, of which the model's items are made: "
            f"found {None if found is None else tuple(found.shape)}. Pass `feature_rows(...)`; on a saved checkpoint, "
            "`hfrec items add`."
        )
    return features.new_zeros(expected) if found is None else found.detach()


def _fresh_biases(bias: Tensor, number: int, rows: ItemRows | None) -> Tensor:
    if rows is None or rows.biases is None:
        return bias.new_zeros(number)
    if rows.biases.shape != (number,):
        raise ValueError(
            f"`rows.biases` must have the shape {(number,)}, found {tuple(rows.biases.shape)}. Give one for each item."
        )
    if not torch.isfinite(rows.biases).all():
        raise ValueError("`rows.biases` must be finite, found NaN or infinity. Check the content they come from.")
    return rows.biases.detach()


def _check_optimizer(model: Any, optimizer: torch.optim.Optimizer | None) -> None:
    if optimizer is None:
        return
    own = {id(weight) for weight in model.parameters()}
    if not any(id(weight) in own for group in optimizer.param_groups for weight in group["params"]):
        raise ValueError("`optimizer` must be the one of `model`, found none of the model's weights in it. Pass both.")


def _moved_state(
    weight: Tensor, index: Sequence[int | None], optimizer: torch.optim.Optimizer | None
) -> dict[str, Tensor]:
    """Moments of a table under its new rows; what has no rows (the step) stays as it is."""
    if optimizer is None:
        return {}
    moved = {}
    for name, value in optimizer.state.get(weight, {}).items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            continue
        if value.shape != weight.shape:
            raise ValueError(
                f"`optimizer` must keep its state by row, found {name!r} of shape {tuple(value.shape)} for a weight of "
                f"{tuple(weight.shape)}. Use Adam, AdamW or SGD, or start the optimiser anew."
            )
        moved[name] = _taken(value, index, value.new_zeros(index.count(None), *value.shape[1:]))
    return moved
