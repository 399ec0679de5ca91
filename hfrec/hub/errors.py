"""What went wrong on a hub, in words that say what to do and hold no secret."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

_SECRETS = (
    (re.compile(r"hf_[A-Za-z0-9_]{3,}"), "hf_***"),
    (re.compile(r"(?i)(bearer )\S+"), r"\1***"),
    (re.compile(r"(https?://)[^\s/@'\"]+@"), r"\1***@"),
    # Storage addresses are signed: whoever reads the query may use it.
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?***"),
)
_REMEDIES = {
    401: "the hub knows no such token: log in with `hf auth login` or set HF_TOKEN",
    402: "the quota is used up: free space on the hub or choose another account",
    403: "the token may not do this: use one with write access to the repository",
    404: "there is no such repository, revision or file, or it is private: check the name and log in",
    409: "the hub is changing this repository just now: try again",
    412: "somebody committed meanwhile, and their commit is kept: look at it, then push again",
    413: "the hub takes no file of this size, or the quota is used up",
    429: "too many requests: wait some minutes and try again",
    507: "the quota is used up: free space on the hub or choose another account",
}


class HubError(OSError):
    """Something on the hub failed; the message says what to do and never holds a token.

    Example:
        >>> raise HubError("no such repository")
        Traceback (most recent call last):
        hfrec.hub.errors.HubError: no such repository
    """


def redact(text: str) -> str:
    """Take tokens, credentials and the signatures of addresses out of a text.

    Example:
        >>> redact("Bearer abc for https://host/file?signature=1 with hf_abcdef")
        'Bearer *** for https://host/file?*** with hf_***'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def status_of(error: BaseException) -> int | None:
    """HTTP status behind an error or behind what caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        response: Any = getattr(current, "response", None)
        if response is not None:
            return int(response.status_code)
        current = current.__cause__ or current.__context__
    return None


def explain(error: BaseException) -> str:
    """One line on a failed request: status, what to do, and what the hub said.

    Example:
        >>> explain(ConnectionError("refused with hf_abcdef"))
        'the hub cannot be reached or broke off (ConnectionError: refused with hf_***)'
    """
    status = status_of(error)
    # An upload that failed says so in general; why is in its cause.
    general = getattr(error, "response", None) is None and error.__cause__ is not None
    causes = [error, error.__cause__] if general else [error]
    said = redact("; ".join(" ".join(str(cause).split()) for cause in causes))
    if status is None:
        return f"the hub cannot be reached or broke off ({type(error).__name__}: {said})"
    remedy = _REMEDIES.get(status, "the hub has trouble: try again later" if status >= 500 else "the hub refused")
    return f"{status}, {remedy} ({said})"


def push_command(folder: str | os.PathLike[str], repo_id: str, revision: str | None = None) -> str:
    """The command that pushes a folder.

    Example:
        >>> push_command("my run", "me/films", "v2")
        "hfrec push --folder 'my run' --repo_id me/films --revision v2"
    """
    words = ["hfrec", "push", "--folder", str(folder), "--repo_id", repo_id]
    return shlex.join(words + (["--revision", revision] if revision else []))
