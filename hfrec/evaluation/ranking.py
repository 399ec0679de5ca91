"""Ranks of held-out items over the whole catalogue, in bounded memory.

``rank = 1 + number of other rankable items whose score >= the target's``: ties never help. Rankable is what is not a
special token, is in the allow list if there is one, and, under `filter_seen`, is not in the user's history. A target
that is not rankable itself has rank 0: a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hfrec.evaluation.metrics import ranking_metrics
from hfrec.scoring import ITEM_CHUNK_SIZE, TopItems, chunk_bounds, encode_batch, evaluating, rankable_mask, without_nan
from hfrec.tokenization import IGNORED

PROTOCOLS = ("filter_seen", "unfiltered")  # the order of the columns wherever ranks stand side by side


class HistoryScorer(Protocol):
    """What ranking needs of a model: a representation of the history, and scores for a slice of the catalogue."""

    def encode_history(self, input_ids: Tensor, attention_mask: Tensor) -> Any: ...

    def score_items(self, representation: Any, start: int = 0, stop: int | None = None) -> Tensor: ...


def target_ranks(
    logits: Tensor, targets: Tensor, *, seen_ids: Tensor | None = None, allowed: Tensor | None = None
) -> Tensor:
    """Rank of each target among all items.

    Args:
        logits: (n, vocab_size) scores.
        targets: (n,) token ids; a special token is a miss.
        seen_ids: (n, length) token ids of each user's history, padded with 0; they are not ranked. None ranks them.
        allowed: (vocab_size,) bool, True for the items that may be recommended. None allows all.

    Returns:
        (n,) int64, 1 is best, 0 is a miss.

    Raises:
        ValueError: if a score is NaN, or the shapes or ids do not fit.

    Example:
        >>> logits = torch.tensor([[9.0, 9.0, 9.0, 0.1, 0.7, 0.4]])
        >>> target_ranks(logits, torch.tensor([5])).tolist()
        [2]
        >>> target_ranks(logits, torch.tensor([5]), seen_ids=torch.tensor([[4]])).tolist()
        [1]
    """
    rankable = rankable_mask(logits.shape[1], allowed=allowed).to(logits.device)
    seen = logits.new_zeros((len(logits), 0), dtype=torch.long) if seen_ids is None else seen_ids
    ranks, _ = rank_catalogue(
        lambda start, stop: logits[:, start:stop],
        targets,
        seen_ids=seen,
        rankable=rankable,
        item_chunk_size=logits.shape[1],
    )
    return ranks[:, 0]


def rank_dataset(
    model: torch.nn.Module,
    dataset: Sized,
    collator: Callable[[list[Any]], dict[str, Tensor]],
    *,
    batch_size: int = 256,
    item_chunk_size: int = ITEM_CHUNK_SIZE,
    allowed_items: Iterable[int] | None = None,
    device: torch.device | str | None = None,
    top_k: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Ranks of every row's target over the whole catalogue, with and without the seen filter, in one pass.

    Args:
        model: model with `encode_history` and `score_items`, or one with a prior; its training mode is restored
            afterwards.
        dataset: evaluation rows, as `to_evaluation_sequences` gives them.
        collator: turns rows into `input_ids`, `attention_mask`, `labels` (one labelled position a row) and `seen_ids`.
        batch_size: users scored at a time.
        item_chunk_size: items scored at a time; at most (batch_size, item_chunk_size) scores are held, twice.
        allowed_items: token ids that may be recommended. None allows all items.
        device: where to compute; the model is moved there. None stays where the model is.
        top_k: number of items to recommend for each row, seen items filtered; 0 for none.

    Returns:
        `filter_seen` and `unfiltered`: (n,) int64 ranks in row order; with `top_k` also `recommended`:
        (n, top_k) int64 token ids, best first, filled with 0 where the catalogue ends. A row without a labelled
        position is a miss.

    Raises:
        ValueError: if the data set is empty, a score is NaN, or a row has several labelled positions.
    """
    if len(dataset) == 0:
        raise ValueError("`dataset` must hold at least one row, found none. Check the split and its filters.")
    if device is not None:
        model.to(device)
    place, config = next(model.parameters()).device, cast(Any, model.config)
    rankable = rankable_mask(config.vocab_size, allowed_items=allowed_items).to(place)
    # A DataLoader over a map-style data set keeps the order of the rows.
    loader: Iterable[dict[str, Tensor]] = torch.utils.data.DataLoader(
        dataset,  # type: ignore[arg-type]  # any sized data set with integer indices
        batch_size=batch_size,
        collate_fn=collator,
    )
    scorer = cast(HistoryScorer, model)  # a class loaded from the hub has the methods, but not our type
    with evaluating(model):
        parts = [_rank_batch(scorer, batch, rankable, item_chunk_size, top_k, place) for batch in loader]
    return collect_ranks(parts)


