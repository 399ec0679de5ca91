"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .batching import QueueFull

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"  # seconds; a full queue is worked off in less
_log = logging.getLogger("hfrec.serving")


class Problem(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        detail: What was expected, what was found, what to do.
        headers: Of the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(
    request: Request, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """A problem document; `type` is `about:blank`, so that `title` is the status in words."""
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    content |= {"instance": request.url.path, **more}
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Every error of the application is a problem document, those of the framework too."""

    @app.exception_handler(Problem)
    async def refused(request: Request, error: Problem) -> JSONResponse:
        return problem(request, error.status, error.detail, headers=error.headers)

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        detail = "As many requests wait as may wait: try again after the seconds that Retry-After gives."
        return problem(request, 503, detail, headers={"Retry-After": RETRY_AFTER})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"pointer": "/" + "/".join(str(part) for part in entry["loc"][1:]), "detail": entry["msg"]}
            for entry in error.errors()[:20]
        ]
        first = f"{errors[0]['pointer']}: {errors[0]['detail']}" if errors else "the request does not fit"
        return problem(request, 422, f"{first}. /docs shows what is expected.", errors=errors)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request, error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(request, 500, "The service failed at this request; its log says how.")


DOCUMENT: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def documented(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """The problem answers of a route for OpenAPI, such as `documented(s503="The queue is full.")`."""
    return {
        int(name[1:]): {"description": text, "content": {MEDIA_TYPE: {"schema": DOCUMENT}}}
        for name, text in statuses.items()
    }
