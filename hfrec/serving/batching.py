"""Requests that come at about the same time are answered together: while one batch is computed, the next gathers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class QueueFull(Exception):
    """As much waits as may wait."""


class Batcher:
    """One thread that computes, and a bounded queue before it.

    There is no waiting for company: a lone request goes at once, and under load batches grow by themselves.

    Args:
        answer: Answers a batch in the thread: for each query its result, or the exception that it gets.
        max_batch_size: Rows that are answered together, unless a single query has more.
        max_queue: Rows that may wait.
    """

    def __init__(self, answer: Callable[[list[Any]], Sequence[Any]], *, max_batch_size: int, max_queue: int) -> None:
        self._answer, self._max_batch_size, self._max_queue = answer, max_batch_size, max_queue
        self._waiting: deque[tuple[Any, int, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hfrec-model")
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.depth = 0  # rows that wait

    def start(self) -> None:
        """Begin to answer; within a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, take nothing more, and end."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, query: Any, rows: int) -> Any:
        """The answer to a query.

        Args:
            query: What `answer` takes.
            rows: How much it counts in a batch and in the queue.

        Raises:
            QueueFull: At once, when there is no room or the end has come.
        """
        if self._stopping or self.depth + rows > self._max_queue:
            raise QueueFull
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, rows, future))
        self.depth += rows
        self._wake.set()
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch and self._stopping:
                return
            if not batch:
                self._wake.clear()
                continue
            queries = [query for query, _ in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._answer, queries)
            except Exception as error:  # of the whole batch: each of its requests is told
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _take(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """The oldest queries that fit in a batch, at least one."""
        batch: list[tuple[Any, asyncio.Future[Any]]] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0][1] <= self._max_batch_size):
            query, rows, future = self._waiting.popleft()
            size += rows
            self.depth -= rows
            if not future.cancelled():
                batch.append((query, future))
        return batch
