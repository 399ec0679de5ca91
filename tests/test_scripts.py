"""Every script answers, and every settings file is one that its command takes."""

import ast
import runpy
from pathlib import Path

import pytest

import hfrec.commands
from hfrec.commands.pretrain import parse
from hfrec_command import COMMANDS

SCRIPTS = sorted((Path(__file__).parent.parent / "scripts").glob("*.py"))
CONFIGS = sorted((Path(__file__).parent.parent / "scripts" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_its_command(path: Path) -> None:
    """A script that drifts from its command gives two tools of one name."""
    called: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hfrec.commands, "run", lambda name, words: called.extend([name, words]))
        patch.setattr("sys.argv", [path.name, "--flag"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(path), run_name="__main__")
    assert called[0] in COMMANDS and called[1] == ["--flag"]
    assert f"python scripts/{path.name} " in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_settings_file_parses(path: Path) -> None:
    """A key that no dataclass has would be found only by whoever follows the file."""
    arguments = parse([str(path)])
    assert arguments.data.source and arguments.training.output_dir
