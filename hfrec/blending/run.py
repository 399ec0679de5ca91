"""From fitted baselines and trained networks to a tested blend."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from ..classical.names import Method
from ..classical.popularity import PopularityBaseline
from ..data.interactions import Interactions
from ..data.repeats import filters_seen
from ..data.sequences import to_evaluation_sequences
from ..data.splits import Split
from ..evaluation.baseline_ranking import rank_baseline
from ..evaluation.metrics.functions import paired_bootstrap
from ..evaluation.protocol import evaluation_collator, top_items
from ..evaluation.ranked_test import RankedTest, ranked_test
from ..evaluation.ranking import PROTOCOLS, rank_dataset
from ..evaluation.split_baselines import baseline_log, classical_baselines
from ..evaluation.tuning import CLASSES, TunedBaseline, batch_rows, fit_baseline
from ..inference.recommend import recommend
from ..models import Blend
from ..tokenization import ItemTokenizer
from .fit import MAX_USERS, FittedWeights, calibrated_scale, fit_weights, score_margins
from .parts import make_blend, reweighted

REQUESTS = 50  # that the cost of one is measured on


@dataclass(frozen=True, eq=False)
class BlendParts:
    """What a blend is made of.

    Args:
        parts: By name, fitted baselines and networks.
        settings: Of the baselines, by name.
        skipped: Why a method that was asked for is left out.
        counts: (vocab_size,) training interactions of each token.
    """

    parts: dict[str, Any]
    settings: dict[str, dict[str, float]]
    skipped: dict[str, str]
    counts: NDArray[Any]


def fit_parts(
    split: Split,
    tokenizer: ItemTokenizer,
    methods: Sequence[Method],
    *,
    networks: Mapping[str, PreTrainedModel] | None = None,
    tuned: bool = True,
) -> BlendParts:
    """Fit classical methods on the training part, beside networks that were trained on it.

    Args:
        split: Leave-one-out or temporal split.
        tokenizer: Vocabulary of the training part.
        methods: Classical methods.
        networks: Masked and causal models by name.
        tuned: Whether the methods' settings are chosen on the validation part, or are the defaults.

    Raises:
        ValueError: Nothing is left of what was asked for.
    """
    fitted: dict[str, TunedBaseline] = {}
    skipped: dict[str, str] = {}
    if methods:
        fitted, skipped = classical_baselines(split, tokenizer, methods=methods, tuned=tuned)
    parts = {**(networks or {}), **{name: found.baseline for name, found in fitted.items()}}
    if not parts:
        raise ValueError(f"A blend needs at least one part, found none. {' '.join(skipped.values())}".strip())
    settings = {name: found.settings for name, found in fitted.items()}
    return BlendParts(parts, settings, skipped, _counts(split.train, tokenizer))


def refit(
    blend: Blend,
    settings: Mapping[str, dict[str, float]],
    log: Interactions,
    tokenizer: ItemTokenizer,
    *,
    networks: Mapping[str, PreTrainedModel] | None = None,
) -> Blend:
    """The same blend of all rows: the settings and weights that were chosen, nothing held out.

    Args:
        blend: What was fitted on a training part and tested.
        settings: Of its classical parts, by name.
        log: All rows.
        tokenizer: Vocabulary of all items.
        networks: Those that stand in for its own, by the same names, trained on all rows.
    """
    rows, parts, weights = baseline_log(log, tokenizer), {}, []
    for entry in blend.config.components or []:
        name = entry["name"]
        parts[name] = fit_baseline(name, settings[name], rows) if name in CLASSES else (networks or {})[name]
        weights.append(entry["weight"])
    whole = make_blend(parts, weights, counts=_counts(log, tokenizer))
    whole.config.filter_seen = blend.config.filter_seen
    return whole


def _counts(log: Interactions, tokenizer: ItemTokenizer) -> NDArray[Any]:
    """Interactions of each token, `(vocab_size,)`."""
    tokens = tokenizer.encode_column(log.table["item_id"], unknown="drop").drop_null()
    return np.bincount(tokens.to_numpy(zero_copy_only=False).astype(np.int64), minlength=len(tokenizer))


def mix(
    found: BlendParts, tokenizer: ItemTokenizer, validation: Any, *, filter_seen: bool
) -> tuple[Blend, FittedWeights | None]:
    """The blend of the parts with the weights that the validation part asks for.

    Args:
        found: The parts.
        tokenizer: Their vocabulary.
        validation: Rows of `to_evaluation_sequences`.
        filter_seen: Whether the blend leaves out items of the history, which then are no rivals in the fit either.

    Returns:
        The blend, without the parts that got no weight, and the fit, None for a single part.
    """
    everything = make_blend(found.parts, [1.0] * len(found.parts), counts=found.counts)
    everything.config.filter_seen = filter_seen
    if len(found.parts) == 1:
        return everything, None
    rows = validation
    if len(rows) > MAX_USERS:
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), size=MAX_USERS, replace=False))
        rows = rows.select(chosen)
    histories, targets = list(rows["input_ids"]), np.asarray(rows["target"])
    margins = score_margins(everything, tokenizer, histories, targets, filter_seen=filter_seen)
    fit = fit_weights(margins)
    scale = calibrated_scale(reweighted(everything, fit.weights), tokenizer, histories, targets)
    return reweighted(everything, [scale * weight for weight in fit.weights]), fit


def measure_blend(
    blend: Blend, fit: FittedWeights | None, found: BlendParts, *, tokenizer: ItemTokenizer, split: Split
) -> tuple[RankedTest, dict[str, Any]]:
    """Test a blend on one target of each user, its parts alone beside it.

    Args:
        blend: The blend.
        fit: How its weights came about.
        found: All parts, also those that got no weight.
        tokenizer: Their vocabulary.
        split: Leave-one-out or temporal split.

    Returns:
        The test, the parts and popularity being the baselines, and what to say of the blend: weights, fit, difference
        to the best part with a paired interval, and what a request costs.
    """
    dataset = to_evaluation_sequences(split.history, split.test_targets, tokenizer)
    ranks = {"model": _rank(blend, dataset, tokenizer)}
    if "popularity" not in found.parts:
        ranks["popularity"] = _rank(PopularityBaseline.from_counts(found.counts), dataset, tokenizer)
    if len(found.parts) > 1:
        ranks |= {name: _rank(part, dataset, tokenizer) for name, part in found.parts.items()}
    test = ranked_test(
        ranks,
        dataset,
        split,
        counts=found.counts,
        filter_seen=filters_seen(blend.config),
        settings=found.settings,
        skipped=found.skipped,
    )
    report: dict[str, Any] = {
        "components": [
            {"name": entry["name"], "weight": entry["weight"], "settings": found.settings.get(entry["name"], {})}
            for entry in blend.config.components or []
        ],
        "floor": blend.config.floor,
        "request": request_cost(blend, tokenizer, dataset["input_ids"][:REQUESTS]),
    }
    if fit is not None:
        names = list(found.parts)
        best = names[fit.best_part]
        report["fit"] = {**fit.to_dict(), "parts": names, "best_part": best}
        report["minus_best_part"] = {
            setting: paired_bootstrap(ranks["model"][setting], ranks[best][setting]) for setting in PROTOCOLS
        }
    return test, report


def _rank(model: Any, dataset: Any, tokenizer: ItemTokenizer) -> dict[str, NDArray[np.int64]]:
    """Ranks under a model or a fitted baseline, each scored by its own code."""
    top_k = top_items(tokenizer)
    if isinstance(model, PreTrainedModel):
        return rank_dataset(model, dataset, evaluation_collator(model, tokenizer), top_k=top_k)
    rows, targets = dataset.data["input_ids"].combine_chunks(), dataset.data["target"].to_numpy()
    return rank_baseline(model, rows, targets, batch_size=batch_rows(len(tokenizer)), top_k=top_k)


def request_cost(model: Any, tokenizer: ItemTokenizer, histories: Sequence[Sequence[int]]) -> dict[str, float]:
    """Median milliseconds of one request on one thread, ids in and ten items out, and the megabytes of the model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for history in histories:
            items = tokenizer.decode_items(history)
            began = time.perf_counter()
            recommend(model, tokenizer, [items], top_items(tokenizer), unknown_items="drop")
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {"milliseconds": float(np.median(times) * 1e3), "megabytes": size / 1e6}


def describe(blend: Mapping[str, Any]) -> str:
    """What the fit decided, for people.

    Args:
        blend: What `measure_blend` says of a blend.
    """
    mixed = " + ".join(f"{part['weight']:.3g} {part['name']}" for part in blend["components"])
    lines = [f"Score: {mixed}"]
    if "fit" in blend:
        fit = blend["fit"]
        held = f"{fit['difference']:+.4f} ± {fit['standard_error']:.4f} NDCG@20 on held-out validation users"
        verdict = "mixed" if fit["mixes"] else f"{fit['best_part']} gets all the weight, as mixing is not worth it"
        lines.append(f"Blend minus {fit['best_part']}: {held}: {verdict}")
    cost = blend["request"]
    lines.append(f"One request: {cost['milliseconds']:.1f} ms on one thread; {cost['megabytes']:.1f} MB in memory")
    return "\n".join(lines)
