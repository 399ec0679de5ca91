"""What a model card says of several sources: what each is, how good the model is on it, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.catalogs import MOVIELENS_LICENCE
from ..evaluation.metrics.functions import METRIC
from ..evaluation.table import cell, markdown_row, settings


def card_of_sources(results: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """A table of the sources, for the card of a run on several; nothing for other runs.

    Args:
        results: Of the run.
        measured: Those that hold its test, which may be its validation run's.
    """
    sources = results.get("sources")
    if not sources:
        return {}
    tests = measured["test"].get("sources", {})
    lines = ["| source | domain | licence | size | NDCG@10 among its own items | best baseline | fingerprint |"]
    lines.append("|" + "---|" * 7)
    lines += [_row(name, about, tests.get(name)) for name, about in sources.items()]
    licences = [f"{name}: {_licence(about) or 'not stated'}" for name, about in sources.items()]
    return {
        "sources_table": "\n".join(lines),
        "dataset_license": "; ".join(licences),
        "dataset_filters": "; ".join(_filters(name, about) for name, about in sources.items()),
    }


def source_limits(results: Mapping[str, Any]) -> list[str]:
    """What a model of several sources is not good for."""
    sources = results.get("sources")
    if not sources:
        return []
    domains = ", ".join(str(about.get("domain") or name) for name, about in sources.items())
    limits = [
        f"It has seen {domains} and nothing else. Of another domain expect less; compare it there with a baseline."
    ]
    if results.get("settings", {}).get("label_candidates") == "source":
        limits.append(
            "Items of different sources were never compared with each other: a list across sources means nothing. "
            "`hfrec.take_source` gives the model of one source, with the item ids of its log."
        )
    unstated = [name for name, about in sources.items() if _licence(about) is None]
    if unstated:
        limits.append(f"The licence of {', '.join(unstated)} is not stated: ask before the weights are passed on.")
    return limits


def _row(name: str, about: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    names = (("users", "users"), ("items", "items"), ("interactions", "interactions"))
    size = ", ".join(f"{about[key]:,} {word}" for key, word in names if key in about)
    own, best = "", ""
    if test is not None:
        setting = settings(test)[0]
        own = cell(test[setting], METRIC)
        found = {method: row[setting][METRIC] for method, row in test["baselines"].items()}
        if found:
            top = max(found, key=found.__getitem__)
            best = f"{top} {found[top]:.4f}"
    fingerprint = str(about.get("train_fingerprint") or "not stated")[:16]
    stated = [about.get("domain") or "not stated", _licence(about) or "not stated"]
    stated = [text.replace("|", "/") for text in stated]
    return markdown_row(name, *stated, size, own, best, f"`{fingerprint}`")


def _filters(name: str, about: Mapping[str, Any]) -> str:
    where = f", {' and '.join(about['where'])}" if about["where"] else ""
    core = f"at least {about['min_user_interactions']} of a user and {about['min_item_interactions']} of an item"
    return f"{name}: {core}, duplicates: {about['duplicates']}{where}"


def _licence(about: Mapping[str, Any]) -> str | None:
    named = about.get("train_file") in ("ml-100k", "ml-1m")
    found: str | None = about.get("license") or (MOVIELENS_LICENCE if named else None)
    return found
