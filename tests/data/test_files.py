"""Files are there whole or not at all, whatever becomes of the process that writes them."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hfrec.data.files import (
    DRAFT_PREFIX,
    READY_PREFIX,
    SEAL_FILE,
    check_file,
    fault_of,
    seal,
    sealed_files,
    whole_file,
)
from hfrec.data.locks import locked_folder

ROOT = Path(__file__).parents[2]
WRITE = """
import sys
from pathlib import Path
from hfrec.data.files import whole_files
with whole_files(Path(sys.argv[1])) as draft:
    for name in "abc":
        (draft / name).write_text(name)
"""


def die(folder: Path, point: str) -> None:
    """Write three files in a process that is killed at a point."""
    environment = {**os.environ, "HFREC_FAULT_POINT": point}
    done = subprocess.run([sys.executable, "-c", WRITE, str(folder)], cwd=ROOT, env=environment)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("point", "left"), [("drafted", ""), ("moving", "abc"), ("moving:2", "abc"), ("moving:3", "abc"), ("moved", "abc")]
)
def test_files_that_were_moving_arrive(point: str, left: str, tmp_path: Path) -> None:
    """Some files of a killed command were in their place and some not: a reader took the half for the whole, and the
    same command was refused for ever."""
    die(tmp_path, point)
    with locked_folder(tmp_path):
        found = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != "_lock")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == list(left)
    assert all(path.read_text() == path.name for path in found)
    assert not list(tmp_path.glob(f"{READY_PREFIX}*")) and not list(tmp_path.glob(f"{DRAFT_PREFIX}*"))


def test_two_writers_of_a_file_do_not_share_a_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that wrote one `--output_file` wrote into one draft: a mixture of both took its place."""
    with whole_file(tmp_path / "a.txt") as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole_file(tmp_path / "a.txt") as other:
            other.write_text("other")
        assert one.read_text() == "one"
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_draft_of_a_file_is_no_obstacle(tmp_path: Path) -> None:
    """The draft of a settings file stayed, and the folder was "in use" for ever."""
    (tmp_path / f"{DRAFT_PREFIX}7-_run.json").write_text("{")
    with locked_folder(tmp_path):
        assert not list(tmp_path.glob(f"{DRAFT_PREFIX}*"))


def test_the_draft_of_a_dead_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    """Beside an `--output_file` no folder is locked: what a killed command left stayed there for ever."""
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(tmp_path / "a[1].txt",))
    process.start()
    process.join()
    assert [path.name.startswith(DRAFT_PREFIX) for path in tmp_path.iterdir()] == [True]
    with whole_file(tmp_path / "b.txt") as draft:
        draft.write_text("b")
    assert len(list(tmp_path.glob(f"{DRAFT_PREFIX}*a[[]1].txt"))) == 1  # of another file
    with whole_file(tmp_path / "a[1].txt") as draft:
        draft.write_text("again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a[1].txt", "b.txt"]

    process = multiprocessing.get_context("fork").Process(target=_write_and_wait, args=(tmp_path / "a[1].txt",))
    process.start()
    while not list(tmp_path.glob(f"{DRAFT_PREFIX}*")):
        process.join(0.01)
    with whole_file(tmp_path / "a[1].txt") as draft:
        draft.write_text("mine")
    with locked_folder(tmp_path):  # a command into the folder where another writes its file
        assert len(list(tmp_path.glob(f"{DRAFT_PREFIX}*"))) == 1
    process.kill()
    process.join()


def _die_while_writing(path: Path) -> None:
    with whole_file(path) as draft:
        draft.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def _write_and_wait(path: Path) -> None:
    with whole_file(path) as draft:
        draft.write_text("half")
        signal.pause()


def test_hashes_that_cannot_be_read_are_a_fault(tmp_path: Path) -> None:
    """A pipe is waited for without an end, and a nest of brackets was a traceback."""
    (tmp_path / "a").write_text("a")
    seal(tmp_path)
    assert fault_of(tmp_path) is None
    for content in ("[" * 100_000, "{", "\\udc80"):
        (tmp_path / SEAL_FILE).write_text(content)
        assert fault_of(tmp_path) == "it was not written to its end"
    (tmp_path / SEAL_FILE).unlink()
    os.mkfifo(tmp_path / SEAL_FILE)
    assert fault_of(tmp_path) == "it was not written to its end"


def test_results_are_sealed_beside_the_model_they_are_of(tmp_path: Path) -> None:
    """Hashes of the results alone would take those of the weights away; what lies deeper is a folder of its own."""
    (tmp_path / "validation").mkdir()
    for name in ("a", "validation/a"):
        (tmp_path / name).write_text(name)
    seal(tmp_path)
    with sealed_files(tmp_path) as draft:
        (draft / "b").write_text("b")
    assert fault_of(tmp_path) is None
    (tmp_path / "validation" / "a").unlink()
    assert fault_of(tmp_path, ("a", "b")) is None
    assert fault_of(tmp_path) == "validation/a missing"
    for name in ("a", "b"):
        check_file(tmp_path / name)
        (tmp_path / name).write_text("other")
        with pytest.raises(ValueError, match=f"{name} is not as it was written"):
            check_file(tmp_path / name)
    (tmp_path / "c").write_text("of nobody")
    check_file(tmp_path / "c")
