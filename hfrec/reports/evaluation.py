"""The page of `hfrec evaluate --report`: is the model worth it, for whom, and what does it recommend?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.ranked_test import RankedTest
from ..evaluation.table import METRICS, SETTINGS, settings, short_names
from ..evaluation.user_ranks import MODEL
from ..evaluation.verdict import with_ends
from ..tokenization import NUM_SPECIAL_TOKENS, ItemTokenizer
from .page import Interval, bars, intervals, prose, table, text, write_page

LISTS = {
    "coverage": "coverage of the catalogue",
    "gini": "Gini index",
    "novelty": "novelty, bits",
    "mean_popularity": "mean popularity",
    "popularity_lift": "popularity lift",
}
USERS = 6
HISTORY = 8  # newest items of a history that are shown


def write_evaluation(path: Path, results: Mapping[str, Any], ranked: RankedTest, tokenizer: ItemTokenizer) -> None:
    """Write the page.

    Args:
        path: The file.
        results: What `RankedTest.results(cohorts=True)` gives, with `model` and `data` as `hfrec evaluate` adds them.
        ranked: The ranks behind it.
        tokenizer: Names the items.
    """
    name = str(results.get("model", "Evaluation"))
    name = short_names([name])[0] if Path(name).is_dir() else name  # an id of a hub stays whole
    source = short_names([str(results.get("data", {}).get("source", ""))])[0]
    parts = [
        text("h1", name),
        text("p", f"{results['n_users']:,} users of {source}, the whole catalogue as candidates", "soft"),
        prose(results.get("verdict", {}).get("text", "No baseline stands beside this model."), "verdict"),
        *_metrics(results),
        *_cohorts(results),
        *_popularity(ranked),
        *_lists(results),
        *_users(results, ranked, tokenizer),
        text("h2", "How it was measured"),
        "<dl>",
        *(text("dt", key.replace("_", " ")) + text("dd", said) for key, said in results["protocol"].items()),
        "</dl>",
    ]
    write_page(path, f"{name} · hfrec", parts)


def _metrics(results: Mapping[str, Any]) -> list[str]:
    deciding, other = settings(results)
    rows = {MODEL: results, **results.get("baselines", {})}
    best = sorted(rows, key=lambda name: -rows[name][deciding]["ndcg@10"])
    plot = intervals([_interval(name, rows[name][deciding], is_model=name == MODEL) for name in best])
    parts = [text("h2", f"NDCG@10, {SETTINGS[deciding]}"), plot]
    for setting in (deciding, other):
        body = [[name, *(_cell(rows[name][setting], metric) for metric in METRICS)] for name in best]
        parts += [text("h2", f"All metrics, {SETTINGS[setting]}"), table(["", *METRICS.values()], body, model=MODEL)]
    return [*parts, text("p", "Mean over users with 95 % bootstrap intervals.", "soft")]


def _cohorts(results: Mapping[str, Any]) -> list[str]:
    found = results.get("cohorts", {}).get(settings(results)[0], {})
    found = {name: row for name, row in found.items() if row[MODEL]["n"]}
    if not found:
        return []
    names = list(next(iter(found.values())))
    others = [name for name in names if name != MODEL]
    rows = []
    for cohort, row in found.items():
        best = max(others, key=lambda name: row[name]["ndcg@10"], default=None)
        rows.append(_interval(f"{cohort} ({row[MODEL]['n']:,})", row[MODEL], is_model=True))
        if best is not None:
            rows.append(_interval(f"– best baseline: {best}", row[best]))
    body = [
        [name, f"{row[MODEL]['n']:,}", *(_cell(row[arm], "ndcg@10").replace(", ", ",\u00a0") for arm in names)]
        for name, row in found.items()
    ]
    return [
        text("h2", "For whom: NDCG@10 by cohort"),
        text("p", "By items in the history and by kind of target; in brackets how many users.", "soft"),
        intervals(rows),
        table(["", "users", *names], body, wide=True),
    ]


def _popularity(ranked: RankedTest) -> list[str]:
    """How popular what is recommended is, beside what users took."""
    if ranked.histories is None:
        return []
    shown = ranked.ranks[MODEL]["recommended"]
    taken = np.concatenate([np.asarray(row, dtype=np.int64) for row in ranked.histories] or [np.zeros(0, np.int64)])
    shares = [_shares(tokens[tokens >= NUM_SPECIAL_TOKENS], ranked.counts) for tokens in (shown.ravel(), taken)]
    used = [place for place in range(len(shares[0])) if shares[0][place] or shares[1][place]]
    rows = [(_bin_name(place), float(shares[0][place]), float(shares[1][place])) for place in used]
    key = '<span class="key" style="background: var(--{})"></span>'
    return [
        text("h2", "Popularity of what is recommended"),
        f'<p class="soft">Items by their interactions in training:{key.format("model")}share of the '
        f"recommendations{key.format('other')}share of what users took before</p>",
        bars(rows),
    ]


def _shares(tokens: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares in bins of interactions 0, 1, 2-3, 4-7, … of the items."""
    bins = np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64) + (counts > 0)  # 0 for none, then by doubling
    found = np.bincount(bins[tokens], minlength=int(bins.max(initial=0)) + 1).astype(np.float64)
    shares: NDArray[np.float64] = found / max(1.0, found.sum())
    return shares


