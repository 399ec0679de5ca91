"""Around every request: the limit of its size, and its time and status for the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics


class Measured:
    """Counts answers and their time by route, never by what was asked for, which would have no end.

    Args:
        app: What answers.
        metrics: Where it is counted.
        draining: Whether the service is about to stop; connections are then closed after their answer.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self.app, self.metrics, self.draining = app, metrics, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.draining():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.answered(path, status, time.perf_counter() - began)


class LimitedBody:
    """Refuses a body that is too large before it is held, whether or not it says how large it is.

    Args:
        app: What answers.
        max_bytes: Largest body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        size = 0

        async def counted() -> Message:
            nonlocal size
            if claimed.isdigit() and int(claimed) > self.max_bytes:
                raise self._refusal()
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_bytes:
                raise self._refusal()
            return message

        await self.app(scope, counted, send)

    def _refusal(self) -> HTTPException:
        # The rest of the body is not read: the connection ends with the answer.
        return HTTPException(
            413, f"the body must be at most {self.max_bytes} bytes: send fewer histories.", {"Connection": "close"}
        )
