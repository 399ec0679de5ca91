"""The queue before the model: it gathers, it is bounded, and nobody pays for a neighbour's mistake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hfrec.serving.batching import Batcher, QueueFull


class Gate:
    """Answers a batch when it is let through; numbers below 0 are refused, 13 breaks the batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, queries: list[int]) -> list[Any]:
        self.open.wait(10)
        self.batches.append(queries)
        if 13 in queries:
            raise RuntimeError("all of it")
        return [ValueError(query) if query < 0 else 10 * query for query in queries]


def run(scene: Callable[[Batcher, Gate], Awaitable[None]], **sizes: int) -> Gate:
    gate = Gate()

    async def play() -> None:
        batcher = Batcher(gate, **{"max_batch_size": 4, "max_queue": 100, **sizes})
        batcher.start()
        await asyncio.wait_for(scene(batcher, gate), 20)
        await batcher.stop()

    asyncio.run(play())
    return gate


async def ask(batcher: Batcher, numbers: list[int]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(batcher.submit(number, 1)) for number in numbers]
    await asyncio.sleep(0.05)
    return tasks


def test_what_comes_meanwhile_is_answered_together() -> None:
    """Without it, 64 clients cost 64 calls of the model."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        tasks = await ask(batcher, [1])
        tasks += await ask(batcher, [2, 3, 4, 5, 6, 7])
        gate.open.set()
        assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50, 60, 70]

    assert run(scene).batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_a_large_query_is_not_stuck() -> None:
    """One that is larger than a batch would wait for ever."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        gate.open.set()
        assert await batcher.submit(3, 50) == 30

    run(scene)


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    """A queue without end answers everybody too late."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        tasks = await ask(batcher, [1])  # being answered
        tasks += await ask(batcher, [2, 3])
        with pytest.raises(QueueFull):
            await batcher.submit(4, 1)
        gate.open.set()
        assert await asyncio.gather(*tasks) == [10, 20, 30]
        assert await batcher.submit(5, 1) == 50
        assert batcher.depth == 0

    run(scene, max_queue=2)


def test_a_wrong_query_does_not_touch_the_others() -> None:
    """Somebody else's unknown item must not fail my request."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        tasks = await ask(batcher, [1])
        tasks += await ask(batcher, [2, -3, 4])
        gate.open.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[0], found[1], found[3]] == [10, 20, 40]
        assert isinstance(found[2], ValueError)

    run(scene)


def test_a_broken_batch_is_told_and_the_next_one_works() -> None:
    """An exception in the thread that ends the loop leaves every later request waiting."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        gate.open.set()
        with pytest.raises(RuntimeError, match="all of it"):
            await batcher.submit(13, 1)
        assert await batcher.submit(2, 1) == 20

    run(scene)


def test_a_client_that_goes_away_harms_nobody() -> None:
    """Its answer has nobody to go to; that must not end the loop."""

    async def scene(batcher: Batcher, gate: Gate) -> None:
        tasks = await ask(batcher, [1, 2, 3])
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0.05)
        gate.open.set()
        assert await tasks[1] == 20
        assert await batcher.submit(4, 1) == 40

    run(scene)


def test_stopping_answers_what_waits() -> None:
    """A stop that drops the queue fails requests that had been taken in."""
    answers: list[Any] = []

    async def scene(batcher: Batcher, gate: Gate) -> None:
        tasks = await ask(batcher, list(range(1, 11)))
        asyncio.get_running_loop().call_later(0.1, gate.open.set)
        await batcher.stop()
        answers.extend(await asyncio.gather(*tasks))

    run(scene)
    assert answers == [10 * number for number in range(1, 11)]
