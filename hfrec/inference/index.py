"""An approximate index over the items: for catalogues of which scoring every item for every request is too slow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.collators import DataCollatorForNextItem, objective_of
from ..data.inputs import refuse_inputs
from ..data.repeats import filters_seen
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, UnknownPolicy, check_pair
from .recommend import (
    check_not_empty,
    check_top_k,
    encode_histories,
    name_items,
    recommend,
)


class ItemIndex:
    """Inverted file of the item vectors with their biases (Sivic and Zisserman, ICCV 2003), searched by faiss.

    The items are divided into cells around `num_cells` centres (k-means); a request looks into the `num_probes` cells
    whose centres score highest. What it finds has the model's own scores; what lies in other cells is missed, so
    that it is to be measured: `recall`.

    Args:
        model: `Bert4RecForMaskedLM` or `Bert4RecForCausalLM`, on the CPU; the index holds a copy of its item vectors.
        tokenizer: The tokenizer of this model.
        num_cells: Cells; four times the square root of the number of items when None.
        num_probes: Cells looked into. More find more and take longer; all cells find everything.

    Raises:
        ImportError: faiss is not installed.
        ValueError: A tokenizer of another size than the model, or numbers of cells out of range.
    """

    def __init__(
        self, model: Any, tokenizer: ItemTokenizer, *, num_cells: int | None = None, num_probes: int = 16
    ) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ImportError("An approximate index needs faiss: pip install 'hfrec[faiss]'.") from error
        if objective_of(model) == "blend":
            raise ValueError(
                "`model` is a blend, whose scores are no product of vectors: expected a masked or causal model. "
                "Recommend with `recommend`, which scores every item."
            )
        refuse_inputs(model, "an approximate index")
        self.model, self.tokenizer = model.eval(), tokenizer
        check_pair(model, tokenizer)
        vectors = _scoring_vectors(model)  # (num_items, embedding_size + 1)
        cells = num_cells or min(round(4 * len(vectors) ** 0.5), max(1, len(vectors) // 39))  # k-means wants 39 a cell
        if not 1 <= cells <= len(vectors):
            raise ValueError(f"`num_cells` must lie between 1 and the {len(vectors)} items, found {cells}.")
        if num_probes < 1:
            raise ValueError(f"`num_probes` must be at least 1, found {num_probes}.")
        quantizer = faiss.IndexFlatIP(vectors.shape[1])
        self._index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        self._index.train(vectors)
        self._index.add_with_ids(vectors, np.arange(NUM_SPECIAL_TOKENS, len(tokenizer)))
        self._index.nprobe = min(num_probes, cells)

    def recommend(
        self,
        histories: Sequence[Sequence[Any]],
        top_k: int = 10,
        *,
        filter_seen: bool | None = True,
        unknown_items: UnknownPolicy = "error",
        batch_size: int = 256,
    ) -> list[list[dict[str, Any]]]:
        """What [`recommend`] gives, less the items that the index misses; lists may be shorter than `top_k`.

        Args:
            histories: Raw item ids of each user, oldest first.
            top_k: Items for each history.
            filter_seen: Leave out the items of the history; None does as the checkpoint says.
            unknown_items: What becomes of an id outside the vocabulary: `error`, `drop` or `unk`.
            batch_size: Histories encoded and searched at a time.
        """
        filter_seen = filters_seen(self.model.config) if filter_seen is None else filter_seen
        objective = objective_of(self.model)
        check_top_k(top_k, len(self.tokenizer) - NUM_SPECIAL_TOKENS)
        rows = encode_histories(self.tokenizer, histories, unknown_items)
        check_not_empty(rows, objective)
        length = self.model.config.max_position_embeddings
        collator = DataCollatorForNextItem(self.tokenizer, objective, max_length=length)
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = collator([{"input_ids": row} for row in part])
            with torch.no_grad():
                query = self.model.encode_history(batch["input_ids"], batch["attention_mask"])
            seen = [np.unique(row) if filter_seen else row[:0] for row in part]
            found += self._search(query.float().numpy(), seen, top_k)
        return found

    def recall(self, histories: Sequence[Sequence[Any]], top_k: int = 10, **options: Any) -> dict[str, float]:
        """How much of the exact lists the index finds, and the time that both take.

        Args:
            histories: Raw item ids of each user: a sample of those that will come.
            top_k: Items for each history.
            options: Of `recommend`.

        Returns:
            `recall`, the mean share of the exact `top_k` that is found, and `exact_seconds` and `index_seconds`.
        """
        began = time.perf_counter()
        exact = recommend(self.model, self.tokenizer, histories, top_k, **options)
        middle = time.perf_counter()
        found = self.recommend(histories, top_k, **options)
        ended = time.perf_counter()
        shares = [
            len({item["item_id"] for item in one} & {item["item_id"] for item in other}) / max(len(one), 1)
            for one, other in zip(exact, found, strict=True)
        ]
        return {"recall": float(np.mean(shares)), "exact_seconds": middle - began, "index_seconds": ended - middle}

    def _search(self, query: NDArray[np.float32], seen: list[NDArray[np.int64]], top_k: int) -> Any:
        ones = np.ones((len(query), 1), dtype=np.float32)  # the bias of an item is its last coordinate
        width = min(top_k + max((len(row) for row in seen), default=0), self._index.ntotal)
        scores, tokens = self._index.search(np.hstack([query, ones]), width)  # (batch, width) each
        kept_scores, kept_tokens = np.zeros((len(query), top_k), np.float32), np.zeros((len(query), top_k), np.int64)
        for row, (values, ids) in enumerate(zip(scores, tokens, strict=True)):
            keep = (ids > 0) & ~np.isin(ids, seen[row])  # -1 where the cells held no more
            count = min(int(keep.sum()), top_k)
            kept_scores[row, :count], kept_tokens[row, :count] = values[keep][:count], ids[keep][:count]
        return name_items(self.tokenizer, torch.from_numpy(kept_scores), torch.from_numpy(kept_tokens))


def _scoring_vectors(model: Any) -> NDArray[np.float32]:
    """Embedding and bias of each item side by side, float32 `(num_items, embedding_size + 1)`."""
    with torch.no_grad():
        weight = model.item_table()[NUM_SPECIAL_TOKENS:].float().cpu().numpy()
    bias = model.item_bias
    column = np.zeros(len(weight)) if bias is None else bias.detach()[NUM_SPECIAL_TOKENS:].float().cpu().numpy()
    return np.ascontiguousarray(np.hstack([weight, column[:, None]]), dtype=np.float32)
