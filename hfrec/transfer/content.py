"""Items without a history: where they start, learnt from the content of the items that have one.

A ridge regression from content to item space (embedding and bias) is fitted on the warm items in closed form,
`W = (XᵀX + ridge I)⁻¹ XᵀY` with centred X and Y (Hoerl and Kennard, Technometrics 1970), the ridge chosen on warm items
that were held out. What it says of a new item's content is where the new item starts: `add_items(..., rows=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokenization import SPECIAL_TOKENS, ItemTokenizer
from .encoding import Precision, encode_texts
from .matching import checked_ids
from .rows import ItemRows

RIDGES = tuple(10.0**power for power in range(-2, 4))
LEAST_WARM = 10
Start = Literal["ridge", "neighbours", "mean"]


class TextEncoder(Protocol):
    """What `sentence_transformers.SentenceTransformer` offers."""

    def encode(self, sentences: list[str], /) -> Any: ...


@dataclass(frozen=True)
class ContentMap:
    """A fitted ridge regression from features to targets.

    Args:
        weight: `(num_features, num_targets)`.
        feature_mean: `(num_features,)`.
        target_mean: `(num_targets,)`.
        ridge: The strength that was chosen.
        explained: Share of the held-out items' variance that it explained; at or below 0, content says nothing.
    """

    weight: Tensor
    feature_mean: Tensor
    target_mean: Tensor
    ridge: float
    explained: float

    def __call__(self, features: Tensor) -> Tensor:
        """Targets `(n, num_targets)` of features `(n, num_features)`."""
        return (features - self.feature_mean) @ self.weight + self.target_mean


def text_vectors(
    texts: Sequence[str | None],
    encoder: str | Path | TextEncoder,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    precision: Precision = "float32",
    cache: bool = True,
) -> Tensor:
    """Unit vectors of item texts from a pretrained text encoder.

    Args:
        texts: One text for each item; an empty one, or None, gives a row of zeros: no content.
        encoder: Folder or hub id of any `AutoModel` text encoder, pooled by the mean over tokens or as the
            sentence-transformers configuration beside it says; or an object with `encode`, such as a
            `SentenceTransformer`.
        batch_size: Texts encoded at a time.
        max_length: Tokens of a text that are read.
        precision: Of an encoder that is named; bfloat16 is faster on processors that have it, and a little coarser.
        cache: Whether the vectors of a named encoder are kept on disk (in `$HFREC_HOME/text-vectors`, by the digest of
            the text), so that each text is encoded once.

    Returns:
        float32 `(n, width)` on the CPU.

    Raises:
        ValueError: No text at all, an encoder that cannot be loaded, or a sentence-transformers checkpoint with further
            layers.
    """
    full = [row for row, text in enumerate(texts) if text and text.strip()]
    if not full:
        raise ValueError("`texts` must hold at least one text, found none. Check the column of the texts.")
    sentences = [texts[row] or "" for row in full]
    if isinstance(encoder, (str, Path)):
        options: dict[str, Any] = {"max_length": max_length, "precision": precision, "cache": cache}
        encoded = encode_texts(sentences, str(encoder), batch_size=batch_size, **options)
    else:
        encoded = torch.as_tensor(encoder.encode(sentences)).float().cpu()
    vectors = encoded.new_zeros(len(texts), encoded.shape[1])
    vectors[full] = F.normalize(encoded, dim=-1)
    return vectors


def category_vectors(values: Sequence[str | None], *, separator: str = "|") -> Tensor:
    """Multi-hot vectors of categories that stand joined in one text.

    Args:
        values: Such as "Comedy|Drama"; an empty one, or None, gives a row of zeros: no content.
        separator: What joins them.

    Returns:
        float32 `(n, num_categories)`, categories in alphabetical order.

    Raises:
        ValueError: No category at all.

    Example:
        >>> category_vectors(["b", "a|b", None]).tolist()
        [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """
    parts = split_categories(values, separator=separator)
    columns = {name: column for column, name in enumerate(sorted({name for names in parts for name in names}))}
    if not columns:
        raise ValueError("`values` must hold at least one category, found none. Check the column and `separator`.")
    vectors = torch.zeros(len(parts), len(columns))
    pairs = [(row, columns[name]) for row, names in enumerate(parts) for name in names]
    vectors[tuple(torch.tensor(pairs).T)] = 1.0
    return vectors


def split_categories(values: Sequence[str | None], *, separator: str) -> list[list[str]]:
    """The categories of each item, without the blanks around them.

    Example:
        >>> split_categories(["b", "a | b", None], separator="|")
        [['b'], ['a', 'b'], []]
    """
    return [[name.strip() for name in str(value or "").split(separator) if name.strip()] for value in values]


def given_vectors(values: Sequence[Sequence[float] | None]) -> Tensor:
    """Vectors that came with the items, such as embeddings of their images.

    Args:
        values: One vector for each item, all of one width; None gives a row of zeros: no content.

    Returns:
        float32 `(n, width)`.

    Raises:
        ValueError: No vector at all, vectors of different widths, or values that are not finite.

    Example:
        >>> given_vectors([[1, 2], None]).tolist()
        [[1.0, 2.0], [0.0, 0.0]]
    """
    odd = [value for value in values if value is not None and (isinstance(value, str) or not hasattr(value, "__len__"))]
    if odd:
        raise ValueError(f"`values` must hold lists of numbers (Parquet, JSON lines), found {odd[0]!r:.60}.")
    widths = sorted({len(value) for value in values if value is not None})
    if len(widths) != 1 or widths == [0]:
        raise ValueError(f"`values` must hold vectors of one width above 0, found the widths {widths}.")
    rows = [[0.0] * widths[0] if value is None else list(value) for value in values]
    # A table of another library may have made null of NaN.
    vectors = torch.tensor([[math.nan if part is None else part for part in row] for row in rows], dtype=torch.float32)
    if not torch.isfinite(vectors).all():
        raise ValueError("`values` must be finite, found NaN or infinity.")
    return vectors


def join_features(*blocks: Tensor) -> Tensor:
    """Put blocks of features side by side, each centred and with the same weight; rows without content stay zero.

    Args:
        blocks: `(n, width)` each; a row of zeros is an item without content in this block.

    Raises:
        ValueError: No block, or blocks of different lengths.

    Example:
        >>> join_features(torch.tensor([[2.0], [4.0], [0.0]]), torch.tensor([[1.0], [-1.0], [0.0]])).tolist()
        [[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]
    """
    if len({len(block) for block in blocks}) != 1:
        raise ValueError(f"`blocks` must have one row for each item, found lengths {[len(b) for b in blocks]}.")
    scaled = []
    for block in blocks:
        present = block.abs().sum(dim=1) > 0
        centred = (block - block[present].mean(dim=0)).masked_fill(~present[:, None], 0.0)
        scaled.append(centred / centred[present].square().sum(dim=1).mean().sqrt().clamp(min=1e-12))
    return torch.cat(scaled, dim=1)


def fit_content_map(
    features: Tensor, targets: Tensor, *, ridges: Sequence[float] = RIDGES, held_out: float = 0.2, seed: int = 0
) -> ContentMap:
    """Ridge regression in closed form; the ridge with the least squared error on held-out rows, then fitted on all.

    Args:
        features: `(n, num_features)`.
        targets: `(n, num_targets)`.
        ridges: Strengths to choose from.
        held_out: Share of the rows on which the choice is made.
        seed: Of the rows that are held out.

    Raises:
        ValueError: Fewer than 10 rows, different lengths, or values that are not finite.

    Example:
        >>> x = torch.linspace(-1, 1, 50)[:, None]
        >>> mapped = fit_content_map(x, 3 * x + 1)
        >>> round(mapped(torch.tensor([[2.0]])).item(), 2), round(mapped.explained, 2)
        (7.0, 1.0)
    """
    if len(features) != len(targets) or len(features) < LEAST_WARM:
        raise ValueError(
            f"`features` must have at least {LEAST_WARM} rows, one for each of `targets`, found {len(features)} and "
            f"{len(targets)}. With less content, start from the mean."
        )
    if not (torch.isfinite(features).all() and torch.isfinite(targets).all()):
        raise ValueError("`features` and `targets` must be finite, found NaN or infinity.")
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    number = max(1, int(held_out * len(order)))
    check, fit = order[:number], order[number:]
    maps = _ridge_maps(features[fit].double(), targets[fit].double(), ridges)
    left = [float((mapped(features[check].double()) - targets[check]).square().sum()) for mapped in maps]
    best = min(range(len(ridges)), key=left.__getitem__)
    spread = float((targets[check] - targets[fit].mean(dim=0)).square().sum())
    (final,) = _ridge_maps(features.double(), targets.double(), ridges[best : best + 1])
    return ContentMap(
        weight=final.weight.to(targets.dtype),
        feature_mean=final.feature_mean.to(targets.dtype),
        target_mean=final.target_mean.to(targets.dtype),
        ridge=ridges[best],
        explained=1 - left[best] / max(spread, 1e-30),
    )


def content_rows(
    model: Any,
    tokenizer: ItemTokenizer | Mapping[str, int],
    new_items: Sequence[Any],
    items: Sequence[Any],
    features: Tensor,
    *,
    start: Start = "ridge",
    spread: float = 0.0,
    seed: int = 0,
) -> ItemRows:
    """Embeddings and biases at which new items start, from content and the rows of the warm items.

    A new item without content (a row of zeros) starts at the mean of the warm rows plus noise, whatever `start` is.

    Args:
        model: Masked or causal model.
        tokenizer: Its tokenizer, or token id by item id: which items are warm.
        new_items: Raw ids of the items to start, not in `tokenizer`.
        items: Raw ids to which the rows of `features` belong: all new items, and as many warm ones as have content.
        features: `(len(items), num_features)`, such as `join_features(text_vectors(...), category_vectors(...))`.
        start: `ridge` regression; `neighbours`: mean of the 10 warm items whose content is nearest by the cosine;
            `mean`: mean of the warm rows plus a tenth of their standard deviation as noise.
        spread: The rows of a regression or of neighbours lie nearer to the mean than trained rows do. 0 leaves them
            there: new items are well ordered among themselves but hardly ever reach the top of the whole catalogue. 1
            moves them as far out as warm rows lie: they are recommended as often as warm items are, at the expense of
            these. In between, the factor is interpolated geometrically.
        seed: Of the held-out warm items and the noise.

    Returns:
        Rows in the order of `new_items`.

    Raises:
        ValueError: An item twice, a new item that is known or has no row in `features`, content of an item that is
            neither known nor new, or fewer than 10 warm items with content.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForMaskedLM
        >>> tokenizer = ItemTokenizer.from_items([str(number) for number in range(20)])
        >>> model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer)))
        >>> rows = content_rows(model, tokenizer, ["new"], [*map(str, range(20)), "new"], torch.rand(21, 4))
        >>> rows.embeddings.shape, rows.biases.shape
        (torch.Size([1, 64]), torch.Size([1]))
    """
    if start not in ("ridge", "neighbours", "mean"):
        raise ValueError(f"`start` must be 'ridge', 'neighbours' or 'mean', found {start!r}.")
    if not 0.0 <= spread <= 1.0:
        raise ValueError(f"`spread` must lie in [0, 1], found {spread}.")
    vocabulary = dict(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer.get_vocab()
    warm, cold, tokens = _sides(vocabulary, new_items, items, features)
    rows = _item_table(model)  # (vocab_size, embedding_size + 1)
    known = sorted(row for item, row in vocabulary.items() if item not in SPECIAL_TOKENS)
    everywhere = rows[known]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(cold), rows.shape[1], generator=generator)
    found = everywhere.mean(dim=0) + 0.1 * everywhere.std(dim=0) * noise
    present = cold.abs().sum(dim=1) > 0
    if start != "mean" and bool(present.any()):
        scale = warm.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
        if start == "ridge":
            guessed = fit_content_map(warm / scale, rows[tokens], seed=seed)(cold[present] / scale)
        else:
            guessed = _neighbour_mean(warm, rows[tokens], cold[present])
        found[present] = _spread_like(guessed, everywhere, spread)
    return ItemRows(found[:, :-1], found[:, -1])


def _sides(
    vocabulary: Mapping[str, int], new_items: Sequence[Any], items: Sequence[Any], features: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the warm items that have content, of the new items, and token ids of the former."""
    new, ids = checked_ids("new_items", new_items), checked_ids("items", items)
    if features.ndim != 2 or len(features) != len(ids):
        raise ValueError(
            f"`features` must have the shape ({len(ids)}, width), one row for each of `items`, found "
            f"{tuple(features.shape)}."
        )
    if not torch.isfinite(features).all():
        raise ValueError("`features` must be finite, found NaN or infinity.")
    place, wanted = {item: row for row, item in enumerate(ids)}, set(new)
    problems = {
        "`new_items` must not be known": [item for item in new if item in vocabulary],
        "`features` must cover the new items, missing": [item for item in new if item not in place],
        "`items` holds items that are neither known nor new": [
            item for item in ids if item not in wanted and item not in vocabulary
        ],
    }
    for text, found in problems.items():
        if found:
            raise ValueError(f"{text}: {', '.join(found[:5])} ({len(found)} in all). Leave them out, or add them.")
    features = features.float().cpu()
    present = features.abs().sum(dim=1) > 0
    warm = [row for row, item in enumerate(ids) if item not in wanted and bool(present[row])]
    tokens = torch.tensor([vocabulary[ids[row]] for row in warm], dtype=torch.long)
    return features[warm], features[[place[item] for item in new]], tokens


