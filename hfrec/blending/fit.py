"""Weights of a blend, fitted on the validation targets and judged on users that they were not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.collators import DataCollatorForNextItem
from ..models import Blend
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer

TOP_ITEMS = 100  # of each part, that a target is compared with
MAX_USERS = 4000
CUT = 20  # NDCG@20 is smoother than NDCG@10: more targets have a say
FOLDS = 5
MAX_SCALE_SCORES = 5_000_000
_NOT_A_RIVAL = -1e6
_STEPS = (0.0, 0.5, 0.7, 1.4, 2.0)  # factors on a weight
_FIRST_STEPS = (0.05, 0.15, 0.4, 1.0)  # of the whole, for a weight that is 0
_LEAST_GAIN = 1e-4
FloatArray = NDArray[np.float32]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class FittedWeights:
    """The weights and what held-out users say of them.

    Args:
        weights: One for each part; their sum is 1.
        best_part: Index of the part that ranks best alone.
        part_ndcg: NDCG@10 of each part alone.
        blend_ndcg: NDCG@10 of the blend on folds of users that its weights were not fitted on.
        difference: NDCG@20 of the blend minus that of the best part on these folds.
        standard_error: Of that difference.
        num_users: Validation users that all this was measured on.
    """

    weights: tuple[float, ...]
    best_part: int
    part_ndcg: tuple[float, ...]
    blend_ndcg: float
    difference: float
    standard_error: float
    num_users: int

    @property
    def mixes(self) -> bool:
        """Whether the blend is kept: unless it is below its best part by more than a standard error."""
        return self.difference >= -self.standard_error

    def to_dict(self) -> dict[str, Any]:
        """The fit as a dictionary that JSON can hold."""
        return {**asdict(self), "mixes": self.mixes}


@torch.no_grad()
def score_margins(
    blend: Blend,
    tokenizer: ItemTokenizer,
    histories: Sequence[Any],
    targets: NDArray[np.int64],
    *,
    filter_seen: bool = True,
    top_items: int = TOP_ITEMS,
    batch_size: int = 128,
) -> FloatArray:
    """How far each part puts the rivals of a target above it, all that the weights are fitted on.

    Rivals are the items that some part has among its `top_items`; seen ones are none where they are filtered. Users
    whose target is unknown, or filtered itself, which no weights can help, are left out.

    Args:
        blend: All parts; its weights are not read.
        tokenizer: Its tokenizer.
        histories: n lists of token ids.
        targets: (n,) token ids.
        filter_seen: Whether items of the history are left out when the blend ranks.
        top_items: Items of each part.
        batch_size: Users scored at a time.

    Returns:
        (num_parts, num_users, num_rivals) scores of rivals minus that of the target, far below 0 where there is none.
    """
    collate = DataCollatorForNextItem(tokenizer, "blend", max_length=blend.config.max_position_embeddings)
    pieces = []
    for start in range(0, len(targets), batch_size):
        batch = collate([{"input_ids": row} for row in histories[start : start + batch_size]])
        wanted = torch.from_numpy(np.asarray(targets[start : start + batch_size], dtype=np.int64))
        seen = batch["seen_ids"] if filter_seen else torch.zeros_like(batch["seen_ids"])
        fair = (wanted >= NUM_SPECIAL_TOKENS) & ~(seen == wanted[:, None]).any(dim=1)
        if not bool(fair.any()):
            continue
        parts = blend.component_scores(batch["input_ids"][fair], batch["attention_mask"][fair])
        pieces.append(_margins(torch.stack(parts), seen[fair], wanted[fair], top_items))
    if not pieces:
        raise ValueError("The weights are fitted on each user's second-last item, and none of them can be ranked.")
    width = max(piece.shape[2] for piece in pieces)
    padded = [torch.nn.functional.pad(piece, (0, width - piece.shape[2]), value=_NOT_A_RIVAL) for piece in pieces]
    return np.ascontiguousarray(torch.cat(padded, dim=1).numpy())


def _margins(scores: Tensor, seen: Tensor, targets: Tensor, top_items: int) -> Tensor:
    """From scores `(num_parts, batch, num_items)` to margins `(num_parts, batch, num_rivals)`."""
    num_parts, batch, num_items = scores.shape
    own = (targets - NUM_SPECIAL_TOKENS)[:, None]  # (batch, 1)
    out = torch.zeros((batch, num_items + 1), dtype=torch.bool)
    out.scatter_(1, torch.where(seen >= NUM_SPECIAL_TOKENS, seen - NUM_SPECIAL_TOKENS, num_items), True)
    out.scatter_(1, own, True)
    out = out[:, :num_items]  # no rivals: what was seen, and the target itself
    best = scores.masked_fill(out, -torch.inf).topk(min(top_items, num_items), dim=2).indices
    rivals = best.transpose(0, 1).flatten(1).sort(dim=1).values  # (batch, num_rivals)
    twice = torch.zeros_like(rivals, dtype=torch.bool)
    twice[:, 1:] = rivals[:, 1:] == rivals[:, :-1]
    places = rivals.expand(num_parts, -1, -1)
    margins = scores.gather(2, places) - scores.gather(2, own.expand(num_parts, -1, -1))
    return margins.masked_fill(twice | out.gather(1, rivals), _NOT_A_RIVAL)


def fit_weights(margins: FloatArray, *, seed: int = 0) -> FittedWeights:
    """Weights of a blend: the best part alone, then one weight after the other changed as long as NDCG@20 grows.

    Users in turn held out say what that is worth: the blend is kept unless it is below the best part by more than a
    standard error there, and then the best part gets all the weight. On few users the best part is itself a choice by
    chance, of which the blend holds less.

    Args:
        margins: What `score_margins` gives.
        seed: Of the folds.

    Example:
        >>> margins = np.array([[[-1.0, 0.1]], [[0.1, -1.0]]], dtype=np.float32).repeat(50, axis=1)
        >>> fit = fit_weights(margins)  # only together they put the target first
        >>> fit.mixes, fit.part_ndcg[0] < fit.blend_ndcg
        (True, True)
    """
    num_parts, num_users = margins.shape[:2]
    alone = [ndcg(margins[part], CUT) for part in range(num_parts)]
    best = int(np.argmax([values.mean() for values in alone]))
    folds = np.random.default_rng(seed).permutation(np.arange(num_users) % FOLDS)
    held_out, short = np.zeros(num_users), np.zeros(num_users)
    for fold in range(FOLDS if num_users >= FOLDS else 0):
        rest, own = np.ascontiguousarray(margins[:, folds != fold]), margins[:, folds == fold]
        mixed = mix_margins(search_weights(rest), own)
        held_out[folds == fold], short[folds == fold] = ndcg(mixed, CUT), ndcg(mixed, 10)
    difference = held_out - alone[best]
    error = float(difference.std() / num_users**0.5)
    keep = num_parts > 1 and float(difference.mean()) >= -error
    weights = search_weights(margins) if keep else np.eye(num_parts)[best]
    weights /= weights.sum()
    return FittedWeights(
        weights=tuple(weights.tolist()),
        best_part=best,
        part_ndcg=tuple(float(ndcg(part, 10).mean()) for part in margins),
        blend_ndcg=float(short.mean()),
        difference=float(difference.mean()),
        standard_error=error,
        num_users=num_users,
    )


def mix_margins(weights: Weights, margins: FloatArray) -> FloatArray:
    """Margins of the blend, `(num_users, num_rivals)`, minus infinity where there is no rival."""
    mixed = np.tensordot(weights.astype(np.float32), margins, axes=1)
    return np.asarray(np.where(margins[0] > _NOT_A_RIVAL / 2, mixed, -np.inf), dtype=np.float32)


def ndcg(margins: FloatArray, cut: int) -> NDArray[np.float64]:
    """NDCG of each user's target, `(num_users, num_rivals)` to `(num_users,)`; ties rank before it."""
    ranks = 1 + (margins >= 0).sum(axis=1)
    return np.asarray(np.where(ranks <= cut, 1.0 / np.log2(1.0 + ranks), 0.0))


