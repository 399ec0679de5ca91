"""uvicorn around the application: says where it listens, and drains on SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .settings import ServeArguments

EXTRA = "the service needs FastAPI and uvicorn: `pip install 'hfrec[serve]'`."


def serve(settings: ServeArguments) -> dict[str, Any]:
    """Load the model, listen, and answer until SIGTERM or Ctrl-C; then finish what runs.

    Returns:
        `exit_code`: 0 after a drain, 1 when it did not start.

    Raises:
        ImportError: The extra `serve` is not installed.
        OSError: No such model, or a store or port that cannot be used.
        ValueError: A damaged model or wrong settings.
    """
    began = time.perf_counter()
    try:
        import uvicorn

        from .app import create_app
    except ImportError as error:
        raise ImportError(f"{EXTRA} ({error})") from error
    from .service import Service
    from .watch import check_watchable

    _log_to_stderr()
    if settings.watch_seconds:
        check_watchable(settings.model_name_or_path)
    service = Service(settings)

    class Server(uvicorn.Server):
        """Drains on the first signal and exits with 0."""

        stop_at = float("inf")

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                port = self.servers[0].sockets[0].getsockname()[1]
                model, took = service.model, time.perf_counter() - began
                print(
                    f"Serving {model.name} ({model.kind}, {len(model.catalogue.item_ids):,} items, version "
                    f"{model.version}) at http://{settings.host}:{port} after {took:.1f} s; /docs explains it.",
                    flush=True,
                )

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if service.draining:  # the second one does not wait
                self.should_exit = self.force_exit = True
            service.draining = True
            self.stop_at = time.monotonic() + settings.drain_seconds

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or time.monotonic() >= self.stop_at
            return await super().on_tick(counter)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """As the parent, which raises the signal again after all went well."""
            kinds = (signal.SIGINT, signal.SIGTERM)
            before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
            try:
                yield
            finally:
                for kind, handler in before.items():
                    signal.signal(kind, handler)

    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        server_header=False,
    )
    server = Server(config)
    try:
        server.run()
    except SystemExit as error:  # uvicorn has said why
        return {"exit_code": 1 if error.code else 0}
    print("Stopped; every request that had come was answered.", flush=True)
    return {"exit_code": 0}


def _log_to_stderr() -> None:
    """The service's own lines; the level comes from HFREC_LOG_LEVEL."""
    logger = logging.getLogger("hfrec.serving")
    logger.setLevel(os.environ.get("HFREC_LOG_LEVEL", "INFO").upper())
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
