"""Recommendations over HTTP.

hfrec serve exported --port 8000
hfrec serve me/films --revision main --watch_seconds 60 --history_store redis://localhost:6379/0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..serving.settings import ServeArguments
from .parsing import parse_arguments


def parse(words: Sequence[str]) -> ServeArguments:
    """Flags or a settings file into the dataclass."""
    (arguments,) = parse_arguments("serve", (ServeArguments,), words)
    return arguments  # type: ignore[no-any-return]


def main(arguments: ServeArguments) -> dict[str, Any]:
    """Serve until SIGTERM."""
    from ..serving.server import serve

    return serve(arguments)
