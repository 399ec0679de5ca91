"""A batch of queries against one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .catalogue import UnknownItems
from .models import Mask, ServedModel


class Filters(NamedTuple):
    """Which items a list may hold; queries with equal filters are computed together."""

    filter_seen: bool | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None


class RecommendQuery(NamedTuple):
    """Histories of one request, oldest item first."""

    histories: Sequence[Sequence[str]]
    top_k: int
    filters: Filters
    unknown_items: UnknownItems


class SimilarQuery(NamedTuple):
    """Items of one request."""

    items: Sequence[str]
    top_k: int
    filters: Filters


class SearchQuery(NamedTuple):
    """What was typed."""

    text: str
    limit: int


class _Row(NamedTuple):
    """A history on its way through the model."""

    place: tuple[int, int]  # query, history in it
    tokens: list[int]
    top_k: int


def answer(
    model: ServedModel, queries: Sequence[Any], *, category_column: str | None, max_batch_size: int
) -> list[Any]:
    """Answer queries; what is wrong with one of them is its result and does not touch the others.

    Args:
        model: Answers all of them.
        queries: `RecommendQuery`, `SimilarQuery` and `SearchQuery` in any order.
        category_column: Column of the items that categories filter; the usual one when None.
        max_batch_size: Histories that the model scores in a call.

    Returns:
        For each query: lists of items and the number of unknown items of each history, lists of items, or hits; or a
        ValueError.
    """
    results: list[Any] = [None] * len(queries)
    groups: dict[Filters, list[_Row]] = {}
    masks: dict[Filters, Mask] = {}
    for number, query in enumerate(queries):
        try:
            if isinstance(query, SearchQuery):
                results[number] = model.catalogue.title_index.search(query.text, query.limit)
                continue
            filters = query.filters
            if filters not in masks:
                given = (filters.allow, filters.deny, filters.categories)
                masks[filters] = model.catalogue.allowed(*given, category_column)
            _check_top_k(model, query.top_k)
            if isinstance(query, SimilarQuery):
                results[number] = _similar(model, query, masks[filters])
            else:
                rows, unknown = _encode(model, number, query)
                results[number] = ([[] for _ in rows], unknown)
                groups.setdefault(filters, []).extend(rows)
        except ValueError as error:
            results[number] = error
    for filters, rows in groups.items():
        _recommend(model, filters, masks[filters], rows, results, max_batch_size)
    return results


def _encode(model: ServedModel, number: int, query: RecommendQuery) -> tuple[list[_Row], list[int]]:
    rows, unknown = [], []
    for place, history in enumerate(query.histories):
        try:
            tokens, missing = model.catalogue.encode(history, query.unknown_items)
            if not tokens and not model.knows_empty:
                model.catalogue.popular(None, 1)  # refuses a catalogue without counts
        except ValueError as error:
            raise ValueError(f"history {place}: {error}") from error
        rows.append(_Row((number, place), tokens, query.top_k))
        unknown.append(missing)
    return rows, unknown


def _recommend(
    model: ServedModel, filters: Filters, mask: Mask, rows: list[_Row], results: list[Any], max_batch_size: int
) -> None:
    """Fill in the lists of the rows of one group."""
    scored = [row for row in rows if row.tokens or model.knows_empty]
    for row in rows:
        if not (row.tokens or model.knows_empty):
            popular, shares = model.catalogue.popular(mask, row.top_k)
            _put(results, row, model.catalogue.named(popular.tolist(), shares.tolist()))
    filter_seen = model.filter_seen if filters.filter_seen is None else filters.filter_seen
    for start in range(0, len(scored), max_batch_size):
        part = scored[start : start + max_batch_size]
        longest = max(row.top_k for row in part)
        try:
            tokens, scores = model.best([row.tokens for row in part], longest, filter_seen, mask)
        except ValueError as error:
            for row in part:
                results[row.place[0]] = error
            continue
        for row, ids, values in zip(part, tokens.tolist(), scores.tolist(), strict=True):
            count = next((place for place, token in enumerate(ids[: row.top_k]) if not token), row.top_k)
            _put(results, row, model.catalogue.named(ids[:count], values[:count]))


def _put(results: list[Any], row: _Row, items: list[dict[str, Any]]) -> None:
    number, place = row.place
    if not isinstance(results[number], Exception):
        results[number][0][place] = items


def _similar(model: ServedModel, query: SimilarQuery, mask: Mask) -> list[list[dict[str, Any]]]:
    tokens = model.catalogue.encode_items(query.items)
    found = model.alike(tokens, query.top_k, mask)
    return [model.catalogue.named(ids.tolist(), np.asarray(scores).tolist()) for ids, scores in found]


def _check_top_k(model: ServedModel, top_k: int) -> None:
    if top_k > model.top_k and model.top_k < len(model.catalogue.item_ids):
        raise ValueError(
            f"`top_k` must be at most the {model.top_k} items that the model was exported for, found {top_k}: ask for "
            "fewer, or export it again with a larger `--top_k`."
        )