def search_weights(margins: FloatArray) -> Weights:
    """The weights that coordinate search finds from the best part alone, `(num_parts,)`."""
    spread = np.array([_spread(part) for part in margins])
    best = int(np.argmax([ndcg(part, CUT).mean() for part in margins]))
    weights: Weights = np.eye(len(margins))[best] / spread[best]
    value = float(ndcg(margins[best], CUT).mean())
    moved = True
    while moved:
        moved = False
        for part, own in enumerate(margins):
            others = np.where(np.arange(len(margins)) == part, 0.0, weights)
            if not others.any():
                continue  # alone, its weight is a matter of scale
            fresh = float(weights[part]) == 0.0
            steps = np.array(_FIRST_STEPS) / spread[part] if fresh else weights[part] * np.array(_STEPS)
            base = np.tensordot(others.astype(np.float32), margins, axes=1)
            values = [float(ndcg(base + np.float32(step) * own, CUT).mean()) for step in steps]
            if max(values) > value + _LEAST_GAIN:
                value, weights[part], moved = max(values), steps[int(np.argmax(values))], True
    return weights


@torch.no_grad()
def calibrated_scale(
    blend: Blend, tokenizer: ItemTokenizer, histories: Sequence[Any], targets: NDArray[np.int64]
) -> float:
    """The factor on all weights under which the softmax of the scores gives the targets most probability.

    It changes no rank; a prior for empty histories is mixed with that softmax.

    Args:
        blend: With the weights.
        tokenizer: Its tokenizer.
        histories: n lists of token ids, the first of which are taken, as many as `MAX_SCALE_SCORES` allow.
        targets: (n,) token ids.
    """
    known = np.flatnonzero(np.asarray(targets) >= NUM_SPECIAL_TOKENS)
    known = known[: max(1, MAX_SCALE_SCORES // len(tokenizer))]
    collate = DataCollatorForNextItem(tokenizer, "blend", max_length=blend.config.max_position_embeddings)
    batch = collate([{"input_ids": histories[int(row)]} for row in known])
    scores = blend.encode_history(batch["input_ids"], batch["attention_mask"]).numpy()  # (num_known, vocab_size)
    own = np.asarray(targets)[known][:, None]
    margins = scores - np.take_along_axis(scores, own, axis=1)
    np.put_along_axis(margins, own, -np.inf, axis=1)
    return best_scale(margins)


def best_scale(margins: FloatArray) -> float:
    """The factor on margins `(num_users, num_items)`, -inf at no rival, that gives the targets most probability."""
    from scipy.optimize import minimize_scalar

    spread = _spread(margins)

    def loss(log_scale: float) -> float:
        scaled = margins * np.float32(np.exp(log_scale) / spread)
        highest = np.maximum(scaled.max(axis=1, keepdims=True), 0.0)  # the target's own margin is 0
        total = np.exp(scaled - highest).sum(axis=1) + np.exp(-highest[:, 0])
        return float((highest[:, 0] + np.log(total)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x) / spread)


def _spread(margins: FloatArray) -> float:
    """Standard deviation of the margins that there are; 1 where all are equal."""
    there = margins[margins > _NOT_A_RIVAL / 2]
    return (float(there.std()) or 1.0) if len(there) else 1.0
