"""The parts of the page that are text: cards of a history and of recommendations. Every title is escaped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from .catalogue import Item
from .recommender import Recommendation

SHOWN = 8  # newest items of a history; the others unfold


def history_cards(items: Sequence[Item]) -> str:
    """A history, the newest item first, and a button that removes it: one without an item.

    Args:
        items: Oldest first, as they were consumed.
    """
    if not items:
        return '<h2>History</h2><p class="empty">Nothing yet. Type a title above, or start with one of these.</p>'
    cards = [_history_card(item) for item in reversed(items)]
    number = f"{len(cards):,} items" if len(cards) > 1 else "1 item"
    first, rest = (cards, []) if len(cards) <= SHOWN + 1 else (cards[:SHOWN], cards[SHOWN:])
    earlier = f'<details><summary>{len(rest):,} earlier</summary><ol class="history">{"".join(rest)}</ol></details>'
    return (
        f'<div class="top"><h2>History <small>{number}</small></h2>'
        '<button type="button" class="clear" data-item="">Clear</button></div>'
        f'<ol class="history">{"".join(first)}</ol>{earlier if rest else ""}'
    )


def example_buttons(items: Sequence[Item]) -> str:
    """Items to start from, each a button."""
    return "".join(
        f'<button type="button" class="example" data-item="{escape(item.item_id)}">{escape(item.title)}</button>'
        for item in items
    )


def recommendation_list(
    label: str, rows: Sequence[Recommendation], *, scale: str = "", shared: Collection[str] = (), note: str = ""
) -> str:
    """Ten recommendations of one model.

    Args:
        label: Name of the model.
        rows: Best first.
        scale: From `popularity_scale`.
        shared: Ids that another list beside this one holds too; they are marked.
        note: A line above the list, such as that items are unknown.
    """
    scores = [row.score for row in rows]
    low, spread = min(scores, default=0.0), max(max(scores, default=0.0) - min(scores, default=0.0), 1e-9)
    cards = [
        _recommendation_card(row, share=(row.score - low) / spread, shared=row.item.item_id in shared) for row in rows
    ]
    line = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<section class="model" aria-label="{escape(label)}"><h3>{escape(label)}</h3>{line}{scale}'
        f'<ol class="recommended">{"".join(cards)}</ol></section>'
    )


def popularity_scale(rows: Sequence[Item], history: Sequence[Item]) -> str:
    """Where the recommended items and those of the history lie between niche and popular; empty without counts."""
    ours, past = _shares(rows), _shares(history)
    if not ours or not past:
        return ""
    recommended, known = f"recommended: top {_percent(ours)} % on average", f"history: top {_percent(past)} %"
    ticks = "".join(f'<i style="left:{100 * (1 - share):.1f}%"></i>' for share in ours)
    mean = f'<b style="left:{100 * (1 - sum(past) / len(past)):.1f}%"></b>'
    return (
        f'<div class="scale" role="img" aria-label="From niche to popular; {recommended}; {known}">'
        f'<span>niche</span><div class="rail">{ticks}{mean}</div><span>popular</span></div>'
        f'<p class="note key"><span><i></i>{recommended}</span> <span><b></b>{known}</span></p>'
    )


def _shares(items: Sequence[Item]) -> list[float]:
    return [item.top_share for item in items if item.top_share is not None]


def _percent(shares: Sequence[float]) -> int:
    return max(1, round(100 * sum(shares) / len(shares)))


def factor_text(factor: float) -> str:
    """How much more an item is expected, such as "+40 %" or "×2.5"."""
    return f"×{factor:.1f}" if factor >= 2 else f"+{100 * (factor - 1):.0f} %"


def _history_card(item: Item) -> str:
    title, item_id = escape(item.title), escape(item.item_id)
    return (
        f'<li><div><span class="title" title="{title}">{title}</span><small>{escape(item.detail)}</small></div>'
        f'<button type="button" class="remove" data-item="{item_id}" aria-label="Remove {title}">×</button></li>'
    )


def _recommendation_card(row: Recommendation, *, share: float, shared: bool) -> str:
    item, title = row.item, escape(row.item.title)
    reasons = "".join(
        f'<span class="reason" title="With it, the model expects this item {factor:.2f} times as much">'
        f"<span>{escape(past.title)}</span> <b>{factor_text(factor)}</b></span>"
        for past, factor in row.reasons
    )
    why = f'<p class="why"><span>because of</span>{reasons}</p>' if reasons else ""
    both = '<span class="both">in both lists</span>' if shared else ""
    details = " ".join(f"<span>{escape(text)}</span>" for text in (item.detail, item.popularity) if text)
    return (
        f'<li class="card"><span class="rank">{row.rank}</span><div class="body">'
        f'<p class="head"><span class="title" title="{title}">{title}</span>{both}</p>'
        f"<small>{details}</small>{why}</div>"
        f'<div class="score"><span>{row.score:.2f}</span>'
        f'<div class="bar"><i style="width:{6 + 94 * share:.0f}%"></i></div></div></li>'
    )
