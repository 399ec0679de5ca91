"""Watching a hub: a new commit is loaded, an absent hub is survived, a folder cannot be watched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hfrec.serving import watch
from hfrec.serving.problems import Problem
from tests.hub.conftest import TOKEN, client_environment
from tests.hub.loopback import Hub
from tests.serving.conftest import Films
from tests.serving.test_server import Running, running

SERVE = "import sys; from hfrec_command import main; sys.exit(main())"


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


def commit(hub: Hub, folder: Path) -> str:
    """Put a checkpoint on the hub; the commit."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return hub.seed("ann/films", {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def asked(service: Running) -> list[str]:
    answer = service.post("/recommend", {"histories": [["1", "2"]], "top_k": 10})
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["recommendations"][0]]


@pytest.mark.slow
def test_a_service_goes_over_to_what_is_pushed(
    films: Films, other_films: Films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way on a hub: served by its id, on through its absence, over to the next commit without a failure."""
    hub = Hub({TOKEN: ("ann", "write")}).start()
    for name, value in client_environment(hub, tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    try:
        first = commit(hub, films.checkpoint)
        with running(Path("ann/films"), "--watch_seconds", "0.5", program=SERVE) as service:
            assert httpx.get(service.url + "/readyz", timeout=60).json()["model_version"] == first[:12]
            before = asked(service)
            hub.stop()
            time.sleep(2)
            assert asked(service) == before
            hub.start()
            second = commit(hub, other_films.checkpoint)
            deadline, version = time.monotonic() + 300, first
            while time.monotonic() < deadline and version != second[:12]:
                assert len(asked(service)) == 10
                version = httpx.get(service.url + "/readyz", timeout=60).json()["model_version"]
                time.sleep(0.1)
            assert version == second[:12] and asked(service) != before
            service.stop()
            assert service.process.returncode == 0
    finally:
        hub.stop()
