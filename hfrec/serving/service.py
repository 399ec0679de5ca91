"""What the routes do: one model at a time, a queue before it, and a store beside it."""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .answering import RecommendQuery, SearchQuery, SimilarQuery, answer
from .batching import Batcher, QueueFull
from .histories import Event, HistoryStore
from .metrics import Metrics
from .models import ServedModel, load_model
from .problems import RETRY_AFTER, Problem
from .settings import TOKEN_VARIABLE, ServeArguments
from .stores import open_store

_T = TypeVar("_T")
_MAX_STORE_CALLS = 256  # that wait; beyond them the answer is 503
_log = logging.getLogger("hfrec.serving")


def settle() -> None:
    """Free what is unreachable, and spare the rest, which stays, from being looked at by each later collection.

    Requests make and leave so many objects that looking through the loaded libraries and catalogue, over and over,
    takes a tenth of the time of a small model's service.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Service:
    """A model behind a queue, and the histories of users.

    Args:
        settings: Those of `hfrec serve`.

    Raises:
        OSError: No such model, or a store that cannot be used.
        ValueError: A damaged model, or another kind of store.
    """

    def __init__(self, settings: ServeArguments) -> None:
        self.settings = settings
        self.source = (settings.model_name_or_path, settings.revision)
        self.model: ServedModel = self._load(*self.source)
        self.store: HistoryStore | None = open_store(settings.history_store)
        self.metrics = Metrics()
        self.metrics.serves(self.model)
        self.draining = False
        self.batcher = Batcher(self._answer, max_batch_size=settings.max_batch_size, max_queue=settings.max_queue)
        self.metrics.queue.set_function(lambda: self.batcher.depth)
        self._token = os.environ.get(TOKEN_VARIABLE, "")
        self._reloading = asyncio.Lock()
        # One thread for the store, as SQLite writes one at a time, and one for loading beside the one that serves.
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="hfrec-store")
        self._store_calls = 0

    async def close(self) -> None:
        """Answer what waits, then let go of everything."""
        await self.batcher.stop()
        self._store_thread.shutdown(wait=True)
        if self.store is not None:
            self.store.close()

    async def recommend(self, query: RecommendQuery) -> tuple[list[list[dict[str, Any]]], list[int], str]:
        """Lists, unknown items of each history, and the version of the model that made them.

        Raises:
            Problem: Too much was asked for, or what the model refuses.
            QueueFull: There is no room.
        """
        self._check_count("histories", len(query.histories))
        self._check_top_k(query.top_k)
        for place, history in enumerate(query.histories):
            if len(history) > self.settings.max_history:
                raise Problem(
                    422,
                    f"/histories/{place}: expected at most {self.settings.max_history} items, found {len(history)}: "
                    "send the newest ones.",
                )
        if not query.histories:
            return [], [], self.model.version
        (lists, unknown), version = await self._submit(query, len(query.histories))
        self.metrics.lists.inc(len(lists))
        if any(unknown):
            self.metrics.unknown.inc(sum(unknown))
        return lists, unknown, version

    async def similar(self, query: SimilarQuery) -> tuple[list[list[dict[str, Any]]], str]:
        """Lists for items, and the version of the model."""
        self._check_count("items", len(query.items))
        self._check_top_k(query.top_k)
        lists, version = await self._submit(query, max(1, len(query.items)))
        return lists, version

    async def search(self, text: str, limit: int) -> tuple[list[dict[str, Any]], str]:
        """Items by title, and the version of the model."""
        hits, version = await self._submit(SearchQuery(text, limit), 1)
        return hits, version

    async def histories(self, user_ids: Sequence[str]) -> list[list[str]]:
        """The newest items of users of the store."""
        store = self._require_store()
        self._check_count("user_ids", len(user_ids))
        return await self._in_store(lambda: store.newest(user_ids, self.settings.max_history))

    async def append(self, events: Sequence[Event]) -> int:
        """Keep events; the number of new ones."""
        store = self._require_store()
        self._check_count("events", len(events))
        accepted = await self._in_store(lambda: store.append(events))
        self.metrics.events.labels("accepted").inc(accepted)
        self.metrics.events.labels("duplicate").inc(len(events) - accepted)
        return accepted

    async def check_ready(self) -> None:
        """Raise what keeps the service from being asked.

        Raises:
            Problem: It is about to stop, or the store cannot be used.
        """
        if self.draining:
            raise Problem(503, "The service is about to stop: ask another one.")
        if self.store is not None:
            await self._in_store(self.store.check)

    def check_token(self, authorization: str | None) -> None:
        """Let pass who has the token.

        Raises:
            Problem: No token was set at the start, or another one is given.
        """
        if not self._token:
            raise Problem(
                403, f"Reloading is switched off: start the service with a token in the environment, {TOKEN_VARIABLE}."
            )
        given = (authorization or "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, f"Expected `Authorization: Bearer` with the token of {TOKEN_VARIABLE}.", headers)

    async def reload(self, name: str | None = None, revision: str | None = None) -> ServedModel:
        """Load a model beside the one that serves, and swap; requests go on all the while.

        Args:
            name: Folder or hub id; that of the last one when None.
            revision: Of the hub; the last one when None and `name` is None.

        Raises:
            Problem: It cannot be loaded; the old one goes on serving.
        """
        async with self._reloading:
            old = self.source
            source = (name or old[0], revision if revision is not None or name is not None else old[1])
            try:
                model = await asyncio.to_thread(self._load, *source)
            except Exception as error:  # those of strict configs, of weights and of hubs share no parent
                self.metrics.reloads.labels("refused").inc()
                _log.warning("%s cannot be loaded, %s goes on serving: %s", source[0], self.model.version, error)
                raise Problem(
                    422, f"{source[0]} cannot be loaded, the model {self.model.version} goes on serving: {error}"
                ) from error
            self.model, self.source = model, source
            self.metrics.reloads.labels("done").inc()
            self.metrics.serves(model)
            await asyncio.to_thread(settle)  # the old one goes now, and not beside the next one
            _log.info("serving %s, version %s", model.name, model.version)
            return model

    def _load(self, name: str, revision: str | None) -> ServedModel:
        return load_model(name, revision=revision, int8=self.settings.int8, num_threads=self.settings.num_threads)

    def _answer(self, queries: list[Any]) -> list[Any]:
        """In the thread of the batcher: every query of a batch is answered by one model."""
        began, model = time.perf_counter(), self.model
        found = answer(
            model,
            queries,
            category_column=self.settings.category_column,
            max_batch_size=self.settings.max_batch_size,
        )
        self.metrics.rows.observe(len(queries))
        self.metrics.batch_seconds.observe(time.perf_counter() - began)
        return [result if isinstance(result, Exception) else (result, model.version) for result in found]

    async def _submit(self, query: Any, rows: int) -> Any:
        try:
            return await self.batcher.submit(query, rows)
        except ValueError as error:
            raise Problem(422, str(error)) from error

    async def _in_store(self, call: Callable[[], _T]) -> _T:
        if self._store_calls >= _MAX_STORE_CALLS:
            raise QueueFull
        self._store_calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._store_thread, call)
        except Exception as error:  # a full disk, a server that is away: each store has errors of its own
            _log.error("the history store cannot be used: %s", error)
            raise Problem(
                503, f"The history store cannot be used: {str(error).rstrip('.')}.", {"Retry-After": RETRY_AFTER}
            ) from error
        finally:
            self._store_calls -= 1

    def _require_store(self) -> HistoryStore:
        if self.store is None:
            raise Problem(422, "The service keeps no histories (`--history_store none`): send them with the request.")
        return self.store

    def _check_count(self, name: str, count: int) -> None:
        if count > self.settings.max_histories:
            raise Problem(
                422, f"/{name}: expected at most {self.settings.max_histories} a request, found {count}: send several."
            )

    def _check_top_k(self, top_k: int) -> None:
        if top_k > self.settings.max_top_k:
            raise Problem(422, f"/top_k: expected at most {self.settings.max_top_k}, found {top_k}.")
