"""A trained model on a catalogue that it has never seen: its items are made of the same kind of content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..data.item_tables import read_items
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer, check_pair
from .features import check_features, feature_rows, whiten_anew, write_features
from .matching import checked_ids
from .rows import move_rows
from .specification import ContentError, ContentSpecification, content_features

SAME = 0.9  # cosine of an item's content, then and now, below which an equal id is a coincidence
TWIN = 0.98  # cosine from which on an item is one that the model knows under another id, where no other comes as near
BLOCK_CELLS = 2**24  # cosines that are held at a time
FAMILIAR = 0.5  # share of known items from which on the statistics of the content stay as they are


@dataclass(frozen=True)
class Adoption:
    """What became of a catalogue.

    Args:
        tokenizer: Of the new catalogue.
        new: Which items the model did not know `(num_items,)`, in the order of the vocabulary.
        known: Token of each item that it did know, by its id in the old catalogue.
        num_shared: Items that the model knew, by content and mostly by id; they keep bias and residual.
        num_twins: Known items among them whose ids are other ones.
        num_new: Items that it did not know.
        num_namesakes: New ones among them that have the id of a known item by coincidence, and other content.
        num_dropped: Items of the old catalogue that are gone.
        num_bare: Items without any content.
        whitened: Whether the content's mean and spread are those of the new catalogue.
    """

    tokenizer: ItemTokenizer
    new: NDArray[np.bool_]
    known: dict[str, int]
    num_shared: int
    num_twins: int
    num_new: int
    num_namesakes: int
    num_dropped: int
    num_bare: int
    whitened: bool

    def to_dict(self) -> dict[str, Any]:
        """The numbers, for a JSON file."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (bool, int))}

    def __str__(self) -> str:
        anew = "features, mean and spread of the content" if self.whitened else "features"
        twins = f" ({self.num_twins:,} of them under another id, by their content)" if self.num_twins else ""
        namesakes = f" ({self.num_namesakes:,} under the id of another item)" if self.num_namesakes else ""
        bare = f"; {self.num_bare:,} have no content" if self.num_bare else ""
        return (
            f"{self.num_shared + self.num_new:,} items: {self.num_shared:,} known{twins}, {self.num_new:,} "
            f"new{namesakes}, {self.num_dropped:,} dropped{bare}.\nCarried over to the bit: body, adapter, positions, "
            "head, and what known items have learnt.\n"
            f"Made anew: vocabulary, {anew}; residuals and biases of new items."
        )


