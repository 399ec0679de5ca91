"""The stores: order, idempotence, and what is left after a kill -9; SQLite, and a real Redis where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from hfrec.serving.histories import Event, SQLiteHistories, without_password
from hfrec.serving.stores import open_store

ROOT = Path(__file__).parents[2]
# Sends one event after the other and prints each once it is acknowledged.
WRITER = """
import sys
from hfrec.serving.histories import Event
from hfrec.serving.stores import open_store
store = open_store(sys.argv[1])
for number in range(100_000):
    store.append([Event(f"e{number}", "anna", f"i{number}", number), Event(f"e{number}", "bert", "x", number)])
    print(number, flush=True)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    pytest.importorskip("redis", reason="needs the client: pip install 'hfrec[serve]'")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    words = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([*words, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'histories.db'}"
    address: str = request.getfixturevalue("redis_url")
    number = crc32(request.node.name.encode()) % 15 + 1
    import redis

    redis.Redis.from_url(f"{address}/{number}").flushdb()
    return f"{address}/{number}"


@pytest.fixture
def store(url: str) -> Iterator[Any]:
    found = open_store(url)
    assert found is not None
    yield found
    found.close()


def event(name: str, item: str, when: float, user: str = "anna") -> Event:
    return Event(name, user, item, when)


def test_newest_items_in_the_order_of_their_times(store: Any) -> None:
    """Events come late and twice; a history in the order of arrival is another history."""
    assert store.append([event("b", "second", 2.0), event("a", "first", 1.0), event("d", "fourth", 4.0)]) == 3
    assert store.append([event("c", "third", 3.0)]) == 1
    assert store.newest(["anna"], 10) == [["first", "second", "third", "fourth"]]
    assert store.newest(["anna"], 2) == [["third", "fourth"]]


def test_equal_times_are_ordered_by_event_id(store: Any) -> None:
    """Without a rule, two servers would read two histories."""
    store.append([event("2", "two", 5.0), event("1", "one", 5.0), event("3", "three", 5.0)])
    assert store.newest(["anna"], 10) == [["one", "two", "three"]]
    assert store.newest(["anna"], 2) == [["two", "three"]]


def test_an_event_twice_is_one(store: Any) -> None:
    """At-least-once delivery sends again whatever was not acknowledged."""
    assert store.append([event("a", "first", 1.0), event("a", "first", 1.0)]) == 1
    assert store.append([event("a", "another", 9.0), event("b", "second", 2.0)]) == 1
    assert store.newest(["anna"], 10) == [["first", "second"]]


def test_users_are_apart_and_an_unknown_one_has_nothing(store: Any) -> None:
    """One key for two users would mix their histories; the same event id is no clash between users."""
    store.append([event("a", "hers", 1.0), event("a", "his", 1.0, "bert"), event("x", "odd", 1.0, "a b:c{d}")])
    assert store.newest(["bert", "nobody", "anna", "a b:c{d}"], 10) == [["his"], [], ["hers"], ["odd"]]


def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    """An answer that comes before the write is a promise that a crash breaks."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().split()]
    process.wait(10)
    found = open_store(url)
    assert found is not None
    items, others = found.newest(["anna", "bert"], 200_000)
    assert items[: len(told)] == [f"i{number}" for number in told]
    assert len(items) - len(told) in (0, 1), "the one that was not acknowledged may be there"
    assert len(others) == len(items), "both events of a request or none"
    assert found.append([event("e0", "i0", 0.0)]) == 0
    found.close()


def test_many_threads_and_two_processes_share_a_store(url: str) -> None:
    """Two workers on one file lose events or fail as locked."""
    stores = [open_store(url), open_store(url)]

    def write(writer: int) -> None:
        found = stores[writer % 2]
        assert found is not None
        for number in range(10):
            found.append([event(f"{writer}-{number}", f"{writer}-{number}", float(number))])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert stores[0] is not None and stores[1] is not None
    assert len(stores[0].newest(["anna"], 1000)[0]) == 40
    for found in stores:
        assert found is not None
        found.close()


def test_addresses_that_are_none_are_refused_without_their_password() -> None:
    """A typing error must not become an in-memory store, and no message may hold a password."""
    assert open_store("none") is None
    for address in ("sqlite://x.db", "sqlite:///", "postgres://me:secret@host/db", "histories.db", ""):
        with pytest.raises(ValueError, match="`history_store` must be") as caught:
            open_store(address)
        assert "secret" not in str(caught.value)
    assert without_password("redis://:secret@host:1/0") == "redis://host:1/0"


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A service that starts without its histories recommends to everybody as to new users."""
    (tmp_path / "text.db").write_text("this is no database, and longer than a header is, by far: " * 10)
    with pytest.raises(OSError, match="cannot be used as a database"):
        SQLiteHistories(tmp_path / "text.db")
    pytest.importorskip("redis")
    with pytest.raises(OSError, match=r"no Redis answers at redis://127\.0\.0\.1:") as caught:
        open_store(f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert "secret" not in str(caught.value)
