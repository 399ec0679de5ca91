"""The README's blocks run: a first page that fails is the worst of all bugs."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from hfrec_command import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_it_is_short_and_shows_commands_early() -> None:
    """A first page that must be scrolled for the first command is left."""
    lines = README.splitlines()
    assert len(lines) <= 120
    assert lines.index("```bash") < 25


def test_first_block_prints_what_stands_below_it() -> None:
    code, printed = blocks("python")[0], blocks("text")[0]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    assert output.getvalue() == printed


def test_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "hfrec"
        assert main(words[1:]) == 0, line
    assert (tmp_path / "recommendations.csv").stat().st_size > 0
