"""The README's blocks run: a first page that fails is the worst of all bugs."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

import hfrec
from hfrec_command import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str, *, run: bool = True) -> list[str]:
    """Blocks that run as they are, or those of which the line above says why not."""
    found = re.findall(rf"^([^\n]*)\n```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [text for above, text in found if above.startswith("<!-- not run:") != run]


def test_it_is_short_and_shows_commands_early() -> None:
    """A first page that must be scrolled for the first command is left."""
    lines = README.splitlines()
    assert len(lines) <= 120
    assert lines.index("```bash") < 25


def test_the_ten_lines_on_real_data_run_on_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newcomer copies first: as many titles come out as stand below, for items that the data has."""
    monkeypatch.chdir(tmp_path)
    (command,), (code,), (printed,) = blocks("bash", run=False), blocks("python", run=False), blocks("text")
    assert len([line for line in (command + code).splitlines() if line]) <= 10
    words = shlex.split(command.replace("ml-100k", "synthetic"))
    small = ["--max_length", "20", "--hidden_size", "32", "--max_steps", "20"]
    assert words[0] == "hfrec" and main([*words[1:], *small]) == 0
    items = hfrec.load_checkpoint("films")[1].items
    code = re.sub(r"recommender\(\[.*?\]", f"recommender({items['item_id'].to_pylist()[:3]}", code)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    lines = output.getvalue().splitlines()
    assert len(lines) == len(printed.splitlines())
    assert {line.split(" ", 1)[1] for line in lines} <= set(items["title"].to_pylist())


def test_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "hfrec"
        assert main(words[1:]) == 0, line
    assert (tmp_path / "recommendations.csv").stat().st_size > 0
