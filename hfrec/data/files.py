"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

# The Trainer's own pushes leave out names that begin with an underscore.
LOCK_FILE = "_lock"
RUN_FILE = "_run.json"
LOG_FILE = "_training_log.jsonl"
STUDY_FILE = "study.db"
SEAL_FILE = "sha256.json"
PULL_FILE = ".hfrec_pull.json"
_LOADED = (
    ".safetensors",
    "config.json",
    "tokenizer.json",
    "items.parquet",
    "_info.json",
    "all_results.json",  # which columns, filters and split a checkpoint remembers
)  # to work with, not to train on
VALIDATION_FOLDER = "validation"  # of a run that is trained again on all rows
DRAFT_PREFIX = ".hfrec-draft-"  # of files and folders that are being written
READY_PREFIX = ".hfrec-ready-"  # of folders that are written to their end, whose files are on their way to their place
_MACHINE = re.sub(r"\W|_", "", platform.node())
_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Die here where the environment asks for it, as `HFREC_FAULT_POINT=name` or `name:3` for the third time.

    For tests of what a process that is killed leaves behind (`tests/faults`).
    """
    wanted, _, number = os.environ.get("HFREC_FAULT_POINT", "").partition(":")
    if wanted == name:
        _passed[name] += 1
        if _passed[name] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its place at the end of the block, or goes away when the block fails.

    Drafts of the same file that processes of this machine left when they died are removed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, whole_file(Path(folder) / "new" / "a.txt") as draft:
        ...     size = draft.write_text("text")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f"{DRAFT_PREFIX}{_MACHINE}-*-{escape(path.name)}"):
        if os.name != "nt" and not _is_being_written(other):
            other.unlink(missing_ok=True)
    # Of this process: another may write the file too.
    draft = path.with_name(f"{DRAFT_PREFIX}{_MACHINE}-{os.getpid()}-{path.name}")
    try:
        yield draft
        _to_disk(draft)
        fault_point("written")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """A draft folder whose files move into `folder` at the end of the block, or go away when the block fails.

    A process that dies while they move leaves the rest to `finish_drafts`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_files(Path(folder) / "new") as draft:
        ...         size = (draft / "a.txt").write_text("text")
        ...     sorted(path.name for path in (Path(folder) / "new").iterdir())
        ['a.txt']
    """
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(dir=folder, prefix=DRAFT_PREFIX))
    try:
        yield draft
        for file in draft.rglob("*"):
            _to_disk(file)
        fault_point("drafted")
        ready = draft.rename(folder / draft.name.replace(DRAFT_PREFIX, READY_PREFIX, 1))
    except BaseException:
        shutil.rmtree(folder if not was_there else draft)
        raise
    _place(ready)


def finish_drafts(folder: Path) -> list[str]:
    """Bring to its end what processes that died had begun to write into a folder, which nobody else must write now.

    Args:
        folder: Output folder of a command.

    Returns:
        Names of what was written to its end and is now in its place; what was not is removed.
    """
    for draft in folder.glob(f"{DRAFT_PREFIX}*"):
        if draft.is_dir():
            shutil.rmtree(draft)
        elif not _is_being_written(draft):
            draft.unlink(missing_ok=True)
    return [name for ready in sorted(folder.glob(f"{READY_PREFIX}*")) for name in _place(ready)]


def _is_being_written(draft: Path) -> bool:
    """Whether the draft of a file is that of another process of this machine, and the process lives."""
    machine, _, rest = draft.name.removeprefix(DRAFT_PREFIX).partition("-")
    number = rest.partition("-")[0]
    if machine != _MACHINE or not number.isdigit() or int(number) == os.getpid() or os.name == "nt":
        return False  # Windows cannot ask a process without ending it, and does not remove a file that is open
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _place(ready: Path) -> list[str]:
    """Move the files of a finished draft into the folder around it."""
    names = sorted(path.name for path in ready.iterdir())
    for name in names:
        fault_point("moving")
        os.replace(ready / name, ready.parent / name)
    fault_point("moved")
    ready.rmdir()
    return names


def _to_disk(path: Path) -> None:
    """Have the content on the disk before its name is: after a power cut the name would stand for zeros."""
    if path.is_file():
        with path.open("rb") as content:
            os.fsync(content.fileno())


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path) -> None:
    """Write the hashes of all files of a folder into it, for `fault_of`."""
    (folder / SEAL_FILE).unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / SEAL_FILE, {path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


@contextmanager
def sealed_files(folder: Path) -> Iterator[Path]:
    """`whole_files`, whose hashes then stand beside those of what the folder held, which is not hashed again.

    Args:
        folder: Where they go; sealed or not.
    """
    with whole_files(folder) as draft:
        yield draft
        earlier = read_json_object(folder / SEAL_FILE) if (folder / SEAL_FILE).is_file() else {}
        seal(draft)
        write_json(draft / SEAL_FILE, {**earlier, **read_json_object(draft / SEAL_FILE)})


def fault_of(folder: Path, suffixes: tuple[str, ...] | None = None) -> str | None:
    """What is wrong with the files of a folder, by the hashes that were written last; None of a whole one.

    Args:
        folder: Sealed by `seal`.
        suffixes: Only files of the folder itself whose names end so are looked at; all unless given.
    """
    unfinished = "it was not written to its end"
    if not (folder / SEAL_FILE).is_file():
        return unfinished
    try:
        hashed = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return unfinished
    if not isinstance(hashed, dict) or not hashed:
        return f"{SEAL_FILE} is damaged"
    names = [name for name in hashed if suffixes is None or (name.endswith(suffixes) and "/" not in name)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return f"{', '.join(missing)} missing"
    changed = [name for name in names if sha256_of(folder / name) != hashed[name]]
    return f"{', '.join(changed)} damaged" if changed else None


def check_seal(folder: Path) -> None:
    """Refuse a sealed checkpoint whose files are not those that were sealed, and one that was pulled by half.

    Zeros are weights like any others, and so are those of another revision.

    Raises:
        ValueError: With the files.
    """
    if (folder / PULL_FILE).is_file() and read_json_object(folder / PULL_FILE).get("whole") is False:
        raise ValueError(f"{folder} holds a pull that did not end, files of two revisions: pull again.")
    if (folder / SEAL_FILE).is_file() and (fault := fault_of(folder, _LOADED)):
        raise ValueError(
            f"{folder} is not as it was saved: {fault}. Copy it again; if the change is meant, remove its {SEAL_FILE}."
        )


def check_file(path: Path) -> None:
    """Refuse a file that is not what the hashes beside it, if there are any, say of it.

    A row that was changed is a row like any other.

    Raises:
        ValueError: With the file.
    """
    sealed = path.parent / SEAL_FILE
    expected = read_json_object(sealed).get(path.name) if sealed.is_file() else None
    if expected is not None and sha256_of(path) != expected:
        raise ValueError(
            f"{path} is not as it was written: copy it again; if the change is meant, remove {SEAL_FILE} beside it."
        )


def json_digest(content: Any) -> str:
    """SHA-256 (hex) of what JSON holds, however it is written.

    Example:
        >>> json_digest({"a": 1, "b": [2]}) == json_digest({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: It is damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): copy or write it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected an object, found a {type(content).__name__}. Write it again.")
    return content


def check_new_folder(folder: Path) -> None:
    """Refuse an output folder that is a file or in use.

    Raises:
        ValueError: With what is there.
    """
    check_folder(folder)
    found = sorted({path.name for path in folder.iterdir()} - {LOCK_FILE})[:5] if folder.is_dir() else []
    if found:
        raise ValueError(
            f"`output_dir` {folder} is in use: expected a new or empty folder, found {', '.join(found)}. "
            "Choose another or remove it."
        )


def check_folder(folder: Path) -> None:
    """Refuse an output folder that is a file.

    Raises:
        ValueError: It is one.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output_dir` {folder} is a file: name a folder.")
