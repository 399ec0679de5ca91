"""Why an item is recommended: the past items without which the model would have expected it less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.collators import DataCollatorForNextItem, objective_of
from ..data.inputs import refuse_inputs
from ..scoring import ITEM_CHUNK_SIZE, chunk_bounds, encode_batch, evaluating, without_nan
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, UnknownPolicy, check_pair
from .recommend import encode_histories, name_items


def explain(
    model: Any,
    tokenizer: ItemTokenizer,
    history: Sequence[Any],
    items: Sequence[Any],
    top_k: int = 3,
    *,
    unknown_items: UnknownPolicy = "error",
    max_items: int = 100,
) -> list[list[dict[str, Any]]]:
    """The `top_k` past items that carried the score of each recommended item: leave-one-out of the history.

    Each item of the history is taken out in turn, wherever it stands, and the model reads the rest. The contribution
    of `h` to `i` is `log p(i | history) - log p(i | history without h)`, `p` being the softmax over the catalogue: at
    0.69 the item is expected twice as much because of `h`, below 0 it is expected less. Nothing is approximated, so
    that this holds for every model; contributions of items that say the same thing do not add up.

    Args:
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend`, or one of them with a prior.
        tokenizer: The tokenizer of this model.
        history: Raw item ids of one user, oldest first.
        items: Raw ids of the items to be explained, such as those that [`recommend`] gave.
        top_k: Past items for each of them.
        unknown_items: What becomes of an id of the history outside the vocabulary: `error`, `drop` or `unk`.
        max_items: Newest different items that are taken out in turn; each costs one pass of the model.

    Returns:
        For each item the past items, the largest contribution first: `item_id`, `contribution` (natural logarithm)
        and, where the tokenizer knows titles, `title`. An empty history explains nothing: empty lists.

    Raises:
        ValueError: An unknown item, `top_k` or `max_items` below 1, a tokenizer of another size than the model, or a
            NaN score.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> reasons = explain(model, tokenizer, ["a", "b"], items=["c"])[0]
        >>> sorted(reason["item_id"] for reason in reasons)
        ['a', 'b']
    """
    check_pair(model, tokenizer)
    refuse_inputs(model, "an explanation")
    for name, value in (("top_k", top_k), ("max_items", max_items)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, found {value}.")
    (row,) = encode_histories(tokenizer, [history], unknown_items)
    wanted = torch.tensor(tokenizer.encode_column([str(item) for item in items]).to_pylist(), dtype=torch.long)
    newest_first = dict.fromkeys(int(token) for token in row[::-1] if token >= NUM_SPECIAL_TOKENS)
    past = list(newest_first)[:max_items]
    if not past or not len(wanted):
        return [[] for _ in items]
    rows = [row, *(row[row != token] for token in past)]
    scores = _log_probabilities(model, tokenizer, rows, wanted)  # (1 + num_past, num_items)
    contributions = (scores[:1] - scores[1:]).T  # (num_items, num_past)
    best = contributions.sort(dim=1, descending=True, stable=True)
    tokens = torch.tensor(past)[best.indices[:, :top_k]]  # (num_items, top_k)
    named = name_items(tokenizer, best.values[:, :top_k], tokens)
    return [[_as_reason(entry) for entry in entries] for entries in named]


def _as_reason(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in entry.items() if name not in ("score", "rank")}
    return {**kept, "contribution": entry["score"]}


@torch.no_grad()
def _log_probabilities(
    model: Any,
    tokenizer: ItemTokenizer,
    rows: Sequence[NDArray[np.int64]],
    wanted: Tensor,
    batch_size: int = 64,
) -> Tensor:
    """Logarithms of the softmax at the wanted tokens for each history, float64 `(num_rows, num_wanted)`."""
    length = model.config.max_position_embeddings
    collator = DataCollatorForNextItem(tokenizer, objective_of(model), max_length=length)
    device = next(model.parameters()).device
    parts = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            batch = collator([{"input_ids": row} for row in rows[start : start + batch_size]])
            parts.append(_at_tokens(model, batch, device, wanted, first_row=start))
    return torch.cat(parts)


def _at_tokens(model: Any, batch: dict[str, Tensor], device: torch.device, wanted: Tensor, *, first_row: int) -> Tensor:
    """`_log_probabilities` of a batch, the catalogue going by in chunks."""
    states = encode_batch(model, batch, device)  # (batch, embedding_size)
    found, totals = torch.zeros(len(batch["input_ids"]), len(wanted), dtype=torch.float64), []
    for start, stop in chunk_bounds(model.config.vocab_size, ITEM_CHUNK_SIZE):
        scores = without_nan(model.score_items(states, start, stop), start, first_row=first_row).double().cpu()
        here = (wanted >= start) & (wanted < stop)  # (num_wanted,)
        found[:, here] = scores[:, wanted[here] - start]
        totals.append(scores.logsumexp(dim=1))
    return found - torch.stack(totals).logsumexp(dim=0)[:, None]  # (batch, num_wanted)
