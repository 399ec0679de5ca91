"""One process at a time writes a folder, and none that died keeps it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers.utils import logging

from hfrec.data.files import DRAFT_PREFIX, LOCK_FILE, check_new_folder
from hfrec.data.locks import locked_folder
from hfrec_command import main

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from hfrec.data.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "held").touch()
    time.sleep(60)
"""


def hold(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT)
    while not (folder / "held").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (folder / "held").unlink()
    return process


def test_a_second_command_into_a_folder_is_refused(
    write_log: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs that wrote each other's checkpoints both ended with exit code 0 and the weights of neither."""
    log = write_log("log.csv", num_users=20, num_items=20, min_length=5)
    folder = tmp_path / "run"
    words = ["prepare", "--train_file", str(log), "--output_dir", str(folder)]
    process = hold(folder)
    try:
        assert main(words) == 1
        assert "is being written by another process" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()
    assert (folder / LOCK_FILE).exists()
    assert main(words) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["interactions.parquet", "report.json", "sha256.json"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    """Half-written files of a killed command kept the same command from being given again."""
    (tmp_path / f"{DRAFT_PREFIX}1" / "part").mkdir(parents=True)
    with locked_folder(tmp_path):
        check_new_folder(tmp_path)


def test_an_unused_folder_goes_again(tmp_path: Path) -> None:
    """A command that refuses its input left folders behind."""
    with pytest.raises(ValueError, match="reason"), locked_folder(tmp_path / "a" / "b"):
        raise ValueError("reason")
    assert not (tmp_path / "a").exists()


def test_other_processes_of_a_run_do_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of several processes would refuse itself."""
    with locked_folder(tmp_path):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with locked_folder(tmp_path):
            pass


def test_a_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Windows every command that writes a folder ended with "No module named 'fcntl'"."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    logging.enable_propagation()
    try:
        with locked_folder(tmp_path / "run"):
            (tmp_path / "run" / "result").touch()
    finally:
        logging.disable_propagation()
    assert "is not locked on this system" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_a_rank_alone_is_no_run_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that some scheduler left behind switched off all locks."""
    monkeypatch.setenv("RANK", "1")
    with locked_folder(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()
