"""The short way past the framework: the same answers, and nobody answered who has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serving.conftest import Films, Opens

GOOD = {"histories": [["3", "17"], [], ["nobody knows this"]], "top_k": 3, "deny": ["2"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", GOOD),
        ("/recommend", {"histories": [[3, 17]]}),
        ("/recommend", {"histories": "3"}),
        ("/recommend", {"histories": [["3"]], "top": 3}),
        ("/recommend", {"histories": [["3"]], "top_k": 10_000}),
        ("/similar", {"items": ["7"], "top_k": 2}),
        ("/similar", {"items": ["nobody knows this"]}),
    ],
)
def test_both_ways_say_the_same(path: str, body: Any, films: Films, opened: Opens) -> None:
    """The page of documentation describes the framework's way, and requests go the other one."""
    with opened(films.exported) as client:
        plain = TestClient(client.app.app.app.app, raise_server_exceptions=False)  # what `Direct` stands before
        ours, theirs = client.post(path, json=body), plain.post(path, json=body)
    assert ours.status_code == theirs.status_code
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.json() == theirs.json()


def test_a_client_that_has_gone_is_not_answered(films: Films, opened: Opens) -> None:
    """Half a request that is taken for a whole one would be an error in the log for each closed page."""
    messages = iter([{"type": "http.request", "body": b'{"hist', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "headers": [(b"content-type", b"application/json")],
    }
    with opened(films.exported) as client:
        asyncio.run(client.app(scope, receive, send))
    assert sent == []
