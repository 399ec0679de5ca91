"""What is asked thousands of times a second, answered without the framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send


class Direct:
    """Calls the endpoints of some routes itself, from the bytes of the request to those of the answer.

    Between a request and its endpoint FastAPI has middleware, routing, dependencies and telemetry, three times as much
    work as the server has with the request. Whatever is not a `POST` to one of the routes goes that way.

    Args:
        app: The application, which has the routes too, for its documentation.
        routes: Their endpoints take `body`, a model of pydantic, and `service`, and give a response.
    """

    def __init__(self, app: FastAPI, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.ways: dict[str, tuple[APIRoute, type[BaseModel]]] = {
            route.path: (route, get_type_hints(route.endpoint)["body"])
            for route in routes
            if isinstance(route, APIRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self.ways.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if way is None:
            await self.app(scope, receive, send)
            return
        route, model = way
        scope["route"] = route
        try:
            _check_type(scope)
            body = await _read(receive)
            if body is None:
                return
            response: Response = await route.endpoint(_parsed(model, body), self.app.state.service)
        except Exception as error:
            response = await self._told(Request(scope), error)
        await response(scope, receive, send)

    async def _told(self, request: Request, error: Exception) -> Any:
        """What the application says of an error; it has a handler of every one."""
        handlers = self.app.exception_handlers
        kind = next(kind for kind in type(error).__mro__ if kind in handlers)
        told: Any = handlers[kind](request, error)
        return await told


def _check_type(scope: Scope) -> None:
    """A page elsewhere may send text without asking, and JSON only if this service allows it."""
    found = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "none")
    kind = found.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(415, f"expected `Content-Type: application/json`, found {kind}.")


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _parsed(model: type[BaseModel], body: bytes) -> BaseModel:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors(include_url=False)]
        raise RequestValidationError(found) from error
