"""The one line that a run ends with: is the model worth it, beside the best baseline on the same users?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .metrics.functions import METRIC, metric_values, paired_bootstrap
from .user_ranks import MODEL, NamedRanks

SETTING = "filter_seen"
WITHOUT_PRIOR = "model_without_prior"  # stands among the baselines, but is the model itself


def verdict(ranks: NamedRanks, *, setting: str = SETTING, name: str = "The model") -> dict[str, Any] | None:
    """The model against the baseline with the highest test NDCG@10, seen items filtered unless said otherwise.

    The interval is paired over the same users. The best of several baselines is chosen on the test users, which is to
    its advantage, not to the model's.

    Args:
        ranks: `model` and the names of the baselines -> `filter_seen` and `unfiltered` -> (n,) ranks.
        setting: Which of the two decides.
        name: What the line calls the model.

    Returns:
        `baseline`, `metric`, `setting`, `n_users`, `model_value`, `baseline_value`, `difference`, `difference_ci`,
        `outcome` (`above`, `below` or `undecided`) and `text`; None without a baseline.

    Example:
        >>> import numpy as np
        >>> good, bad = {"filter_seen": np.ones(50, dtype=int)}, {"filter_seen": np.full(50, 3)}
        >>> verdict({"model": good, "popularity": bad})["text"].partition(": ")[2]
        'NDCG@10 1.0000 against .5000, +.5000 [+.5000, +.5000] on 50 users.'
    """
    means = {
        key: float(metric_values(found[setting], METRIC).mean()) for key, found in ranks.items() if key != WITHOUT_PRIOR
    }
    ours = means.pop(MODEL)
    if not means:
        return None
    best = max(means, key=lambda key: means[key])
    paired = paired_bootstrap(ranks[MODEL][setting], ranks[best][setting], metric=METRIC)
    low, high = paired["difference_ci"]
    found: dict[str, Any] = {
        "baseline": best,
        "metric": METRIC,
        "setting": setting,
        "n_users": len(ranks[MODEL][setting]),
        "model_value": ours,
        "baseline_value": means[best],
        "difference": paired["difference"],
        "difference_ci": [low, high],
        "outcome": "above" if low > 0 else "below" if high < 0 else "undecided",
    }
    return {**found, "text": verdict_text(found, name)}


def verdict_text(found: dict[str, Any], name: str = "The model") -> str:
    """The line of a verdict, the model called by `name`."""
    difference, (low, high) = found["difference"], found["difference_ci"]
    measured = (
        f"NDCG@10 {short(found['model_value'])} against {short(found['baseline_value'])}, "
        f"{with_ends(difference, (low, high), '+')} on {found['n_users']:,} users"
    )
    best, called = found["baseline"], name[0].lower() + name[1:]
    if found["outcome"] == "above":
        return f"{name} is above the best baseline ({best}): {measured}."
    remedy = f"use it (`hfrec baseline --method {best}`), blend it with the model (`hfrec blend`), or train longer"
    if found["outcome"] == "below":
        gap = with_ends(-difference, (-high, -low))
        means = f"{short(found['baseline_value'])} against {short(found['model_value'])} on {found['n_users']:,} users"
        return f"{best} is better here than {called} by {gap} in NDCG@10 ({means}): {remedy}."
    return f"No difference can be shown between {called} and the best baseline ({best}): {measured}."


def short(value: float, sign: str = "") -> str:
    """Four decimals without the zero before the point.

    Example:
        >>> short(0.1212), short(-0.004, "+"), short(1.0)
        ('.1212', '-.0040', '1.0000')
    """
    text = f"{value:{sign}.4f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def with_ends(value: float | None, ends: Iterable[float], sign: str = "") -> str:
    """A number with the ends of its interval, or these alone.

    Example:
        >>> with_ends(0.1212, (0.1, 0.14)), with_ends(None, (-0.004, 0.01), "+")
        ('.1212 [.1000, .1400]', '[-.0040, +.0100]')
    """
    interval = f"[{', '.join(short(end, sign) for end in ends)}]"
    return interval if value is None else f"{short(value, sign)} {interval}"
