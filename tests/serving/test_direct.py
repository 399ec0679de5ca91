"""The short way past the framework: the same answers, and nobody answered who has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

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

    async def ask(app: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as asking:
            return await asking.post(path, json=body)

    with opened(films.exported) as client:
        direct = client.app.app.app
        ours, theirs = (client.portal.call(ask, app) for app in (direct, direct.app))
    assert ours.status_code == theirs.status_code
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if ours.status_code == 200:
        assert ours.json() == theirs.json()
    else:  # pydantic calls JSON's arrays lists once they are Python's
        pointers = [[error["pointer"] for error in answer.json().get("errors", [])] for answer in (ours, theirs)]
        assert pointers[0] == pointers[1]


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
