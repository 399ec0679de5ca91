"""Named data sets, without a network: sources are replaced by archives made here."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile

import pytest

from hfrec.data import catalogs
from hfrec.data.columns import LogColumns
from hfrec.data.interactions import load_interactions

U_ITEM = (
    "1|Toy Story (1995)|01-Jan-1995||url|0|0|0|1|1|1" + "|0" * 13 + "\n2|Misérables, Les (V)|||u|1" + "|0" * 18 + "\n"
)
U_DATA = "7\t2\t3\t20\n7\t1\t5\t10\n"
EXPECTED_ITEM = {"item_id": "1", "title": "Toy Story", "year": 1995, "genres": "Animation|Children's|Comedy"}


def archive(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HFREC_HOME", str(tmp_path))
    return tmp_path


def serve(monkeypatch, name: str, content: bytes | None):
    def opened(url, *, timeout):
        if content is None:
            raise OSError("no network")
        return io.BytesIO(content)

    monkeypatch.setattr(catalogs, "urlopen", opened)
    if content is not None:
        monkeypatch.setitem(catalogs.ARCHIVE_MD5, name, hashlib.md5(content).hexdigest())


def test_ml100k_from_the_official_archive_then_from_the_cache(monkeypatch, capsys):
    """Stops titles with the wrong encoding, swapped columns and a second download."""
    members = {"ml-100k/u.data": U_DATA.encode(), "ml-100k/u.item": U_ITEM.encode("latin-1")}
    serve(monkeypatch, "ml-100k", archive(**members))
    loaded = load_interactions("ml-100k")
    assert loaded.table.to_pylist() == [
        {"user_id": "7", "item_id": "1", "timestamp": 10, "rating": 5},
        {"user_id": "7", "item_id": "2", "timestamp": 20, "rating": 3},
    ]
    assert loaded.items.to_pylist()[0] == EXPECTED_ITEM
    assert loaded.items.to_pylist()[1]["title"].startswith("Misérables")
    assert "no commercial use" in capsys.readouterr().err
    serve(monkeypatch, "ml-100k", None)
    assert load_interactions("ml-100k").fingerprint == loaded.fingerprint


def test_ml1m_from_the_official_archive(monkeypatch):
    """Stops "::" from being read as two separators."""
    ratings, movies = (
        b"1::9::4::30\n1::8::5::20\n",
        '8::Café "X" (1999)::Drama|War\n9::B (2000)::Comedy\n'.encode("latin-1"),
    )
    serve(monkeypatch, "ml-1m", archive(**{"ml-1m/ratings.dat": ratings, "ml-1m/movies.dat": movies}))
    loaded = load_interactions("ml-1m")
    assert loaded.table["item_id"].to_pylist() == ["8", "9"]
    assert loaded.items.to_pylist()[0] == {"item_id": "8", "title": 'Café "X"', "year": 1999, "genres": "Drama|War"}


def pip_that_brings(monkeypatch, inter: bytes, item: bytes):
    folder = catalogs.RECBOLE_FOLDER

    def run(command, **_):
        wheel = archive(**{folder + "ml-100k.inter": inter, folder + "ml-100k.item": item})
        with open(f"{command[command.index('--dest') + 1]}/recbole-1.2.1-py3-none-any.whl", "wb") as file:
            file.write(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)


INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t2\t3\t20\n7\t1\t5\t10\n"
ITEM = b"item_id:token\ttitle\tyear\tclass\n1\tToy Story\t1995\tAnimation Children's Comedy\n2\tX\tunkonwn\tunknown\n"


def test_ml100k_falls_back_to_the_wheel_and_says_so(monkeypatch, capsys):
    """Stops the two sources from giving different tables, and a silent fall-back."""
    serve(monkeypatch, "ml-100k", None)
    pip_that_brings(monkeypatch, INTER, ITEM)
    for name, content in (("ml-100k.inter", INTER), ("ml-100k.item", ITEM)):
        monkeypatch.setitem(catalogs.RECBOLE_SHA256, name, hashlib.sha256(content).hexdigest())
    loaded = load_interactions("ml-100k")
    assert loaded.table["timestamp"].to_pylist() == [10, 20]
    assert loaded.items.to_pylist() == [
        EXPECTED_ITEM,
        {"item_id": "2", "title": "X", "year": None, "genres": "unknown"},
    ]
    assert "no network" in capsys.readouterr().err


def test_changed_content_is_refused_and_nothing_is_cached(monkeypatch, cache):
    """Stops a proxy's error page or a changed file from being trained on."""
    serve(monkeypatch, "ml-100k", b"<html>login</html>")
    monkeypatch.setitem(catalogs.ARCHIVE_MD5, "ml-100k", "0" * 32)
    pip_that_brings(monkeypatch, INTER, ITEM)
    with pytest.raises(ConnectionError, match=r"MD5.*SHA-256.*local folder"):
        load_interactions("ml-100k")
    assert list(cache.rglob("*.parquet")) == []


def test_named_columns_cannot_be_renamed():
    """Stops a column argument from being ignored."""
    with pytest.raises(ValueError, match="user_id, item_id and timestamp"):
        load_interactions("synthetic", columns=LogColumns(user_column="u"))


def test_synthetic_has_the_structure_it_promises():
    """Stops a generator of mere noise, on which no model can learn."""
    log, items = catalogs.synthetic_tables(num_users=300, noise=0.1, seed=3)
    assert log.equals(catalogs.synthetic_tables(num_users=300, noise=0.1, seed=3)[0])
    assert not log.equals(catalogs.synthetic_tables(num_users=300, noise=0.1, seed=4)[0])
    loaded = load_interactions(log, items=items)
    users, chain = loaded.table["user_id"].to_pylist(), loaded.table["item_id"].to_pylist()
    followers: dict[str, dict[str, int]] = {}
    for index in range(1, len(chain)):
        if users[index] == users[index - 1]:
            counts = followers.setdefault(chain[index - 1], {})
            counts[chain[index]] = counts.get(chain[index], 0) + 1
    best = sum(max(counts.values()) for counts in followers.values())
    assert 0.50 < best / sum(sum(counts.values()) for counts in followers.values()) < 0.62
    assert loaded.num_items == items.num_rows == 120 and loaded.items.column_names == ["item_id", "title", "genres"]


@pytest.mark.parametrize("bad", [{"noise": 2.0}, {"min_length": 9, "max_length": 3}, {"num_items": 10}])
def test_synthetic_refuses_bad_sizes(bad):
    """Stops a generator that runs on nonsense."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        catalogs.synthetic_tables(**bad)