def adopt_catalogue(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Any,
    *,
    encoder: str | os.PathLike[str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> ItemTokenizer:
    """Take a model whose items are made of content to another catalogue, of which it need not know a single item.

    The body, the adapter, the positions and the head keep their weights to the bit. Where the catalogue is mostly new,
    the content is whitened by its own statistics, drawn to the source's where it has few items. An item is known where
    its id is and its content is alike, since two shops may both have an item 1; and where its content is that of one
    item that the model knows under another id, and of no second one in either catalogue. `model` and `optimizer` are
    changed in place, `tokenizer` is not; when anything fails all are as they were.

    Args:
        model: A model trained with `item_representation` `content` or `content+id`.
        tokenizer: Its tokenizer.
        items: The other catalogue: a table (or file, or data frame) with `item_id` and the columns of content that the
            model's specification names.
        encoder: Where the text encoder lies on this machine, when not where the specification says.
        optimizer: The optimiser of this model; the moments of new items are 0.

    Returns:
        The tokenizer of the other catalogue, with the items' metadata; known items keep their counts.

    Raises:
        ValueError: A model of item ids, fewer than two items, an item twice, content that is missing or made otherwise.

    Example:
        >>> import pyarrow as pa
        >>> from hfrec import Bert4RecConfig, Bert4RecForCausalLM
        >>> from hfrec.transfer import describe_content, set_item_features
        >>> films = pa.table({"item_id": ["1", "2"], "genre": ["war", "war|love"]})
        >>> specification = describe_content(films, category_column="genre")
        >>> shape = {"item_representation": "content", "item_content": specification.to_dict()}
        >>> model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=5, **shape))
        >>> set_item_features(model, content_features(specification, films))
        >>> books = pa.table({"item_id": ["a", "b", "c"], "genre": ["love", "war", None]})
        >>> tokenizer = adopt_catalogue(model, ItemTokenizer.from_items(["1", "2"]), books)
        >>> len(tokenizer), model.config.vocab_size
        (6, 6)
    """
    return adopt(model, tokenizer, items, encoder=encoder, optimizer=optimizer).tokenizer


def adopt(
    model: Any,
    tokenizer: ItemTokenizer,
    items: Any,
    *,
    encoder: str | os.PathLike[str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Adoption:
    """`adopt_catalogue`, which also says what became of the items."""
    check_pair(model, tokenizer)
    if model.config.item_representation == "id":
        raise ValueError(
            "The model knows its items by their ids alone, so it cannot take up others: expected one that was trained "
            "with `--item_representation content` or `content+id`."
        )
    table = read_items(items, "item_id")
    ids = checked_ids("items", table["item_id"].to_pylist())
    if len(ids) < 2:
        raise ContentError(f"A catalogue must hold at least two items, found {len(ids)}: nothing to choose from.")
    specification = ContentSpecification.from_dict(model.config.item_content)
    features = content_features(specification, table, encoder=encoder)
    check_features(model, features, len(ids))
    num_bare = int((features == 0).all(dim=1).sum())
    if num_bare == len(ids):
        columns = ", ".join(specification.columns)
        raise ContentError(
            f"None of the {len(ids):,} `items` has content: expected some in {columns}, to rank by. Fill the columns, "
            "or name yours by `--content_columns`."
        )
    vocabulary = tokenizer.get_vocab()
    sources = [vocabulary[item] - NUM_SPECIAL_TOKENS if item in vocabulary else None for item in ids]
    num_named = len(ids) - sources.count(None)
    stored = model.base_model.embeddings.content.features[NUM_SPECIAL_TOKENS:].float().cpu()
    alike = _alike(stored, features, sources)
    sources = [source if same else None for source, same in zip(sources, alike, strict=True)]
    num_namesakes = num_named - (len(ids) - sources.count(None))
    twins = _twins(stored, features, sources)
    sources = [twins.get(row, source) for row, source in enumerate(sources)]
    num_new = sources.count(None)
    adopted = ItemTokenizer.from_items(ids, metadata=table, counts=_counts(tokenizer, ids, sources))
    new = np.array([source is None for source in sources])
    old_ids = tokenizer.decode_items(source + NUM_SPECIAL_TOKENS for source in sources if source is not None)
    move_rows(model, sources, rows=feature_rows(model, features[torch.from_numpy(new)]), optimizer=optimizer)
    write_features(model, features)
    whitened = num_new > (1 - FAMILIAR) * len(ids)
    if whitened:
        whiten_anew(model, features)
    return Adoption(
        tokenizer=adopted,
        new=new,
        known=dict(zip(old_ids, (np.flatnonzero(~new) + NUM_SPECIAL_TOKENS).tolist(), strict=True)),
        num_shared=len(ids) - num_new,
        num_twins=len(twins),
        num_new=num_new,
        num_namesakes=num_namesakes,
        num_dropped=len(vocabulary) - NUM_SPECIAL_TOKENS - (len(ids) - num_new),
        num_bare=num_bare,
        whitened=whitened,
    )


def _twins(stored: Tensor, features: Tensor, sources: Sequence[int | None]) -> dict[int, int]:
    """Rows of the source for items without one, by row: where content is the same and nobody else's on either side."""
    known, wanted = F.normalize(stored, dim=1), F.normalize(features.float(), dim=1)
    ours, nearest = [], []  # of each item: how many of the source are as it, and the first of them
    theirs = torch.zeros(len(known), dtype=torch.long)
    for block in torch.split(wanted, max(1, BLOCK_CELLS // len(known))):
        same = block @ known.T > TWIN  # (block, num_known)
        ours += same.sum(dim=1).tolist()
        nearest += same.int().argmax(dim=1).tolist()
        theirs += same.sum(dim=0)
    taken = set(sources)
    return {
        row: column
        for row, (count, column) in enumerate(zip(ours, nearest, strict=True))
        if sources[row] is None and count == int(theirs[column]) == 1 and column not in taken
    }


def _alike(stored: Tensor, features: Tensor, sources: Sequence[int | None]) -> list[bool]:
    """Whether each item has the content that the model has under its id."""
    rows = [0 if source is None else source for source in sources]
    cosines = F.cosine_similarity(features.float(), stored[rows], dim=1)
    return [source is not None and bool(cosine > SAME) for source, cosine in zip(sources, cosines, strict=True)]


def _counts(tokenizer: ItemTokenizer, ids: Sequence[str], sources: Sequence[int | None]) -> dict[str, int] | None:
    """How often each known item was seen in training."""
    table = tokenizer.items
    if "count" not in table.column_names:
        return None
    counts = table["count"].to_pylist()
    return {item: counts[source] for item, source in zip(ids, sources, strict=True) if source is not None}