@torch.no_grad()
def _rank_batch(
    model: HistoryScorer,
    batch: dict[str, Tensor],
    rankable: Tensor,
    item_chunk_size: int,
    top_k: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    missing = [name for name in ("input_ids", "attention_mask", "labels", "seen_ids") if name not in batch]
    if missing:
        raise ValueError(
            f"`collator` must give input_ids, attention_mask, labels and seen_ids, found {sorted(batch)}. "
            "Use DataCollatorForNextItem on rows with a `target`."
        )
    targets, _ = _row_targets(batch["labels"].to(device))
    representation = encode_batch(model, batch, device)
    return rank_catalogue(
        lambda start, stop: model.score_items(representation, start, stop),
        targets,
        seen_ids=batch["seen_ids"].to(device),
        rankable=rankable,
        item_chunk_size=item_chunk_size,
        top_k=top_k,
    )


def rank_catalogue(
    score_chunk: Callable[[int, int], Tensor],
    targets: Tensor,
    *,
    seen_ids: Tensor,
    rankable: Tensor,
    item_chunk_size: int,
    top_k: int = 0,
) -> tuple[Tensor, Tensor]:
    """Ranks of one batch of users, the catalogue being scored chunk by chunk.

    The score of a target is read out of the chunk that it is then compared in: a score computed on its own can
    differ in the last bit, which would turn ties into wins.

    Args:
        score_chunk: gives the (n, stop - start) scores of token ids start..stop; the same call gives the same bits.
        targets: (n,) token ids.
        seen_ids: (n, length) token ids of the histories, padded with 0 or a negative number.
        rankable: (vocab_size,) bool, as `rankable_mask` gives it.
        item_chunk_size: items scored at a time.
        top_k: number of unseen items to recommend.

    Returns:
        (n, 2) int64 ranks, columns as in `PROTOCOLS`, and (n, top_k) int64 recommended token ids.

    Raises:
        ValueError: if a score is NaN, an id lies outside the vocabulary or a size is out of range.
    """
    vocab_size = len(rankable)
    _check_ids(targets, seen_ids, vocab_size, item_chunk_size)
    seen = seen_ids.clamp(min=0).sort(dim=1).values  # (n, length)
    first = torch.ones_like(seen, dtype=torch.bool)
    first[:, 1:] = seen[:, 1:] != seen[:, :-1]  # an item seen twice is filtered once
    bounds = chunk_bounds(vocab_size, item_chunk_size)
    # Two passes, the second backwards: the chunk scored last is used again, so that one chunk is scored only once.
    scored = lru_cache(maxsize=1)(lambda start, stop: without_nan(score_chunk(start, stop), start))
    target_scores = _scores_of(targets, scored, bounds)  # (n,)
    counts = torch.zeros((len(targets), 2), dtype=torch.long, device=targets.device)
    best = TopItems(top_k)
    for start, stop in reversed(bounds):
        scores = scored(start, stop)  # (n, stop - start)
        local, inside = (seen - start).clamp(0, stop - start - 1), (seen >= start) & (seen < stop)
        rival = (scores >= target_scores[:, None]) & rankable[start:stop]
        rival &= torch.arange(start, stop, device=targets.device) != targets[:, None]
        unfiltered = rival.sum(dim=1)
        counts[:, 1] += unfiltered
        counts[:, 0] += unfiltered - (rival.gather(1, local) & inside & first).sum(dim=1)
        if top_k:
            best.update(scores, start, rankable, seen)
    possible = torch.stack([rankable[targets] & ~(seen == targets[:, None]).any(dim=1), rankable[targets]], dim=1)
    recommended = best.items()[1] if top_k else seen.new_zeros((len(targets), 0))
    return torch.where(possible, counts + 1, 0), recommended


def collect_ranks(parts: Sequence[tuple[Tensor, Tensor]]) -> dict[str, NDArray[np.int64]]:
    """Join the (ranks, recommended) of batches into the arrays that `rank_dataset` returns."""
    ranks = torch.cat([ranks.cpu() for ranks, _ in parts]).numpy()  # (n, 2)
    result: dict[str, NDArray[np.int64]] = {name: ranks[:, column] for column, name in enumerate(PROTOCOLS)}
    recommended = torch.cat([items.cpu() for _, items in parts]).numpy()  # (n, top_k)
    if recommended.shape[1]:
        result["recommended"] = recommended
    return result


def preprocess_ranks(logits: Tensor | tuple[Tensor, ...], labels: tuple[Tensor, Tensor] | Tensor | None) -> Tensor:
    """`preprocess_logits_for_metrics` of the stock Trainer: keep two ranks a row instead of the logits.

    Needs `TrainingArguments(label_names=["labels", "seen_ids"])`.

    Args:
        logits: (num_labelled, vocab_size), rows in the order of the labelled positions, or a tuple that starts with it.
        labels: `labels` (batch, length), -100 but for at most one position a row, and `seen_ids` (batch, n) padded
            with 0 or a negative number.

    Returns:
        (batch, 2) int64: the rank with seen items filtered, and unfiltered. A row without a label is a miss: 0.

    Raises:
        ValueError: if the labels are not that pair, a row has several labels, or a score is NaN.

    Example:
        >>> logits = torch.tensor([[-torch.inf] * 3 + [0.1, 0.7, 0.4]])
        >>> labels = torch.tensor([[-100, 5], [-100, -100]])
        >>> preprocess_ranks(logits, (labels, torch.tensor([[4], [3]]))).tolist()
        [[1, 2], [0, 0]]
    """
    scores = logits if isinstance(logits, Tensor) else logits[0]
    if labels is None or isinstance(labels, Tensor) or len(labels) != 2:
        found = (
            "nothing" if labels is None else "one tensor" if isinstance(labels, Tensor) else f"{len(labels)} tensors"
        )
        raise ValueError(
            f"`labels` must be the pair of tensors (labels, seen_ids), found {found}. Set "
            'TrainingArguments(label_names=["labels", "seen_ids"], remove_unused_columns=False) and evaluate through '
            "DataCollatorForNextItem, which gives both."
        )
    targets, labelled = _row_targets(labels[0])
    if len(scores) != int(labelled.sum()):
        raise ValueError(
            f"`logits` must have one row for each of the {int(labelled.sum())} labelled positions, found "
            f"{len(scores)}. Give the model its `labels`."
        )
    ranks, _ = rank_catalogue(
        lambda start, stop: scores[:, start:stop],
        targets[labelled],
        seen_ids=labels[1][labelled],
        rankable=rankable_mask(scores.shape[1]).to(scores.device),
        item_chunk_size=scores.shape[1],
    )
    return torch.zeros((len(targets), 2), dtype=torch.long, device=scores.device).masked_scatter(
        labelled[:, None], ranks
    )


def make_compute_metrics(ks: Sequence[int] = (5, 10, 20)) -> Callable[[Any], dict[str, float]]:
    """`compute_metrics` of the stock Trainer for the ranks that `preprocess_ranks` leaves.

    Args:
        ks: cut-offs.

    Returns:
        Function from an `EvalPrediction` to `ndcg@10` (seen items filtered), `unfiltered_ndcg@10` and so on. The
        Trainer puts `eval_` before them.

    Example:
        >>> from types import SimpleNamespace
        >>> metrics = make_compute_metrics([10])(SimpleNamespace(predictions=np.array([[1, 3]])))
        >>> metrics["ndcg@10"], metrics["unfiltered_ndcg@10"]
        (1.0, 0.5)
    """

    def compute_metrics(prediction: Any) -> dict[str, float]:
        ranks = np.asarray(prediction.predictions)  # (n, 2)
        filtered = ranking_metrics(ranks[:, 0], ks=ks, n_bootstrap=0)
        unfiltered = ranking_metrics(ranks[:, 1], ks=ks, n_bootstrap=0)
        return filtered | {f"unfiltered_{name}": value for name, value in unfiltered.items()}

    return compute_metrics


def _row_targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, length) labels -> (batch,) targets, 0 without a label, and (batch,) bool whether there is one."""
    given = labels != IGNORED
    most = int(given.sum(dim=1).max()) if labels.numel() else 0
    if most > 1:
        raise ValueError(
            f"`labels` must have at most one labelled position a row for ranking, found {most}. "
            "Evaluate on rows with a `target` through DataCollatorForNextItem."
        )
    return labels.masked_fill(~given, 0).sum(dim=1), given.any(dim=1)


def _scores_of(targets: Tensor, scored: Callable[[int, int], Tensor], bounds: Sequence[tuple[int, int]]) -> Tensor:
    """Score of each target, read from the chunk in which it lies."""
    found: Tensor | None = None
    for start, stop in bounds:
        inside = (targets >= start) & (targets < stop)
        scores = scored(start, stop)
        own = scores.gather(1, (targets - start).clamp(0, stop - start - 1)[:, None])[:, 0]  # (n,)
        found = own if found is None else torch.where(inside, own, found)
    if found is None:
        raise ValueError("`rankable` must cover at least one token id, found none. Check the vocabulary size.")
    return found


def _check_ids(targets: Tensor, seen_ids: Tensor, vocab_size: int, item_chunk_size: int) -> None:
    if item_chunk_size < 1:
        raise ValueError(f"`item_chunk_size` must be at least 1, found {item_chunk_size}. Use for example 16384.")
    if targets.ndim != 1 or seen_ids.ndim != 2 or len(seen_ids) != len(targets):
        raise ValueError(
            "`targets` must have shape (n,) and `seen_ids` (n, length), found "
            f"{tuple(targets.shape)} and {tuple(seen_ids.shape)}. Give one target and one history a row."
        )
    for name, ids, low in (("targets", targets, 0), ("seen_ids", seen_ids, IGNORED)):
        if ids.numel() and (int(ids.min()) < low or int(ids.max()) >= vocab_size):
            raise ValueError(
                f"`{name}` must be token ids in 0..{vocab_size - 1}, found {int(ids.min())}..{int(ids.max())}. "
                "Encode the data with the tokenizer of this model."
            )
