"""The best items for raw item histories, users and catalogue in chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.collators import DataCollatorForNextItem, objective_of
from ..data.inputs import input_names, inputs_of
from ..data.repeats import filters_seen
from ..scoring import ITEM_CHUNK_SIZE, TopItems, chunk_bounds, encode_batch, evaluating, num_rankable, rankable_mask
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, UnknownPolicy, check_pair
from .prior import WithPrior

if TYPE_CHECKING:
    import pyarrow as pa


def recommend(
    model: Any,
    tokenizer: ItemTokenizer,
    histories: Sequence[Sequence[Any]] | pa.Array | pa.ChunkedArray,
    top_k: int = 10,
    *,
    filter_seen: bool | None = True,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    unknown_items: UnknownPolicy = "error",
    batch_size: int = 256,
) -> list[list[dict[str, Any]]]:
    """The `top_k` items that each history's next item most likely is.

    The model reads the newest items of a history that it has positions for; the seen filter reads all of it. No more
    than `batch_size` times 16384 scores exist at a time. Equal scores are ordered by token id.

    Args:
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend`, or one of them with a prior for users without a
            history (`load_prior(folder, tokenizer).over(model)`); computes where it is, its training mode is restored.
        tokenizer: The tokenizer of this model.
        histories: Raw item ids of each user, oldest first, of any length; ids that are not strings are turned into
            strings. Lists, or an Arrow list array. For a model that reads more than items, rows of [`to_requests`].
        top_k: Items for each history.
        filter_seen: Leave out the items of the history; a user with fewer unseen items than `top_k` gets a shorter
            list. None does as the checkpoint says (`model.config.filter_seen`).
        allow: Raw ids that may be recommended; all when None.
        deny: Raw ids that may not be recommended.
        unknown_items: What becomes of an id of a history outside the vocabulary: an error, left out (`drop`) or read
            as `[UNK]` (`unk`).
        batch_size: Histories scored at a time.

    Returns:
        For each history its items, best first: `item_id`, `score` (logit; where a prior has a share, logarithm of
        the probability), `rank` from 1 and, where the tokenizer knows titles, `title`.

    Raises:
        ValueError: An unknown or null item, `top_k` below 1 or above the number of items that may be recommended,
            tokenizer and model of different size, a NaN score, or an empty history with a causal model and no prior.
        TypeError: A history that is not a list of ids, or a model of another kind.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> found = recommend(model, tokenizer, [["a", "b"], ["c"]], top_k=1, deny=["b"])
        >>> [[(item["item_id"], item["rank"]) for item in items] for items in found]
        [[('c', 1)], [('a', 1)]]
    """
    collator = next_item_collator(model, tokenizer)
    check_pair(model, tokenizer)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, found {batch_size}.")
    rankable = rankable_items(tokenizer, allow, deny)
    check_top_k(top_k, num_rankable(rankable))
    rows, inputs = request_rows(model, tokenizer, histories, unknown_items)
    if not isinstance(model, WithPrior):
        check_not_empty(rows, collator.objective)
    filter_seen = filters_seen(model.config) if filter_seen is None else filter_seen
    found: list[list[dict[str, Any]]] = []
    with evaluating(model):
        for start in range(0, len(rows), batch_size):
            place = slice(start, start + batch_size)
            part = Batch(rows[place], start, room=batch_size, inputs=inputs and inputs[place])
            found += name_items(tokenizer, *best_of_batch(model, collator, part, rankable, top_k, filter_seen))
    return found


@dataclass(frozen=True, eq=False)
class Batch:
    """Some histories, and how many there is memory for.

    Args:
        rows: Token ids of each, oldest first.
        first_row: Number of the first one, for messages.
        room: Histories that there is memory for; where there are fewer, more items are scored at a time.
        inputs: Of each the codes of what the model reads beside the items; None for a model of items alone.
    """

    rows: Sequence[NDArray[np.int64]]
    first_row: int = 0
    room: int = 1
    inputs: Sequence[dict[str, Any]] | None = None


def next_item_collator(model: Any, tokenizer: ItemTokenizer) -> DataCollatorForNextItem:
    """What makes batches of histories for a model that is asked for the next item."""
    given: Any = {"max_length": model.config.max_position_embeddings, "inputs": inputs_of(model)}
    return DataCollatorForNextItem(tokenizer, objective_of(model), **given)


@torch.no_grad()
def best_of_batch(
    model: Any, collator: DataCollatorForNextItem, part: Batch, rankable: Tensor, top_k: int, filter_seen: bool
) -> tuple[Tensor, Tensor]:
    """Scores and token ids `(batch, top_k)`, 0 where a user has no further item; `rankable` is `(vocab_size,)`."""
    device = next(model.parameters()).device
    features: list[dict[str, Any]] = [{"input_ids": row} for row in part.rows]
    if part.inputs is not None:
        features = [{**feature, "inputs": codes} for feature, codes in zip(features, part.inputs, strict=True)]
    batch = collator(features)
    representation, seen = encode_batch(model, batch, device), batch["seen_ids"].to(device)
    seen = seen if filter_seen else seen[:, :0]  # (batch, longest)
    rankable, best = rankable.to(device), TopItems(top_k, part.first_row)
    for start, stop in chunk_bounds(len(rankable), ITEM_CHUNK_SIZE * max(1, part.room // len(part.rows))):
        best.update(model.score_items(representation, start, stop), start, rankable, seen, overwrite=True)
    return best.items()


def name_items(tokenizer: ItemTokenizer, scores: Tensor, token_ids: Tensor) -> list[list[dict[str, Any]]]:
    """Rows of a batch in words; one look-up for all of them."""
    rows = [[token for token in row if token] for row in token_ids.tolist()]  # 0 fills the end of a row
    tokens = [token for row in rows for token in row]
    titles: list[dict[str, Any]] = [{}] * len(tokens)
    if "title" in tokenizer.items.column_names:
        places = np.array(tokens, dtype=np.int64) - NUM_SPECIAL_TOKENS
        titles = tokenizer.items.select(["title"]).take(places).to_pylist()
    named = zip(tokenizer.decode_items(tokens), titles, strict=True)
    found = []
    for row, values in zip(rows, scores.tolist(), strict=True):
        ranked = zip(range(1, len(row) + 1), values, named, strict=False)
        found.append(
            [{"item_id": item, "score": score, "rank": rank, **title} for rank, score, (item, title) in ranked]
        )
    return found


def request_rows(
    model: Any, tokenizer: ItemTokenizer, histories: Any, unknown: UnknownPolicy
) -> tuple[list[NDArray[np.int64]], list[dict[str, Any]] | None]:
    """Token ids of each history and, of a model that reads more than items, the codes of its inputs.

    Raises:
        ValueError: Histories of items alone for a model that reads more, or what `encode_histories` refuses.
    """
    inputs = inputs_of(model)
    if not inputs:
        return encode_histories(tokenizer, histories, unknown), None
    rows = list(histories)
    if not all(isinstance(row, dict) and "inputs" in row for row in rows):
        raise ValueError(
            f"`histories` must be rows of `to_requests(log, …, inputs=model.config.inputs)` for this model, which "
            f"reads {input_names(inputs)} beside the items, found items alone. `hfrec recommend` makes them of a log."
        )
    return [np.asarray(row["input_ids"], dtype=np.int64) for row in rows], [row["inputs"] for row in rows]


def encode_histories(
    tokenizer: ItemTokenizer, histories: Sequence[Sequence[Any]] | pa.Array | pa.ChunkedArray, unknown: UnknownPolicy
) -> list[NDArray[np.int64]]:
    """Token ids of each history."""
    if unknown not in ("error", "drop", "unk"):
        raise ValueError(f"`unknown_items` must be 'error', 'drop' or 'unk', found {unknown!r}.")
    ids, sizes = _flatten(histories)
    if isinstance(ids, list):
        if tokenizer.are_few(len(ids)):  # Arrow would take as long as the model's layers for a single request
            found = tokenizer.look_up(ids)
            if None not in found:
                return _rows(np.array(found, dtype=np.int64), sizes)
        import pyarrow as pa

        ids = pa.array(ids, pa.string())
    tokens = tokenizer.encode_column(ids, unknown="drop")
    known = np.ones(len(tokens), dtype=bool)
    if tokens.null_count:
        known = tokens.is_valid().to_numpy(zero_copy_only=False)
        place = int(np.argmin(known))
        row = bisect_right(list(accumulate(sizes)), place)
        item = ids[place].as_py()
        if item is None:
            raise ValueError(f"`histories` must hold item ids, found a null in history {row}. Leave it out.")
        if unknown == "error":
            raise ValueError(
                f"`histories` must hold items of the vocabulary, found {item!r} in history {row}. Leave such items out "
                "(unknown_items='drop'), read them as [UNK] (unknown_items='unk') or add them to the model first."
            )
        tokens = tokens.fill_null(tokenizer.unk_token_id)
    values = tokens.to_numpy(zero_copy_only=False).astype(np.int64)
    rows = _rows(values, sizes)
    if unknown != "drop":
        return rows
    return [row[mask] for row, mask in zip(rows, _rows(known, sizes), strict=True)]


def _rows(values: NDArray[Any], sizes: list[int]) -> list[NDArray[Any]]:
    """The values of each history; `np.split` takes several times as long for one."""
    ends = list(accumulate(sizes))
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _flatten(
    histories: Sequence[Sequence[Any]] | pa.Array | pa.ChunkedArray,
) -> tuple[pa.Array | list[str | None], list[int]]:
    """All ids one after the other as strings, in a list where `histories` is one, and the length of each history."""
    if not isinstance(histories, (list, tuple)):
        import pyarrow as pa

        if isinstance(histories, pa.ChunkedArray):
            histories = histories.combine_chunks()
        if isinstance(histories, pa.Array):
            return _flatten_array(histories)
    for row, history in enumerate(histories):
        if isinstance(history, (str, bytes)) or not hasattr(history, "__len__"):
            raise TypeError(
                f"`histories` must hold one list of item ids a user, found {history!r} as history {row}. For a single "
                "user pass [history]."
            )
    ids = [None if item is None else str(item) for history in histories for item in history]
    return ids, [len(history) for history in histories]


def _flatten_array(histories: pa.Array) -> tuple[pa.Array, list[int]]:
    """`_flatten` of an Arrow array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_list(histories.type) or pa.types.is_large_list(histories.type)):
        raise TypeError(f"`histories` must be an Arrow list array, found {histories.type}. Give one list a user.")
    if histories.null_count:
        raise ValueError(
            f"`histories` must not be null, found {histories.null_count} nulls. Give a new user an empty list."
        )
    return histories.flatten().cast(pa.string()), pc.list_value_length(histories).to_pylist()


def rankable_items(tokenizer: ItemTokenizer, allow: Iterable[Any] | None, deny: Iterable[Any] | None) -> Tensor:
    """True for the token ids that may be recommended `(vocab_size,)`."""
    mask = rankable_mask(len(tokenizer))
    if allow is not None:
        mask = mask & _membership("allow", tokenizer, allow)
    if deny is not None:
        mask = mask & ~_membership("deny", tokenizer, deny)
    return mask


def _membership(name: str, tokenizer: ItemTokenizer, items: Iterable[Any]) -> Tensor:
    if isinstance(items, (str, bytes)):
        raise TypeError(f"`{name}` must be a list of item ids, found {items!r}. Pass [{items!r}].")
    ids = [str(item) for item in items]
    mask = torch.zeros(len(tokenizer), dtype=torch.bool)
    if not ids:
        return mask
    tokens = tokenizer.encode_column(ids, unknown="drop")
    if tokens.null_count:
        unknown = [item for item, known in zip(ids, tokens.is_valid().to_pylist(), strict=True) if not known]
        raise ValueError(
            f"`{name}` must hold items of the vocabulary, found {len(unknown)} others: {', '.join(unknown[:5])}. "
            "Leave them out or add them to the model first."
        )
    places = torch.from_numpy(tokens.to_numpy(zero_copy_only=False).astype(np.int64))
    return mask.index_fill(0, places, True)


def check_top_k(top_k: int, candidates: int) -> None:
    if not 1 <= top_k <= candidates:
        raise ValueError(
            f"`top_k` must be between 1 and the {candidates} items that may be recommended, found {top_k}. Ask for "
            "fewer items or widen `allow` and `deny`."
        )


def check_not_empty(rows: list[NDArray[np.int64]], objective: str) -> None:
    empty = [index for index, row in enumerate(rows) if not len(row)] if objective == "causal" else []
    if empty:
        raise ValueError(
            f"`histories` must each hold a known item for a causal model, found {len(empty)} empty, first history "
            f"{empty[0]}. Give it a prior (`hfrec evaluate --fit_prior true` fits one), or use a masked model."
        )