def _bin_name(place: int) -> str:
    if place < 2:
        return ("none", "1 interaction")[place]
    return f"{2 ** (place - 1):,} – {2**place - 1:,} interactions"


def _lists(results: Mapping[str, Any]) -> list[str]:
    rows = {MODEL: results, **results.get("baselines", {})}
    measured = results["filter_seen"]
    known = [(name, key) for name in LISTS for key in measured if key.split("@")[0] == name and not key.endswith("_ci")]
    if not known:
        return []
    nothing = float("nan")
    body = [[name, *(f"{row['filter_seen'].get(key, nothing):.4g}" for _, key in known)] for name, row in rows.items()]
    return [
        text("h2", "The lists that users get"),
        table(["", *(LISTS[name] for name, _ in known)], body, model=MODEL),
        text("p", "Gini index: 0 where every item is recommended alike, towards 1 for always the same few.", "soft"),
    ]


def _users(results: Mapping[str, Any], ranked: RankedTest, tokenizer: ItemTokenizer) -> list[str]:
    """Some users, spread over the ranks of their targets."""
    if ranked.histories is None or ranked.targets is None:
        return []
    ranks, shown = ranked.ranks[MODEL][settings(results)[0]], ranked.ranks[MODEL]["recommended"]
    order = np.argsort(np.where(ranks == 0, np.iinfo(np.int64).max, ranks), kind="stable")
    chosen = dict.fromkeys(int(order[place]) for place in np.linspace(0, len(order) - 1, USERS).round().astype(int))
    names = _names(tokenizer)
    cards = []
    for row in chosen:
        target, rank = int(ranked.targets[row]), int(ranks[row])
        history = [names[token] for token in ranked.histories[row][-HISTORY:]]
        said = f"rank {rank:,}" if rank else "cannot be ranked"
        outcome = "hit" if 0 < rank <= shown.shape[1] else "miss"
        items = "".join(text("li", names[token], "hit" if token == target else "") for token in shown[row] if token)
        wanted = names[target] if target >= NUM_SPECIAL_TOKENS else ranked.items[row]
        cards.append(
            f'<div class="user">{text("h3", f"User {ranked.users[row]}")}{text("span", "took last", "soft")}'
            f"<ul>{''.join(text('li', name) for name in history)}</ul>{text('span', 'took next', 'soft')}"
            f"<p>{text('span', wanted, outcome)} {text('span', said, 'soft')}</p>"
            f"{text('span', 'is recommended', 'soft')}<ol>{items}</ol></div>"
        )
    said = "From the user whose next item was ranked best to the one for whom it was ranked worst; seen items left out."
    return [text("h2", "Some users"), text("p", said, "soft"), f'<div class="users">{"".join(cards)}</div>']


def _names(tokenizer: ItemTokenizer) -> Sequence[str]:
    """Title, or else id, of each token."""
    items = tokenizer.items
    ids = items["item_id"].to_pylist()
    titles = items["title"].to_pylist() if "title" in items.column_names else ids
    specials = tokenizer.convert_ids_to_tokens(list(range(NUM_SPECIAL_TOKENS)))
    return [*specials, *(str(title) if title else item for title, item in zip(titles, ids, strict=True))]


def _interval(name: str, row: Mapping[str, Any], *, is_model: bool = False) -> Interval:
    low, high = row["ndcg@10_ci"]
    return Interval(name, row["ndcg@10"], low, high, _cell(row, "ndcg@10"), is_model)


def _cell(row: Mapping[str, Any], metric: str) -> str:
    return with_ends(row[metric], row[f"{metric}_ci"])