def _item_table(model: Any) -> Tensor:
    """Embedding and bias of each token side by side, `(vocab_size, embedding_size + 1)`; bias 0 without one."""
    weight = model.get_input_embeddings().weight.detach().float().cpu()
    decoder = model.get_output_embeddings()
    bias = None if decoder is None else decoder.bias
    column = weight.new_zeros(len(weight)) if bias is None else bias.detach().float().cpu()
    return torch.cat([weight, column[:, None]], dim=1)


def _neighbour_mean(warm: Tensor, rows: Tensor, cold: Tensor) -> Tensor:
    if len(warm) < LEAST_WARM:
        raise ValueError(f"Expected at least {LEAST_WARM} warm items with content, found {len(warm)}. Use the mean.")
    near = (F.normalize(cold, dim=1) @ F.normalize(warm, dim=1).T).topk(LEAST_WARM, dim=1).indices
    return rows[near].mean(dim=1)  # (num_new, embedding_size + 1)


def _spread_like(guessed: Tensor, rows: Tensor, share: float) -> Tensor:
    """Embeddings moved from the mean; at a share of 1 their mean squared distance to it is that of trained rows."""
    mean = rows[:, :-1].mean(dim=0)
    wide = (rows[:, :-1] - mean).square().sum(dim=1).mean()
    narrow = (guessed[:, :-1] - mean).square().sum(dim=1).mean()
    factor = (wide / narrow.clamp(min=1e-12)).sqrt() ** share
    return torch.cat([mean + (guessed[:, :-1] - mean) * factor, guessed[:, -1:]], dim=1)


def _ridge_maps(features: Tensor, targets: Tensor, ridges: Sequence[float]) -> list[ContentMap]:
    """One map for each ridge, from one eigendecomposition."""
    feature_mean, target_mean = features.mean(dim=0), targets.mean(dim=0)
    x, y = features - feature_mean, targets - target_mean
    values, vectors = torch.linalg.eigh(x.T @ x)
    turned = vectors.T @ (x.T @ y)
    return [
        ContentMap(vectors @ (turned / (values.clamp(min=0) + ridge)[:, None]), feature_mean, target_mean, ridge, 0.0)
        for ridge in ridges
    ]
