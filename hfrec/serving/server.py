"""`hfrec serve`: load, listen, drain."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

from .settings import ServeArguments


def serve(settings: ServeArguments) -> dict[str, Any]:
    """Load the model, listen, and answer until SIGTERM or Ctrl-C; then finish what runs.

    Returns:
        `exit_code`: 0 after a drain, 1 when it did not start.

    Raises:
        ImportError: The extra `serve` is not installed.
        OSError: No such model, or a store that cannot be used.
        ValueError: A damaged model or wrong settings.
    """
    began = time.perf_counter()
    try:
        import uvicorn

        from .app import create_app
        from .draining import DrainingServer
        from .service import Service
        from .watch import check_watchable
    except ImportError as error:
        raise ImportError(f"the service needs FastAPI and uvicorn: `pip install 'hfrec[serve]'`. ({error})") from error

    _log_to_stderr()
    if settings.watch_seconds:
        check_watchable(settings.model_name_or_path)
    service = Service(settings)
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        server_header=False,
    )
    try:
        DrainingServer(config, service, began).run()
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
