"""Fuzz of `hfrec serve`: whatever comes in, what goes out is an answer or a problem document, never a failure."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .kills import Trial

FIELDS = (
    "histories", "user_ids", "top_k", "allow", "deny", "categories", "filter_seen", "unknown_items", "items", "events",
    "model_name_or_path", "revision", "bogus",
)  # fmt: skip


def fuzzed_requests(model: Path, folder: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """Bodies of strange values and broken bytes; after all of them the service answers as before."""
    from fastapi.testclient import TestClient

    from hfrec.serving.app import create_app
    from hfrec.serving.service import Service
    from hfrec.serving.settings import ServeArguments

    item = pq.read_table(model / "items.parquet")["item_id"][0].as_py()
    strange: list[Any] = [
        None, True, 0, -1, 1, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\0", "a" * 5000, [], [[]],
        {}, {"a": 1}, item, [item], [[item]], [["\ud800"]], [[None]], "'; DROP TABLE events;--", [[item] * 300] * 99,
    ]  # fmt: skip
    bodies: dict[str, dict[str, Any]] = {
        "/recommend": {"histories": [[item]], "top_k": 3},
        "/similar": {"items": [item], "top_k": 3},
        "/events": {"events": [{"event_id": "e", "user_id": "u", "item_id": item, "timestamp": 1}]},
        "/reload": {},
    }
    store = f"sqlite:///{folder / 'histories.db'}"
    service = Service(ServeArguments(str(model), history_store=store))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        before = client.post("/recommend", json=bodies["/recommend"]).json()
        for _ in range(count):
            path = draw.choice(list(bodies))
            body = json.loads(json.dumps(bodies[path]))
            body[draw.choice(FIELDS)] = draw.choice(strange)
            if path == "/events" and isinstance(body["events"], list) and body["events"]:
                body["events"][0] = {**bodies[path]["events"][0], draw.choice(["event_id", "user_id", "timestamp"]): 0}
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            if draw.random() < 0.2:
                place = draw.randrange(len(content))
                content = content[:place] + draw.choice([b"", b"\xff", b"\0", b"{"]) + content[place + 1 :]
            answer = client.post(path, content=content, headers={"content-type": "application/json"})
            wrong = None if answer.status_code < 500 else f"{answer.status_code} to {content[:300]!r}"
            if answer.status_code >= 400 and "detail" not in answer.json():
                wrong = f"no problem document to {content[:300]!r}"
            yield Trial(path, "a strange request", "answered" if answer.status_code < 400 else "told", wrong)
        same = client.post("/recommend", json=bodies["/recommend"]).json() == before
    yield Trial("/recommend", "a strange request", "same result", None if same else "another answer than before")
