"""Trials of `hfrec serve`: strange requests, damaged models and kill -9, beside requests whose answers are known."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pyarrow.parquet as pq

from hfrec.serving.settings import TOKEN_VARIABLE

from .harness import ROOT
from .kills import Trial
from .mutations import copy_of, mutate
from .reference import Reference

FIELDS = (
    "histories", "user_ids", "top_k", "allow", "deny", "categories", "filter_seen", "unknown_items", "items", "events",
    "model_name_or_path", "revision", "bogus",
)  # fmt: skip
TOKEN = "a-token-of-the-trials"


def fuzzed_requests(model: Path, folder: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """Strange bodies, which get an answer or a problem document, and as many sound ones, which get what is right."""
    from fastapi.testclient import TestClient

    from hfrec.serving.app import create_app
    from hfrec.serving.service import Service
    from hfrec.serving.settings import ServeArguments

    reference = Reference(model)
    item = reference.items[0]
    bodies: dict[str, dict[str, Any]] = {
        "/recommend": {"histories": [[item]], "top_k": 3},
        "/similar": {"items": [item], "top_k": 3},
        "/events": {"events": [{"event_id": "e", "user_id": "u", "item_id": item, "timestamp": 1}]},
        "/reload": {},
    }
    store = folder / f"histories-{draw.random()}.db"
    service = Service(ServeArguments(str(model), history_store=f"sqlite:///{store}"))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        for _ in range(count):
            if draw.random() < 0.5:
                yield sound_request(client, reference, draw)
                continue
            path = draw.choice(list(bodies))
            content, change = strange_body(path, json.loads(json.dumps(bodies[path])), item, draw)
            answer = client.post(path, content=content, headers={"content-type": "application/json"})
            wrong = None if answer.status_code < 500 else f"{answer.status_code} to {content[:300]!r}"
            if answer.status_code >= 400 and "detail" not in answer.json():
                wrong = f"no problem document to {content[:300]!r}"
            if answer.status_code == 200 and path == "/events":
                reference.keep(json.loads(content)["events"])
            yield Trial(path, "a strange request", "answered" if answer.status_code < 400 else "told", wrong, change)


def strange_body(path: str, body: dict[str, Any], item: str, draw: random.Random) -> tuple[bytes, str]:
    """The bytes of a request with a strange value or a broken byte, and what was done."""
    strange: list[Any] = [
        None, True, 0, -1, 1, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\0", "a" * 5000, [], [[]],
        {}, {"a": 1}, item, [item], [[item]], [["\ud800"]], [[None]], "'; DROP TABLE events;--", [[item] * 300] * 99,
    ]  # fmt: skip
    name, value = draw.choice(FIELDS), draw.choice(strange)
    body[name] = value
    if path == "/events" and isinstance(body["events"], list) and body["events"] and name != "events":
        name, value = draw.choice(["event_id", "user_id", "item_id", "timestamp"]), draw.choice(strange)
        body["events"][0][name] = value
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    change = f"{name} {value!r:.40}"
    if draw.random() < 0.2:
        place, byte = draw.randrange(len(content)), draw.choice([b"", b"\xff", b"\0", b"{"])
        content = content[:place] + byte + content[place + 1 :]
        change += f", byte {place} {byte!r}"
    return content, change


def sound_request(client: Any, reference: Reference, draw: random.Random) -> Trial:
    """A request that must be accepted, and what an independent reading of the model says to it."""
    items, users = reference.items, ["u", "v", "w"]
    path = draw.choice(["/recommend", "/recommend", "/recommend", "/similar", "/events"])
    if path == "/events":
        events = [
            {
                "event_id": str(draw.randrange(40)), "user_id": draw.choice(users),
                "item_id": draw.choice([*items, "unknown"]), "timestamp": draw.choice([0, 1.5, -3, 2**40]),
            }
            for _ in range(draw.randint(1, 4))
        ]  # fmt: skip
        new = reference.keep(events)
        expected: Any = {"accepted": new, "duplicates": len(events) - new}
        found = client.post(path, json={"events": events})
        wrong = None if found.status_code == 200 and found.json() == expected else f"{found.text}, expected {expected}"
        return Trial(path, "a sound request", "as expected", wrong, str(events))
    body: dict[str, Any] = {"top_k": draw.choice([1, 3, len(items), 99])}
    for name in draw.sample(["allow", "deny"], draw.randint(0, 2)):
        body[name] = [*draw.sample(items, draw.randint(0, len(items) // 2)), "unknown"]
    if path == "/similar":
        body["items"] = draw.sample(items, draw.randint(0, 3))
        expected = [reference.similar(item, body) for item in body["items"]]
    else:
        body["unknown_items"] = draw.choice(["drop", "unk"])
        body["filter_seen"] = draw.choice([None, True, False])
        if draw.random() < 0.3:
            body["user_ids"] = draw.sample([*users, "nobody"], draw.randint(1, 3))
            histories = [reference.history(user) for user in body["user_ids"]]
        else:
            sizes = [draw.choice([0, 1, 3, 30]) for _ in range(draw.randint(1, 4))]
            histories = [[draw.choice([*items, "unknown"]) for _ in range(size)] for size in sizes]
            body["histories"] = histories
        expected = [reference.recommend(history, body) for history in histories]
    found = client.post(path, json=body)
    lists = found.json().get("similar" if path == "/similar" else "recommendations")
    wrong = None
    if found.status_code != 200 or not all(map(reference.agree, lists, expected)) or len(lists) != len(expected):
        wrong = f"{found.text[:300]} to {str(body)[:300]}, expected {str(expected)[:300]}"
    return Trial(path, "a sound request", "as expected", wrong, str(body))


def reloads(model: Path, folder: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """The folder that is served is damaged and loaded anew: refused, or the same answers; the old model goes on."""
    from fastapi.testclient import TestClient

    from hfrec.serving.app import create_app
    from hfrec.serving.service import Service
    from hfrec.serving.settings import ServeArguments

    target = copy_of(model, folder / "served")
    if (model / "recommender.json").is_file():  # an export
        item = json.loads((model / "recommender.json").read_text())["item_ids"][0]
    else:
        item = pq.read_table(model / "items.parquet")["item_id"][0].as_py()
    asked = {"histories": [[item], []], "top_k": 5}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with mock.patch.dict(os.environ, {TOKEN_VARIABLE: TOKEN}):
        service = Service(ServeArguments(str(target), history_store="none"))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        before = client.post("/recommend", json=asked).json()["recommendations"]
        for _ in range(count):
            copy_of(model, target)
            if unsealed := draw.random() < 0.5:
                (target / "sha256.json").unlink()
            file, done = mutate(target, draw)
            answer = client.post("/reload", json={}, headers=headers)
            after = client.post("/recommend", json=asked)
            same = after.status_code == 200 and after.json()["recommendations"] == before
            wrong = None if answer.status_code in (200, 422) else f"{answer.status_code}: {answer.text[:300]}"
            answered = after.status_code == 200 or (after.status_code == 422 and "detail" in after.json())
            if wrong is None and not same and not (unsealed and answer.status_code == 200 and answered):
                wrong = f"another answer than before, after {answer.status_code}: {after.text[:300]}"
            told = 422 in (answer.status_code, after.status_code)
            ended = "same result" if same and answer.status_code == 200 else "told" if told else "another result"
            fault = "a damaged checkpoint is loaded by a running service"
            yield Trial("/reload", fault, ended, wrong, f"{file} {done}{' without hashes' if unsealed else ''}")
            copy_of(model, target)
            if client.post("/reload", json={}, headers=headers).status_code != 200:
                raise RuntimeError("a whole checkpoint was refused")


def killed_services(model: Path, folder: Path, *, draw: random.Random, count: int) -> Iterator[Trial]:
    """kill -9 while events come in: what was answered is there after the next start, the rest whole or not at all."""
    reference = Reference(model)
    for number in range(count):
        store = folder / f"killed-{number}.db"
        kept: list[dict[str, Any]] = []
        sent: list[list[dict[str, Any]]] = []
        with _running(model, store) as (process, url):
            moment = draw.uniform(0.0, 1.0)
            threading.Timer(moment, lambda process=process: os.kill(process.pid, signal.SIGKILL)).start()
            while process.poll() is None:
                events = [
                    {
                        "event_id": f"{len(sent)}-{place}", "user_id": "u", "item_id": draw.choice(reference.items),
                        "timestamp": len(sent),
                    }
                    for place in range(draw.randint(1, 20))
                ]  # fmt: skip
                sent.append(events)
                try:
                    if httpx.post(f"{url}/events", json={"events": events}, timeout=30).status_code == 200:
                        kept += events
                except httpx.HTTPError:
                    process.wait(30)
        with _running(model, store) as (_, url):
            # What is sent again is new or a duplicate as a whole.
            answers = [httpx.post(f"{url}/events", json={"events": events}, timeout=30).json() for events in sent]
            body = {"user_ids": ["u"], "top_k": 5}
            found = httpx.post(f"{url}/recommend", json=body, timeout=30).json()["recommendations"]
        wrong = None
        if any(answer["accepted"] and answer["duplicates"] for answer in answers):
            wrong = f"half of a request was kept: {answers}"
        if sum(answer["duplicates"] for answer in answers) < len(kept):
            wrong = f"{len(kept)} events were answered, {answers} were there"
        reference.events.clear()
        reference.keep([event for events in sent for event in events])
        if wrong is None and not reference.agree(found[0], reference.recommend(reference.history("u"), body)):
            wrong = f"another list than that of the events: {found}"
        yield Trial("serve", "kill -9 of a service", "same result", wrong, f"{moment:.2f} s, {len(sent)} requests")


class _running:
    """A service as a process, killed at the end of the block."""

    def __init__(self, model: Path, store: Path) -> None:
        program = "import sys; from hfrec_command import main; sys.exit(main())"
        words = ["serve", str(model), "--port", "0", "--history_store", f"sqlite:///{store}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self.process.stdout is not None
        line, end = "", time.monotonic() + 120
        while "http://" not in line and time.monotonic() < end and self.process.poll() is None:
            line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(f"the service did not start: {line}")
        return self.process, found.group(0)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(30)
