"""Going over to a new commit of a hub by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from .problems import Problem
from .service import Service

_log = logging.getLogger("hfrec.serving")


@asynccontextmanager
async def watching(service: Service) -> AsyncIterator[None]:
    """Watch the hub within the block, where `watch_seconds` says so.

    Raises:
        ValueError: The model is a folder, which no hub moves.
    """
    seconds = service.settings.watch_seconds
    if not seconds:
        yield
        return
    check_watchable(service.settings.model_name_or_path)
    task = asyncio.get_running_loop().create_task(_watch(service, seconds))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def check_watchable(name: str) -> None:
    """Refuse to watch a folder.

    Raises:
        ValueError: With what to do in its place.
    """
    if Path(name).is_dir():
        raise ValueError(
            f"`watch_seconds` watches a model of a hub, and {name} is a folder: leave it out and send `POST /reload` "
            "after the folder has changed."
        )


async def _watch(service: Service, seconds: float) -> None:
    """Look up the commit every so often and reload when it is another one."""
    name, revision = service.source
    while True:
        await asyncio.sleep(seconds)
        try:
            commit = await asyncio.to_thread(_commit_of, name, revision)
            if not commit.startswith(service.model.version):
                _log.info("%s has moved to %s", name, commit[:12])
                await service.reload()
        except Problem as error:  # logged by the service, which goes on with the old model
            _log.info("the next look is in %g s: %s", seconds, error.detail)
        except Exception as error:  # the hub's and the connection's errors share no parent
            _log.warning("%s could not be looked up, the next look is in %g s: %s", name, seconds, error)


def _commit_of(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().model_info(name, revision=revision).sha)
