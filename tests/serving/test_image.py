"""The Dockerfile and the compose file: their parts fit each other, and their steps run in a clean environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from hfrec.commands.serve import parse
from tests.serving.conftest import Films
from tests.serving.test_server import Running

ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile in order."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def words_of(instruction: str) -> list[str]:
    (found,) = [yaml.safe_load(rest) for name, rest in steps() if name == instruction]
    assert isinstance(found, list)
    return found


def test_the_image_lists_what_the_extra_lists_and_no_torch() -> None:
    """A library that the extra gains and the image lacks fails in production first."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in the standard library from Python 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "docker" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    extra = {Requirement(text).name for text in project["optional-dependencies"]["serve"]}
    known = extra | {Requirement(text).name for text in project["dependencies"]}
    assert extra <= listed
    assert listed <= known
    assert not listed & {"torch", "transformers"}


def test_the_service_runs_as_an_ordinary_user_from_a_slim_image() -> None:
    """A service that is root in its container owns the host's mounted folders."""
    names = [name for name, _ in steps()]
    users = [rest for name, rest in steps() if name == "USER"]
    assert users == ["hfrec"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert [rest for name, rest in steps() if name == "FROM"][-1] == "python:3.12-slim"


def test_the_flags_of_image_and_compose_file_are_flags_of_the_command() -> None:
    """A renamed flag leaves an image that builds and does not start."""
    image = parse([*words_of("ENTRYPOINT")[2:], *words_of("CMD")])
    assert (image.host, image.port, image.history_store) == ("0.0.0.0", 8000, "sqlite:////data/histories.db")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["recommender"]
    beside = parse([*words_of("ENTRYPOINT")[2:], *service["command"]])
    assert beside.history_store == "redis://redis:6379/0"
    assert "redis" in compose["services"]
    assert beside.drain_seconds + beside.shutdown_seconds <= int(service["stop_grace_period"].rstrip("s"))


@pytest.mark.slow
def test_the_steps_of_the_image_run_in_a_clean_environment(films: Films, tmp_path: Path) -> None:
    """No container engine is needed to find out that a file, a pin or a library is missing."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    source, wheels, install, data = (tmp_path / name for name in ("source", "wheels", "install", "data"))
    data.mkdir()
    places = {"/wheels": str(wheels), "/install": str(install), "/data": str(data), "/model": str(films.exported)}

    def placed(text: str) -> str:
        return re.sub("|".join(rf"(?<![\w.]){name}\b" for name in places), lambda found: places[found[0]], text)

    stage = 0
    for name, rest in steps():
        stage += name == "FROM"
        if name == "COPY" and not rest.startswith("--from"):
            *names, target = rest.split()
            goal = source / target if stage == 1 else Path(placed(target))
            for each in names:
                copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
                goal.mkdir(parents=True, exist_ok=True) if copy is shutil.copy else None
                copy(ROOT / each, goal)
        if name == "RUN" and rest.startswith("pip "):
            command = f"{shlex.quote(str(environment / 'bin' / 'python'))} -m {placed(rest)}"
            result = subprocess.run(
                ["bash", "-c", command], cwd=source, capture_output=True, text=True, check=False, timeout=500
            )
            if "No matching distribution" in result.stderr and "Connection" in result.stderr:
                pytest.skip("no package registry can be reached")
            assert result.returncode == 0, result.stderr
    packages = subprocess.run(
        [environment / "bin" / "python", "-m", "pip", "list"], capture_output=True, text=True, check=True
    )
    assert not re.search(r"^(torch|transformers|pyarrow) ", packages.stdout, re.MULTILINE)
    program = str(environment / "bin" / "hfrec")
    words: list[Any] = [program, *words_of("ENTRYPOINT")[1:], *map(placed, words_of("CMD"))]
    words[words.index("0.0.0.0")] = "127.0.0.1"
    words[words.index("8000")] = "0"
    clean = {"PATH": os.environ["PATH"]}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=data, env=clean) as process:
        assert process.stdout is not None
        try:
            service = Running(process, process.stdout.readline())
            assert httpx.get(service.url + "/healthz").status_code == 200
            answer = service.post("/recommend", {"histories": [["3"], []], "top_k": 2})
            assert [len(items) for items in answer.json()["recommendations"]] == [2, 2]
            event = {"event_id": "1", "user_id": "anna", "item_id": "3"}
            assert service.post("/events", {"events": [event]}).json() == {"accepted": 1, "duplicates": 0}
            assert (data / "histories.db").is_file()
            service.stop()
            assert process.returncode == 0
        finally:
            process.kill()
