"""Watching a hub: a new commit is loaded, an absent hub is survived, a folder cannot be watched."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hfrec.serving import watch
from hfrec.serving.problems import Problem


class Watched:
    """As much of a service as is watched; its reloads take over the commit, or are refused."""

    def __init__(self, refuse: bool = False) -> None:
        self.settings = SimpleNamespace(watch_seconds=0.01, model_name_or_path="me/films")
        self.source = ("me/films", "main")
        self.model = SimpleNamespace(version="a" * 12)
        self.reloads: list[str] = []
        self.refuse = refuse

    async def reload(self) -> None:
        self.reloads.append(COMMITS["now"])
        if self.refuse:
            raise Problem(422, "it cannot be loaded")
        self.model = SimpleNamespace(version=COMMITS["now"][:12])


COMMITS: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    COMMITS["now"], COMMITS["asked"] = "a" * 40, []

    def commit_of(name: str, revision: str | None) -> str:
        COMMITS["asked"].append((name, revision))
        if COMMITS["now"] is None:
            raise ConnectionError("the hub is away")
        return str(COMMITS["now"])

    monkeypatch.setattr(watch, "_commit_of", commit_of)


def looks(service: Watched, commits: list[str | None]) -> None:
    async def play() -> None:
        async with watch.watching(service):  # type: ignore[arg-type]
            for commit in commits:
                COMMITS["now"] = commit
                await asyncio.sleep(0.1)

    asyncio.run(play())


def test_a_new_commit_is_loaded_once() -> None:
    """A watcher that loads at every look swaps all day long; one that never does serves yesterday's model."""
    service = Watched()
    looks(service, ["a" * 40, "b" * 40, "c" * 40])
    assert service.reloads == ["b" * 40, "c" * 40]
    assert set(COMMITS["asked"]) == {("me/films", "main")}


def test_an_absent_hub_and_a_broken_commit_are_survived() -> None:
    """A watcher that ends at the first error stops without a word."""
    service = Watched(refuse=True)
    looks(service, [None, "b" * 40, None])
    assert "b" * 40 in service.reloads
    service.refuse = False
    looks(service, ["c" * 40])
    assert service.reloads[-1] == "c" * 40


def test_a_folder_cannot_be_watched(tmp_path: Any) -> None:
    """Nobody moves it, so that the flag would do nothing."""
    with pytest.raises(ValueError, match="send `POST /reload` after the folder has changed"):
        watch.check_watchable(str(tmp_path))
