"""A server that says where it listens, drains on the first signal and ends well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from .service import Service


class DrainingServer(uvicorn.Server):
    """uvicorn's, which takes no more connections at the first signal and raises it again after all went well.

    Args:
        config: Of uvicorn.
        service: Told that the end is near; its settings say how long that is.
        began: When the process began to load, by `time.perf_counter`.
    """

    def __init__(self, config: uvicorn.Config, service: Service, began: float) -> None:
        super().__init__(config)
        self.service, self.began = service, began
        self.stop_at = float("inf")

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.config.host, self.servers[0].sockets[0].getsockname()[1]
            model, took = self.service.model, time.perf_counter() - self.began
            print(
                f"Serving {model.name} ({model.kind}, {len(model.catalogue.item_ids):,} items, version "
                f"{model.version}) at http://{host}:{port} after {took:.1f} s; /docs explains it.",
                flush=True,
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal does not wait."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
        self.service.draining = True
        self.stop_at = time.monotonic() + self.service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to stop."""
        self.should_exit = self.should_exit or time.monotonic() >= self.stop_at
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within the block signals drain; after it they do what they did."""
        before = {kind: signal.signal(kind, self.handle_exit) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
