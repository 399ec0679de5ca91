"""The whole service as a process: without torch, under SIGTERM, and while its model is swapped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hfrec.commands.serve import parse
from hfrec.serving.settings import TOKEN_VARIABLE, ServeArguments
from tests.serving.conftest import TOKEN, Films

ROOT = Path(__file__).parents[2]
# `hfrec serve` where a model's libraries and pyarrow are not installed.
WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers", "datasets", "accelerate", "scipy", "pyarrow"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
from hfrec_command import main
sys.exit(main())
"""


class Running:
    """A service that listens."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process, self.line = process, line
        found = re.search(r"at (http://\S+) after ([\d.]+) s", line)
        assert found is not None, line
        self.url, self.seconds = found.group(1), float(found.group(2))

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def stop(self) -> str:
        """SIGTERM; what was printed after the first line."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[0]


@contextmanager
def running(model: Path, *flags: str, program: str = WITHOUT) -> Iterator[Running]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"}
    words = ["serve", "--model_name_or_path", str(model), "--port", "0", "--history_store", "none", *flags]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        yield Running(process, process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)


def test_an_export_is_served_where_torch_is_not_installed(films: Films) -> None:
    """One import too many and the small image of the service is gigabytes."""
    with running(films.exported) as service:
        answer = service.post("/recommend", {"histories": [["3", "17"], []], "top_k": 2}).json()
        assert [len(items) for items in answer["recommendations"]] == [2, 2]
        assert len(service.post("/similar", {"items": ["3"], "top_k": 2}).json()["similar"][0]) == 2
        assert "onnx, 200 items" in service.line
        assert "every request that had come was answered" in service.stop()
        assert service.process.returncode == 0


def test_sigterm_answers_what_has_come(films: Films) -> None:
    """A deployment that cuts off what runs fails a handful of users each time."""
    body = {"histories": [["3", "17", "5"] * 100] * 16, "top_k": 50}
    with (
        running(films.exported, "--drain_seconds", "5") as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = [pool.submit(client.post, "/recommend", json=body) for _ in range(24)]
        answers[0].result()
        service.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in answers] == [200] * 24
        assert service.process.wait(60) == 0


def test_before_it_stops_ready_says_no_and_requests_are_answered(films: Films) -> None:
    """A load balancer needs a moment to notice; what it sends meanwhile must not fail."""
    with running(films.exported, "--drain_seconds", "60") as service:
        service.process.send_signal(signal.SIGTERM)
        for _ in range(100):
            status = httpx.get(service.url + "/readyz", timeout=60).status_code
            if status == 503:
                break
            time.sleep(0.05)
        assert status == 503
        assert service.post("/recommend", {"histories": [["3"]]}).status_code == 200
        service.process.send_signal(signal.SIGTERM)  # the second one does not wait
        assert service.process.wait(30) == 0


def load(service: Running, stop: threading.Event, versions: set[str]) -> int:
    """Requests one after the other until told to stop; every one must be answered with 200."""
    asked = 0
    with httpx.Client(base_url=service.url, timeout=60) as client:
        while not stop.is_set():
            response = client.post("/recommend", json={"histories": [["3", "17"]], "top_k": 5})
            assert response.status_code == 200, response.text
            versions.add(response.json()["model_version"])
            asked += 1
    return asked


def test_a_swap_fails_no_request(films: Films, other_films: Films) -> None:
    """A model that is swapped between the encoding and the scoring answers with items of the other one, or fails."""
    stop, versions = threading.Event(), set[str]()
    folders = [str(other_films.exported), str(films.exported)]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with running(films.exported) as service, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load, service, stop, versions) for _ in range(4)]
        try:
            for turn in range(6):
                swapped = service.post("/reload", {"model_name_or_path": folders[turn % 2]}, headers=headers)
                assert swapped.status_code == 200, swapped.text
        finally:
            stop.set()
        assert sum(client.result() for client in clients) > 0
        assert len(versions) == 2


def test_a_port_in_use_is_said_in_one_line(films: Films) -> None:
    """A traceback of an event loop tells nobody that another service has the port."""
    with running(films.exported) as service:
        port = service.url.rpartition(":")[2]
        words = [sys.executable, "-c", WITHOUT, "serve", "--model_name_or_path", str(films.exported), "--port", port]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        second = subprocess.run(
            [*words, "--history_store", "none"], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
        )
        assert second.returncode == 1
        assert "address already in use" in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70_000}, "`port` must lie between 0 and 65535"),
        ({"max_queue": 10}, "`max_queue` .10. must hold one request"),
        ({"max_batch_size": 0}, "`max_batch_size` must be at least 1"),
        ({"watch_seconds": -1.0}, "`watch_seconds` must not be below 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    """A limit of 0 refuses every request with a puzzling message."""
    with pytest.raises(ValueError, match=words):
        ServeArguments("folder", **settings)


def test_flags_and_files_are_read_as_those_of_the_other_commands(tmp_path: Path) -> None:
    """The parser for an environment without transformers must not know less than the other one."""
    path = tmp_path / "serve.json"
    path.write_text(json.dumps({"model_name_or_path": "out", "revision": None, "int8": True, "drain_seconds": 2}))
    flags = ["--model_name_or_path", "out", "--int8", "true", "--drain_seconds", "2"]
    assert parse([str(path)]) == parse(flags) == ServeArguments("out", int8=True, drain_seconds=2.0)
    parsed: Callable[[list[str]], Any] = parse
    for words, message in (
        (["--model_name_or_path", "out", "--prt", "80"], "unknown flag '--prt'. Did you mean 'port'"),
        (["--model_name_or_path", "out", "--port", "x"], "argument --port: invalid int value: 'x'"),
        ([], "the following arguments are required: --model_name_or_path"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            parsed(words)
