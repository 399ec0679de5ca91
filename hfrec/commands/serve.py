"""Recommendations over HTTP.

hfrec serve exported --port 8000
hfrec serve me/films --revision main --watch_seconds 60 --history_store redis://localhost:6379/0
"""

from __future__ import annotations

from typing import Any

from ..serving.settings import ServeArguments
from .parsing import parse_into

parse = parse_into("serve", ServeArguments)


def main(arguments: ServeArguments) -> dict[str, Any]:
    """Serve until SIGTERM."""
    from ..serving.server import serve

    return serve(arguments)
