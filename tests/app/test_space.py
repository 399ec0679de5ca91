"""A Space as it is pushed: complete, pinned to the checkpoint's commit, and running from the hub with nothing else."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import hfrec
from hfrec.hub.space import write_space
from tests.hub.conftest import TOKEN, Client, client_environment
from tests.hub.loopback import Hub

MODEL, SPACE = "ann/films", "ann/films-demo"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub({TOKEN: ("ann", "write")}).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pushed(hub: Hub, checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space's files, fetched from the hub after `hfrec push --space`, twice: the second push changes nothing."""
    folder = tmp_path_factory.mktemp("space")
    client = Client(client_environment(hub, folder / "home"), folder / "log.txt")
    try:
        for _ in range(2):
            assert client("command", "push", str(checkpoints[0]), MODEL, "--space", SPACE) == 0
    finally:
        client.close()
    repository = hub.repository(SPACE, "spaces")
    for name in repository.commits[repository.branches["main"]].files:
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.content(SPACE, name, kind="spaces"))
    return folder / "files"


def test_a_space_is_complete_and_says_what_it_shows(pushed: Path, hub: Hub) -> None:
    """A Space without its front matter, a requirement or a module is built in vain, minutes after the push."""
    _, front, text = (pushed / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["sdk"] == "gradio"
    assert about["app_file"] == "app.py"
    assert about["models"] == [MODEL]
    assert about["title"] == "films"
    assert about["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    import gradio

    assert about["sdk_version"] == gradio.__version__
    assert MODEL in text
    package = Path(hfrec.__file__).parent
    own = {path.relative_to(package): path for path in package.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in own.items() if "__pycache__" not in name.parts} == {
        path.relative_to(pushed / "hfrec"): path.read_bytes()
        for path in (pushed / "hfrec").rglob("*")
        if path.is_file()
    }
    requirements = dict(line.split("==") for line in (pushed / "requirements.txt").read_text().split())
    assert requirements["transformers"] == __import__("transformers").__version__
    assert {"torch", "scikit-learn", "pyarrow", "datasets"} <= set(requirements)
    assert not any("+" in version for version in requirements.values()), "a local build is on no index"


def test_a_space_shows_the_commit_that_was_pushed(pushed: Path, hub: Hub) -> None:
    """A page that follows `main` changes under its readers with the next training run."""
    tree = ast.parse((pushed / "app.py").read_text(encoding="utf-8"))
    values = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }  # type: ignore[attr-defined]
    assert values == {"MODEL": MODEL, "REVISION": hub.repository(MODEL).branches["main"]}


@pytest.mark.slow
def test_the_pushed_folder_runs_as_it_is(
    pushed: Path, hub: Hub, visit: Callable[..., Any], tmp_path: Path, checkpoints: tuple[Path, Path]
) -> None:
    """The page loads the checkpoint from the hub with the code beside it, and recommends as the function does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = client_environment(hub, tmp_path / "home", GRADIO_SERVER_PORT=str(port))
    del environment["PYTHONPATH"]
    ask = [sys.executable, "-c", "import hfrec; print(hfrec.__file__)"]
    found = subprocess.run(ask, cwd=pushed, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(pushed), "the Space brings its own code"
    log = (tmp_path / "log.txt").open("w+")
    process = subprocess.Popen([sys.executable, "app.py"], cwd=pushed, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process)
        page = visit(address)
        page.get_by_role("button", name="Film 1", exact=True).click()
        page.wait_for_function("document.querySelectorAll('.card').length === 10")
        model, tokenizer = hfrec.load_checkpoint(checkpoints[0])
        expected = [row["title"] for row in hfrec.recommend(model, tokenizer, [["id 1"]], top_k=10)[0]]
        assert page.locator(".card .title").all_inner_texts() == expected
        page.close()  # before the server goes: a stream that breaks off is a console error
    finally:
        process.kill()
        process.wait(timeout=60)
        log.seek(0)
        print(log.read()[-3000:])
        log.close()
    assert any(request.path.startswith(f"/{MODEL}/resolve/") for request in hub.requests)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=20):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the Space did not start (exit code {process.poll()})")


def test_a_hub_that_fails_between_checkpoint_and_space(
    hub: Hub, checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    """The checkpoint is on the hub, its page is not: whoever is not told how to go on pushes a second version."""
    client = Client(client_environment(hub, tmp_path / "home"), tmp_path / "log.txt")
    model, space = "ann/half", "ann/half-demo"
    words = ["push", str(checkpoints[0]), model]

    def pushed(*more: str) -> tuple[int, str]:
        before = len(client.printed())
        return client("command", *words, *more), client.printed()[before:]

    try:
        code, said = pushed("--space", "ann/half/demo")
        assert code == 1 and "ann/half/demo" in said and ("models", model) not in hub.repositories
        faults: list[tuple[str, dict[str, Any], str]] = [
            (rf"/api/spaces/{space}/commit/", {"status": 500}, "500, the hub has trouble"),
            (rf"/api/spaces/{space}/commit/", {"action": "drop"}, "cannot be reached or broke off"),
            (rf"/api/spaces/{space}/preupload/", {"status": 403}, "403, the token may not do this"),
        ]
        for path, rule, reason in faults:
            hub.fail("POST", path, **rule)
            code, said = pushed("--space", space)
            assert code == 1 and reason in said and "Traceback" not in said
            assert f"The checkpoint is at {model}; the same command pushes what is missing" in said
            assert "app.py" not in hub.repository(space, "spaces").commits[hub.head(space, "spaces")].files
            hub.clear()
        hub.fail("POST", faults[0][0], **faults[0][1])
        code, said = pushed("--space", space, "--tag", "v1")
        assert code == 1 and "Leave out `--tag`, which is set" in said
        hub.clear()
        before = hub.repository(model).branches["main"]
        assert pushed("--space", space)[0] == 0
        assert hub.repository(model).branches["main"] == before == hub.repository(model).tags["v1"]
        assert before in hub.content(space, "app.py", kind="spaces").decode()
    finally:
        client.close()


def test_names_are_values_and_no_code(tmp_path: Path) -> None:
    """A title with a quote would end the string in app.py, and one with a colon the line in the front matter."""
    title = 'Ann\'s "films": new --- x'
    write_space(tmp_path / "space", "me/films", revision="abc", title=title.replace(" ---", "\n---"))
    tree = ast.parse((tmp_path / "space" / "app.py").read_text(encoding="utf-8"))
    assert title in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    front = (tmp_path / "space" / "README.md").read_text(encoding="utf-8").split("\n---\n")[0]
    assert yaml.safe_load(front.removeprefix("---\n"))["title"] == title


def test_a_space_beside_a_pull_request_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The page would load a commit that nobody has merged."""
    from hfrec_command import main

    assert main(["push", "folder", MODEL, "--space", SPACE, "--create_pr", "true"]) == 1
    assert "expected no `--create_pr`" in capsys.readouterr().err
