"""Where a new model starts: at what the log itself says, before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from ..data.interactions import Interactions
from ..data.sequences import to_sequences
from ..models import Bert4RecModel
from ..models.layers import Bert4RecLayer
from ..tokenization import NUM_SPECIAL_TOKENS, SPECIAL_TOKENS, ItemTokenizer
from ..transfer.cooccurrence import (
    CooccurrenceSettings,
    cooccurrence_rows,
    log_counts,
    neighbour_rows,
    set_item_rows,
)
from ..transfer.rows import ItemRows

if TYPE_CHECKING:
    from ..transfer.adoption import Adoption

RESIDUAL_NORM = 0.7  # against content of length 1: the sum of both beats either, on validation
RESIDUAL_SHRINKAGE = 2  # interactions at which a residual has half its length
PASSED_ON = 0.1  # chosen on validation: 0 loses on long histories, 1 on short ones
RECENCY = 9.0  # attention score of a token on itself, which falls to 0 over the distance; 4, 9 and 18 serve alike


def start_from_log(model: PreTrainedModel, histories: Iterable[Any], counts: NDArray[np.int64], *, seed: int) -> None:
    """Start a new model as a recommender by co-occurrence, which training then improves.

    Items that go together in the log start with a large dot product, biases at the logarithm of the counts, and each
    layer passes on a share of what it attends to, with rotary positions mostly the nearest tokens. So the untrained
    model already ranks what stood near the history's items.

    Args:
        model: A new masked or causal model, changed in place. Items that are made of content start as their content,
            and what the co-occurrence adds is their residual.
        histories: Arrow list arrays of token ids to train on, oldest first.
        counts: Interactions of each token `(vocab_size,)`.
        seed: Of what is drawn.
    """
    if model.config.item_representation == "id":
        weight = cast(nn.Embedding, model.get_input_embeddings()).weight
        set_item_rows(model, cooccurrence_rows(histories, counts, size=weight.shape[1], seed=seed))
        pass_on_attended(model, seed=seed)
    else:  # what passes on the history stands beside the body
        start_residuals(model, histories, counts, seed=seed)
    if model.config.position_embedding_type == "rotary":
        attend_to_nearest(model)


def start_residuals(
    model: PreTrainedModel, histories: Iterable[Any], counts: NDArray[np.int64], *, seed: int = 0
) -> None:
    """Start the residuals of items that are made of content at the log's co-occurrence, and biases at its counts.

    Residuals start in the dimensions that content leaves free, so that an item's score is the sum of what its content
    and what its neighbours in the log say. The fewer interactions an item has, the shorter its residual.

    Args:
        model: A masked or causal model, changed in place. With `item_representation="content"`, the biases alone.
        histories: Arrow list arrays of token ids to train on, oldest first.
        counts: Interactions of each token `(vocab_size,)`.
        seed: Of what is drawn.
    """
    config, biases = model.config, log_counts(counts)
    free = config.embedding_size - sum(config.content_ranks())
    rows = torch.zeros(len(biases), config.embedding_size)
    if config.item_representation == "content+id" and free:
        settings = CooccurrenceSettings(row_norm=RESIDUAL_NORM)
        found = cooccurrence_rows(histories, counts, size=free, seed=seed, settings=settings).embeddings
        rows[:, -free:] = found * _trusted(counts)
    set_item_rows(model, ItemRows(rows, biases))


def start_new_items(
    model: PreTrainedModel, histories: Iterable[Any], counts: NDArray[np.int64], *, new: NDArray[np.bool_]
) -> None:
    """Start the new items of a trained model beside the items that they go together with.

    Args:
        model: A masked or causal model, changed in place.
        histories: Arrow list arrays of token ids to train on, oldest first.
        counts: Interactions of each token `(vocab_size,)`.
        new: Which items are new `(num_items,)`; nothing is changed where none is.
    """
    if not new.any():
        return
    rows = neighbour_rows(histories, counts, model=model, new=new)
    if model.config.item_representation != "id":
        rows = ItemRows(rows.embeddings * _trusted(counts)[torch.from_numpy(new)], rows.biases)
    set_item_rows(model, rows, new)


def start_adopted(
    model: PreTrainedModel,
    histories: Iterable[Any],
    counts: NDArray[np.int64],
    *,
    adoption: Adoption,
    seed: int = 0,
) -> None:
    """Start the items of a catalogue that a trained model has adopted, by the log that it is now trained on.

    Where most items are known, the new ones start beside them. Else residuals of two logs would not fit each other, and
    all start at the new log's; what the body adds to content and residuals starts at nothing, as in a new model, for
    it holds of the source's items. The body goes on from what it has learnt.

    Args:
        model: A masked or causal model whose items are made of content, changed in place.
        histories: Arrow list arrays of token ids to train on, oldest first.
        counts: Interactions of each token `(vocab_size,)`.
        adoption: What became of the catalogue; where its content was whitened anew, most items are new.
        seed: Of what is drawn.
    """
    if adoption.whitened:
        start_residuals(model, histories, counts, seed=seed)
        start_corrections(model)
    else:
        start_new_items(model, histories, counts, new=adoption.new)


def start_corrections(model: PreTrainedModel) -> None:
    """Let the head add nothing to the path past the body, and that path compare as in a new model.

    Args:
        model: A masked or causal model whose items are made of content, changed in place.
    """
    config, head, recent = model.config, cast(Any, model).head, cast(Any, model).recent
    with torch.no_grad():
        for weight in head.last(config).parameters():
            weight.zero_()
        for name, value in recent.first_values().items():
            getattr(recent, name).fill_(value)


def anchored_rows(adoption: Adoption, *, from_log: bool) -> dict[str, int]:
    """Rows that L2-SP pulls, by what the checkpoint calls them: special tokens, and known items that keep their start.

    Args:
        adoption: What became of the catalogue.
        from_log: Whether `start_adopted` has started its items, by which known ones may start anew as well.
    """
    specials = {token: row for token, row in adoption.tokenizer.get_vocab().items() if token in SPECIAL_TOKENS}
    return specials if from_log and adoption.whitened else {**specials, **adoption.known}


def _trusted(counts: NDArray[np.int64]) -> torch.Tensor:
    """How much of its residual each item starts with, by its interactions `(num_items, 1)`."""
    seen = torch.from_numpy(counts[NUM_SPECIAL_TOKENS:]).float()[:, None]
    return seen / (seen + RESIDUAL_SHRINKAGE)


def pass_on_attended(model: PreTrainedModel, *, seed: int, share: float = PASSED_ON) -> None:
    """Make each layer add a share of the mean of the (normed) inputs that it attends to.

    Values are turned by a random rotation, since the heads divide their units, and the output layer turns them back.

    Args:
        model: A new masked or causal model, changed in place.
        seed: Of the rotations.
        share: Of the mean. A normed input is `sqrt(hidden_size)` long, an item embedding `row_norm`: with a share of 1,
            the newest item would drown in the mean of the history.
    """
    size, generator = model.config.hidden_size, torch.Generator().manual_seed(seed)
    for layer in cast(Bert4RecModel, model.base_model).layers:
        attention = cast(Bert4RecLayer, layer).attention
        rotation = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q  # (hidden_size, hidden_size)
        with torch.no_grad():
            attention.query_key_value.weight[2 * size :] = rotation
            attention.output.weight.copy_(share * rotation.T)


def attend_to_nearest(model: PreTrainedModel, *, recency: float = RECENCY) -> None:
    """Make each layer attend by distance: weights fall roughly as a power of the steps between two tokens.

    Queries and keys start with one bias in all units. Rotary positions turn both by the distance, so that the score
    is `recency` times the mean cosine of its angles, whatever the tokens are. A masked model depends on it most: its
    `[MASK]` knows nothing but what it attends to.

    Args:
        model: A new masked or causal model with rotary positions, changed in place.
        recency: The score at distance 0.
    """
    size = model.config.hidden_size
    head_size = size // model.config.num_attention_heads
    for layer in cast(Bert4RecModel, model.base_model).layers:
        with torch.no_grad():
            cast(Bert4RecLayer, layer).attention.query_key_value.bias[: 2 * size] = (recency / head_size**0.5) ** 0.5


def histories_and_counts(train: Interactions, tokenizer: ItemTokenizer) -> tuple[list[Any], NDArray[np.int64]]:
    """Whole training histories as Arrow list arrays of token ids, and the interactions of each token."""
    histories = to_sequences(train, tokenizer, unknown="drop").data["input_ids"]
    counts = np.bincount(histories.combine_chunks().values.to_numpy(), minlength=len(tokenizer))
    return histories.chunks, counts
