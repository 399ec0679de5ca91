"""Every script answers, and every settings file is one that its command takes."""

import importlib.util
from pathlib import Path

import pytest

from hfrec.commands.pretrain import parse

SCRIPTS = sorted((Path(__file__).parent.parent / "scripts").glob("*.py"))
CONFIGS = sorted((Path(__file__).parent.parent / "scripts" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_its_command(path: Path) -> None:
    """A script that drifts from its command gives two tools of one name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main.__module__.startswith("hfrec.commands.")
    assert f"python scripts/{path.name} " in (module.__doc__ or "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_settings_file_parses(path: Path) -> None:
    """A key that no dataclass has would be found only by whoever follows the file."""
    data, *_, training = parse([str(path)])
    assert data.source and training.output_dir
