"""Items that are like other items, by what the model has learned of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.collators import objective_of
from ..scoring import ITEM_CHUNK_SIZE, TopItems, chunk_bounds, num_rankable
from ..tokenization import ItemTokenizer, check_pair
from .recommend import check_top_k, name_items, rankable_items


def similar_items(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Sequence[Any],
    top_k: int = 10,
    *,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    batch_size: int = 256,
) -> list[list[dict[str, Any]]]:
    """The `top_k` items most like each of some items, by the cosine of their embeddings; never the item itself.

    Of a blend it is the mean cosine of its networks, by their weights. A blend of tables and popularity alone has no
    embeddings: the score is then the weight of the pair in the table that counts most, and items without an entry are
    left out.

    Args:
        model: `Bert4RecForMaskedLM`, `Bert4RecForCausalLM` or `Blend`.
        tokenizer: The tokenizer of this model.
        items: Raw item ids; ids that are not strings are turned into strings.
        top_k: Items for each of them.
        allow: Raw ids that may be found; all when None.
        deny: Raw ids that may not be found.
        batch_size: Items compared with the catalogue at a time.

    Returns:
        For each item those like it, best first: `item_id`, `score` (cosine, at most 1), `rank` from 1 and, where the
        tokenizer knows titles, `title`.

    Raises:
        ValueError: An item outside the vocabulary, `top_k` or `batch_size` out of range, or a blend of popularity
            alone, which knows nothing of how items are related.
        TypeError: `items` is one text and no list.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> with torch.no_grad():
        ...     model.decoder.weight[5] = 2 * model.decoder.weight[3]
        >>> [(item["item_id"], round(item["score"], 4)) for item in similar_items(model, tokenizer, ["a"], top_k=1)[0]]
        [('c', 1.0)]
    """
    if isinstance(items, (str, bytes)):
        raise TypeError(f"`items` must be a list of item ids, found {items!r}. Pass [{items!r}].")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, found {batch_size}.")
    check_pair(model, tokenizer)
    rankable = rankable_items(tokenizer, allow, deny)
    check_top_k(top_k, num_rankable(rankable))
    tokens = tokenizer.encode_column([str(item) for item in items]).to_pylist()
    compare = Comparison(model)
    found: list[list[dict[str, Any]]] = []
    for start in range(0, len(tokens), batch_size):
        batch = torch.tensor(tokens[start : start + batch_size], device=compare.device)  # (batch,)
        best = TopItems(top_k)
        for first, last in chunk_bounds(len(tokenizer), ITEM_CHUNK_SIZE):
            best.update(compare(batch, first, last), first, rankable.to(compare.device), batch[:, None])
        scores, token_ids = best.items()  # (batch, top_k) each
        found += name_items(tokenizer, scores, token_ids.masked_fill(scores == -torch.inf, 0))
    return found


class Comparison:
    """How alike items are: scores of pairs, `(batch,)` tokens to `(batch, stop - start)`."""

    def __init__(self, model: Any) -> None:
        self.device = next(model.parameters()).device
        self.vectors = item_directions(model)
        self.table: Any = None if self.vectors is not None else _strongest_table(model)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        if self.vectors is not None:
            return self.vectors[tokens] @ self.vectors[start:stop].T
        tokens = tokens[:, None]  # (batch, 1): a history of this item alone
        scores: Tensor = self.table.forward(tokens, torch.ones_like(tokens, dtype=torch.bool))[:, start:stop]
        return scores.masked_fill(scores == 0, -torch.inf)


@torch.no_grad()
def item_directions(model: Any) -> Tensor | None:
    """Vectors whose products are the cosines of [`similar_items`], float32 `(vocab_size, width)`.

    Embeddings of length 1, of a blend those of its networks side by side, each times the root of its share of the
    weights. None of a blend without a network.
    """
    if objective_of(model) != "blend":
        return F.normalize(model.item_table().float(), dim=1)
    parts = zip(model.config.components, model.components, strict=True)
    networks = [(entry["weight"], part.network) for entry, part in parts if entry["kind"] == "network"]
    networks = [(weight, network) for weight, network in networks if weight > 0]
    total = sum(weight for weight, _ in networks)
    vectors = [(weight / total) ** 0.5 * item_directions(network) for weight, network in networks]
    return torch.cat(vectors, dim=1) if vectors else None


def _strongest_table(blend: Any) -> Any:
    parts = zip(blend.config.components, blend.components, strict=True)
    tables = [(entry["weight"], part) for entry, part in parts if entry["kind"] == "neighbours"]
    if not tables:
        raise ValueError(
            "`model` is a blend of popularity alone, which knows nothing of how items are related: expected one with "
            "a network or an item-to-item method. Make it with `hfrec blend`."
        )
    return max(tables, key=lambda pair: pair[0])[1]
