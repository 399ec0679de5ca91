"""Two small checkpoints with titles, a log, the page as a process of its own, and the system's Chromium."""

from __future__ import annotations

import csv
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)} {{value}} `x`"
GENRES = ["Drama|War", "Comedy", "Horror", None]
ITEMS = [f"id {number}" for number in range(40)]
TITLES = [*(f"Film {number}" for number in range(39)), HOSTILE]
USERS = {"ann": ["id 1", "id 2", "id 39"], "anton": ["id 5", "id 6"], "bob": [f"id {number}" for number in range(12)]}
PROGRAM = "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"


def film_tokenizer(*, titles: bool = True, counts: bool = True) -> Any:
    from hfrec import ItemTokenizer

    columns: dict[str, Any] = {"item_id": ITEMS, "year": [1950 + number for number in range(40)]}
    columns |= {"title": TITLES, "genres": [GENRES[number % 4] for number in range(40)]} if titles else {}
    frequencies = {item: 2 * (40 - place) for place, item in enumerate(ITEMS)} if counts else None
    return ItemTokenizer.from_items(ITEMS, metadata=pa.table(columns), counts=frequencies)


def network(name: str, seed: int) -> Any:
    import torch

    import hfrec

    torch.manual_seed(seed)
    sizes = {"vocab_size": 43, "hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8}
    return getattr(hfrec, name)(hfrec.Bert4RecConfig(**sizes, initializer_range=0.5)).eval()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A causal and a masked one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for place, name in enumerate(("Bert4RecForCausalLM", "Bert4RecForMaskedLM")):
        network(name, place).save_pretrained(folder / name)
        film_tokenizer().save_pretrained(folder / name)
    return folder / "Bert4RecForCausalLM", folder / "Bert4RecForMaskedLM"


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp"])
        rows.writerows([user, item, time] for user, items in USERS.items() for time, item in enumerate(items))
    return path


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A page as a process; gives its address, and ends the process with the block."""
    log = (folder / "log.txt").open("w+")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment)
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and process.poll() is None:
            if select.select([process.stdout], [], [], 1)[0]:
                line = process.stdout.readline()
                if "http://" in line:
                    yield "http://" + line.split("http://")[1].split()[0].rstrip("/")
                    return
        log.seek(0)
        pytest.fail(f"the page did not start: {log.read()[-3000:]}")
    finally:
        process.kill()  # an orderly end takes seconds
        process.wait(timeout=60)
        log.close()


@pytest.fixture(scope="session")
def page_address(
    checkpoints: tuple[Path, Path], log_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """`hfrec app` with both checkpoints and the log."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    words = ["app", "--model_name_or_path", str(checkpoints[0]), "--compare_with", str(checkpoints[1])]
    words += ["--labels", "Causal", "Masked <i>", "--history_file", str(log_file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, *words]
    with running(command, tmp_path_factory.mktemp("page"), environment) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium; nothing is downloaded. It ends with its module: Playwright's loop is in others' way."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end of the test it must have had no console error, dialog or request to another host."""
    opened = []
    troubles: list[str] = []

    def open_page(address: str, width: int = 1280) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 844})
        page.set_default_timeout(120_000)  # a machine may be busy
        page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda sent: None if _is_local(sent.url, address) else troubles.append(sent.url))
        page.goto(address)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.close()
    assert not troubles


def _is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))
