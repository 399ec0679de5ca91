"""The examples of docs/serving.md, run as they stand against a service that is started as the page says."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from hfrec.serving.settings import ServeArguments
from tests.serving.conftest import TOKEN, Films
from tests.serving.test_server import running

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_with_curl_and_python_works(films: Films, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that no longer works is the first thing that a newcomer tries."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl (Debian: apt-get install curl)")
    with running(films.exported, "--history_store", "sqlite:///:memory:") as service:

        def here(text: str) -> str:
            text = text.replace("http://localhost:8000", service.url).replace("change-me", TOKEN)
            return text.replace('"exported"', f'"{films.exported}"').replace("curl -s ", "curl -sS --fail-with-body ")

        commands = [here(block) for block in blocks("bash") if block.startswith("curl")]
        assert len(commands) == 4
        for command in commands:
            result = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        (program,) = blocks("python")
        exec(compile(here(program), "docs/serving.md", "exec"), {})
        assert capsys.readouterr().out.startswith("1 ")


def test_flags_on_the_page_are_flags_of_the_command() -> None:
    """A flag that was renamed lives on in the documentation."""
    known = {place.name for place in fields(ServeArguments)} | {"output_dir", "rm", "build"}
    found = set(re.findall(r"--(\w+)", PAGE))
    assert len(found) > 8
    assert not found - known
