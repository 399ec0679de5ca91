"""The newcomer's exercise of docs/architecture.md can still be done as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DIFFS = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE | re.DOTALL)
EXERCISE = """
import sys
from hfrec_command import main
words = ["pretrain", "--dataset", "synthetic", "--output_dir", sys.argv[1], "--loss", "bpr", "--embedding_norm", "true"]
words += ["--num_train_epochs", "1", "--hidden_size", "16", "--num_hidden_layers", "1", "--disable_tqdm", "true"]
words += ["--inputs", "hour"]
sys.exit(main(words))
"""


def changes(diff: str) -> dict[str, list[tuple[str, str]]]:
    """Old and new text of each place, by file."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, body in re.findall(r"^--- a/(\S+)\n\+\+\+ b/\1\n(.*?)(?=^--- a/|\Z)", diff, re.MULTILINE | re.DOTALL):
        for place in body.split("@@\n")[1:]:
            lines = place.splitlines()
            old, new = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
            found.setdefault(name, []).append((old, new))
    return found


def apply(diff: str, root: Path) -> None:
    """Change the files below `root`."""
    for name, places in changes(diff).items():
        path = root / name
        for old, new in places:
            text = path.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"docs/architecture.md: {name} has {old!r} {text.count(old)} times, not once"
            path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with all exercises done."""
    folder = tmp_path_factory.mktemp("exercise")
    shutil.copytree(ROOT / "hfrec", folder / "hfrec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hfrec_command.py", folder)
    for diff in DIFFS:
        apply(diff, folder)
    return folder


def test_the_diffs_fit_the_tree_and_touch_few_files(copy: Path) -> None:
    """A diff that no longer fits sends the newcomer to where nothing is, and a fourth file is a fact in two places."""
    assert [len(changes(diff)) for diff in DIFFS] == [2, 1, 3, 1]
    for diff in DIFFS:
        for name in changes(diff):
            compile((copy / name).read_text(encoding="utf-8"), name, "exec")


@pytest.mark.slow
def test_what_the_exercises_add_works(copy: Path, tmp_path: Path) -> None:
    """Three files may be changed and the new loss never asked for."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EXERCISE, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["loss"], config["embedding_norm"]) == ("bpr", True)
    assert config["inputs"] == [{"name": "hour", "kind": "time", "size": 25}]
    assert "rbp@10" in json.loads((tmp_path / "out" / "all_results.json").read_text())["test"]["filter_seen"]
