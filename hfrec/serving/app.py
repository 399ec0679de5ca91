"""The routes."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import TypeAdapter
from starlette.types import ASGIApp

from .answering import Filters, RecommendQuery, SimilarQuery
from .direct import Direct
from .histories import Event
from .middleware import LimitedBody, Measured
from .models import ServedModel
from .page import docs_page
from .problems import add_handlers, documented
from .schemas import (
    EventsAnswer,
    EventsRequest,
    FilteredRequest,
    ItemsAnswer,
    ModelAnswer,
    RecommendAnswer,
    RecommendRequest,
    ReloadRequest,
    SimilarAnswer,
    SimilarRequest,
)
from .service import Service, settle
from .watch import watching

_INVALID = "What is wrong with the request, and where."
_FULL = "The queue is full; Retry-After says when to come again."
_LARGE = "The body is too large."
_ASKED = documented(s413=_LARGE, s422=_INVALID, s503=_FULL)
_EXAMPLE = {
    "recommendations": [[{"item_id": "181", "score": 6.2, "rank": 1, "title": "Return of the Jedi (1983)"}]],
    "unknown_items": [0],
    "model_version": "4f1c22ab90de",
}


_COLLECT_AFTER = 50_000  # objects more than before: those of 64 requests on their way are 20,000, and no garbage
_ANSWER = TypeAdapter(dict[str, Any])
asked = APIRouter()  # answered by `Direct`
routes = APIRouter()


def create_app(service: Service) -> ASGIApp:
    """The application of a service; it starts the queue and closes the service at the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        before = gc.get_threshold()
        gc.set_threshold(_COLLECT_AFTER, *before[1:])
        settle()
        async with watching(service):
            yield
        await service.close()
        gc.unfreeze()
        gc.set_threshold(*before)

    app = FastAPI(
        title="hfrec",
        summary="Sequential recommendations.",
        description="Errors are problem documents (RFC 9457).",
        lifespan=lifespan,
        docs_url=None,  # these pages load their scripts from elsewhere, which a shop's network may not reach
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(asked)
    app.include_router(routes)
    add_handlers(app)
    limited = LimitedBody(Direct(app, asked.routes), max_bytes=service.settings.max_body_bytes)
    return Measured(limited, metrics=service.metrics, draining=lambda: service.draining)


async def _service(request: Request) -> Service:  # async: FastAPI sends other functions through a thread
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


def _json(content: dict[str, Any]) -> Response:
    """An answer that is known to fit its model: checking each item again costs more than finding it."""
    return Response(_ANSWER.dump_json(content), media_type="application/json")


def _filters(body: FilteredRequest, filter_seen: bool | None = None) -> Filters:
    allow, deny, categories = body.allow, body.deny, body.categories
    if allow is None and deny is None and categories is None:
        return Filters(filter_seen)
    return Filters(filter_seen, *(None if names is None else tuple(names) for names in (allow, deny, categories)))


def _described(model: ServedModel) -> ModelAnswer:
    return ModelAnswer(
        model_name_or_path=model.name,
        model_version=model.version,
        kind=model.kind,  # type: ignore[arg-type]  # one of the two
        num_items=len(model.catalogue.item_ids),
    )


@asked.post(
    "/recommend",
    tags=["recommend"],
    summary="The items that come next",
    response_model=RecommendAnswer,
    responses={**_ASKED, 200: {"content": {"application/json": {"example": _EXAMPLE}}}},
)
async def recommend(body: RecommendRequest, service: Served) -> Response:
    """The most likely next items after each history, sent along or kept in the store."""
    histories = body.histories if body.user_ids is None else await service.histories(body.user_ids)
    query = RecommendQuery(histories or [], body.top_k, _filters(body, body.filter_seen), body.unknown_items)
    lists, unknown, version = await service.recommend(query)
    return _json({"recommendations": lists, "unknown_items": unknown, "model_version": version})


@asked.post("/similar", tags=["recommend"], summary="Items like these", response_model=SimilarAnswer, responses=_ASKED)
async def similar(body: SimilarRequest, service: Served) -> Response:
    """The items most like each item, by the cosine of what the model has learned of them."""
    lists, version = await service.similar(SimilarQuery(body.items, body.top_k, _filters(body)))
    return _json({"similar": lists, "model_version": version})


@routes.get("/items", tags=["recommend"], summary="Search by title", response_model=ItemsAnswer, responses=_ASKED)
async def items(
    service: Served,
    q: Annotated[str, Query(max_length=256, description="Words, whole or begun.", examples=["star wa"])],
    limit: Annotated[int, Query(ge=1, le=100, description="Most items.")] = 10,
) -> Response:
    """Items whose titles hold the words, without regard to case, accents and punctuation; best first."""
    hits, version = await service.search(q, limit)
    return _json({"items": hits, "model_version": version})


@routes.post("/events", tags=["histories"], summary="Keep events of users", responses=_ASKED)
async def events(body: EventsRequest, service: Served) -> EventsAnswer:
    """Add items to histories. When the answer is here they are kept; sent again, they change nothing."""
    found = [Event(event.event_id, event.user_id, event.item_id, event.timestamp) for event in body.events]
    accepted = await service.append(found)
    return EventsAnswer(accepted=accepted, duplicates=len(found) - accepted)


@routes.post(
    "/reload",
    tags=["operation"],
    summary="Go over to another model",
    responses=documented(s401="No token, or another one.", s403="Reloading is switched off.", s422=_INVALID),
)
async def reload(
    service: Served,
    body: ReloadRequest | None = None,
    authorization: Annotated[
        str | None, Header(description="Bearer and the token", examples=["Bearer change-me"])
    ] = None,
) -> ModelAnswer:
    """Load a model and swap; no request fails meanwhile, and a model that cannot be loaded changes nothing."""
    service.check_token(authorization)
    wanted = body or ReloadRequest()
    return _described(await service.reload(wanted.model_name_or_path, wanted.revision))


@routes.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Every route, for people."""
    return HTMLResponse(docs_page(request.app.openapi(), str(request.base_url).rstrip("/")))


@routes.get("/healthz", tags=["operation"], summary="The process is alive")
async def healthz() -> dict[str, str]:
    """Always 200; where it does not come, restart the service."""
    return {"status": "alive"}


@routes.get("/readyz", tags=["operation"], summary="Requests may come", responses=documented(s503="Not now."))
async def readyz(service: Served) -> ModelAnswer:
    """200 with the model that serves; 503 while the store is away or the service is about to stop."""
    await service.check_ready()
    return _described(service.model)


@routes.get("/metrics", tags=["operation"], summary="Metrics for Prometheus")
async def metrics(service: Served) -> Response:
    """Counters and times in the text format of Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
